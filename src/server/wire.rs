//! Bytes between a socket and an RTMP connection.
//!
//! Writes never hold up reads: what the peer has not taken yet waits here, up to a limit. A connection has no buffer of
//! its own: each thread has one, and what is read is taken from it at once, in pieces if it is much.
//!
//! ```text
//! socket ──one read, up to 2 MB──▶ buffer ──256 kB──▶ connection ──▶ files, while the cache still holds the piece
//! ```

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::Instant;

use super::socket::{Next, Pace, Rhythm};

/// Bytes that wait for a peer that does not read what we say; our replies are a few hundred.
pub(super) const MOST_UNSENT_BYTES: usize = 64 << 10;
/// So many bytes are sent even if we should be quiet.
const MOST_HELD_BYTES: usize = 16 << 10;

/// So many bytes are handed on at once. What becomes of them is written before the next piece, while the processor's cache
/// (L2: 256 kB to 2 MB) still holds it.
const PIECE_BYTES: usize = 256 << 10;

thread_local! {
    /// Where sockets are read to, as long as it ever was worth. Empty while a connection has something unread in it.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A socket, and what is still to be said through it.
#[derive(Debug)]
pub(super) struct Wire<S> {
    socket: S,
    unsent: VecDeque<Bytes>,
    unsent_bytes: usize,
    /// Until when nothing is sent.
    quiet_until: Option<Instant>,
    /// Bytes received so far.
    received: u64,
    unread: Unread,
}

/// What was taken from the socket and not handed on yet: more than a piece.
#[derive(Debug, Default)]
struct Unread {
    /// The thread's, borrowed.
    buffer: Vec<u8>,
    range: Range<usize>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(socket: S) -> Self {
        Self {
            socket,
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            quiet_until: None,
            received: 0,
            unread: Unread::default(),
        }
    }

    /// The peer publishes: it is read when `rhythm` says so.
    pub(super) fn pace(&mut self, rhythm: &Rhythm)
    where
        S: Pace,
    {
        self.socket.pace(rhythm);
    }

    /// What comes next, and so when it is looked at.
    pub(super) fn expect(&mut self, next: Next)
    where
        S: Pace,
    {
        self.socket.expect(next);
    }

    /// Whatever has come may be read now, whenever the next look is.
    pub(super) fn hasten(&mut self)
    where
        S: Pace,
    {
        self.socket.hasten();
    }

    /// Bytes received so far.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Queues bytes to be sent; they go out while [`poll_receive`](Self::poll_receive) waits.
    pub(super) fn send(&mut self, bytes: Bytes) {
        self.unsent_bytes += bytes.len();
        self.unsent.push_back(bytes);
    }

    /// Nothing is sent until then.
    pub(super) fn be_quiet_until(&mut self, quiet_until: Option<Instant>) {
        self.quiet_until = quiet_until;
    }

    /// When what waits to be sent can go out, if it has to wait for that.
    pub(super) fn sends_at(&self) -> Option<Instant> {
        self.quiet_until.filter(|_| !self.unsent.is_empty() && self.unsent_bytes <= MOST_HELD_BYTES)
    }

    /// Something was taken from the socket that comes next without a look at it.
    pub(super) fn has_unread(&self) -> bool {
        !self.unread.range.is_empty()
    }

    /// Hands what comes next to `take` and returns how many bytes it was, 0 at the end. Unless `may_read`, only sends.
    ///
    /// # Errors
    /// Of the socket, and `WriteZero` when the peer does not read.
    pub(super) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        may_read: bool,
        mut take: impl FnMut(&[u8]),
    ) -> Poll<io::Result<usize>>
    where
        S: Pace,
    {
        let sends_at = self.sends_at();
        let may_send = !self.unsent.is_empty() && sends_at.is_none_or(|at| may_read && at <= Instant::now());
        // Who is told something only when it pauses does not pause if more has come.
        if may_send && sends_at.is_some() {
            self.socket.hasten();
            if let received @ Poll::Ready(_) = self.poll_take(cx, &mut take) {
                return received;
            }
            // Whether it takes all of it or not.
            self.quiet_until = None;
        }
        let sent = if may_send { self.poll_send(cx) } else { Ok(()) };
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WriteZero) {
            return Poll::Ready(sent.map(|()| 0));
        }
        // Whoever says goodbye and goes without hearing us out breaks the connection; the goodbye has come.
        if sent.is_err() {
            self.socket.hasten();
        }
        let received = if may_read { self.poll_take(cx, take) } else { Poll::Pending };
        match (received, sent) {
            (Poll::Ready(Ok(count @ 1..)), _) => Poll::Ready(Ok(count)),
            (_, Err(error)) if may_read => Poll::Ready(Err(error)),
            (received, _) => received,
        }
    }

    /// What has come and can be had without waiting, as [`poll_receive`](Self::poll_receive); `None` if nothing has.
    pub(super) async fn receive_ready(&mut self, mut take: impl FnMut(&[u8])) -> io::Result<Option<usize>>
    where
        S: Pace,
    {
        self.socket.hasten();
        poll_fn(|cx| match self.poll_take(cx, &mut take) {
            Poll::Pending => Poll::Ready(Ok(None)),
            Poll::Ready(received) => Poll::Ready(received.map(Some)),
        })
        .await
    }

    /// Sends what is left and ends our side.
    pub(super) async fn close(mut self) -> io::Result<()> {
        for mut bytes in self.unsent {
            self.socket.write_all_buf(&mut bytes).await?;
        }
        self.socket.shutdown().await
    }

    fn poll_take(&mut self, cx: &mut Context<'_>, mut take: impl FnMut(&[u8])) -> Poll<io::Result<usize>>
    where
        S: Pace,
    {
        if !self.has_unread() && ready!(self.poll_read(cx))? == 0 {
            return Poll::Ready(Ok(0));
        }
        let Unread { buffer, range } = &mut self.unread;
        let piece = range.start..range.end.min(range.start + PIECE_BYTES);
        let bytes = piece.len();
        self.received += bytes as u64;
        range.start = piece.end;
        take(&buffer[piece]);
        if !self.has_unread() {
            BUFFER.set(mem::take(&mut self.unread.buffer));
        }
        Poll::Ready(Ok(bytes))
    }

    /// Takes what has come from the socket, which nobody has handed on yet.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        S: Pace,
    {
        let read_bytes = self.socket.read_bytes();
        let mut buffer = BUFFER.take();
        if buffer.len() < read_bytes {
            buffer.resize(read_bytes, 0);
        }
        let mut unread = ReadBuf::new(&mut buffer[..read_bytes]);
        let polled = Pin::new(&mut self.socket).poll_read(cx, &mut unread);
        let count = if matches!(polled, Poll::Ready(Ok(()))) { unread.filled().len() } else { 0 };
        if count == 0 {
            BUFFER.set(buffer);
        } else {
            self.unread = Unread { buffer, range: 0..count };
        }
        polled.map_ok(|()| count)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while let Some(bytes) = self.unsent.front_mut() {
            let Poll::Ready(sent) = Pin::new(&mut self.socket).poll_write(cx, bytes)? else { break };
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes.advance(sent);
            self.unsent_bytes -= sent;
            if bytes.is_empty() {
                self.unsent.pop_front();
            }
        }
        if self.unsent_bytes > MOST_UNSENT_BYTES {
            return Err(io::Error::new(io::ErrorKind::WriteZero, "the peer does not read our replies"));
        }
        // Sockets and the test pipe hold nothing back; TLS would.
        let _ = Pin::new(&mut self.socket).poll_flush(cx)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::server::socket::Socket;

    async fn receive<S: AsyncRead + AsyncWrite + Pace + Unpin>(
        wire: &mut Wire<S>,
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<usize> {
        poll_fn(|cx| wire.poll_receive(cx, true, &mut take)).await
    }

    #[tokio::test]
    async fn replies_go_out_while_waiting_and_a_peer_that_does_not_read_holds_up_nothing() {
        let (socket, mut peer) = tokio::io::duplex(8);
        let mut wire = Wire::new(socket);
        wire.send(Bytes::from_static(b"longer than the pipe"));
        peer.write_all(b"hello").await.unwrap();
        let mut heard = Vec::new();
        assert_eq!(receive(&mut wire, |bytes| heard.extend_from_slice(bytes)).await.unwrap(), 5);
        assert_eq!((heard.as_slice(), wire.received()), (b"hello".as_slice(), 5));
        let told = tokio::spawn(async move {
            let mut told = String::new();
            peer.read_to_string(&mut told).await.unwrap();
            told
        });
        wire.close().await.unwrap();
        assert_eq!(told.await.unwrap(), "longer than the pipe");
    }

    #[tokio::test]
    async fn replies_that_nobody_reads_are_bounded() {
        let (socket, _peer) = tokio::io::duplex(8);
        let mut wire = Wire::new(socket);
        wire.send(Bytes::from(vec![0; MOST_UNSENT_BYTES + 9]));
        let error = receive(&mut wire, |_| {}).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }

    #[tokio::test]
    async fn a_goodbye_is_heard_though_the_peer_takes_no_more_replies() {
        let (socket, mut peer) = tokio::io::duplex(8);
        let mut wire = Wire::new(socket);
        peer.write_all(b"bye").await.unwrap();
        drop(peer);
        wire.send(Bytes::from_static(b"reply"));
        let mut heard = Vec::new();
        assert_eq!(receive(&mut wire, |bytes| heard.extend_from_slice(bytes)).await.unwrap(), 3);
        assert_eq!(heard, b"bye");
        assert_eq!(receive(&mut wire, |_| {}).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn a_goodbye_is_heard_during_a_rest_too() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut wire = Wire::new(Socket::new(listener.accept().await.unwrap().0));
        wire.pace(&Rhythm::start(Duration::from_millis(20)));
        wire.send(Bytes::from_static(b"reply"));
        peer.write_all(b"hello").await.unwrap();
        assert_eq!(receive(&mut wire, |_| {}).await.unwrap(), 5);
        wire.expect(Next::QuietUntil(Instant::now() + Duration::from_secs(3600)));
        let rests = poll_fn(|cx| Poll::Ready(wire.poll_receive(cx, true, |_| {}).is_pending())).await;
        assert!(rests);
        // It goes without having read the reply: the system resets the connection.
        peer.write_all(b"bye").await.unwrap();
        peer.readable().await.unwrap();
        drop(peer);
        tokio::time::sleep(Duration::from_millis(5)).await;
        wire.send(Bytes::from_static(b"another"));
        let mut heard = Vec::new();
        assert_eq!(receive(&mut wire, |bytes| heard.extend_from_slice(bytes)).await.unwrap(), 3);
        assert_eq!(heard, b"bye");
    }

    #[tokio::test]
    async fn who_is_told_something_when_it_pauses_is_heard_before() {
        let (socket, mut peer) = tokio::io::duplex(64);
        let mut wire = Wire::new(socket);
        wire.send(Bytes::from_static(b"reply"));
        wire.be_quiet_until(Some(Instant::now()));
        peer.write_all(b"more").await.unwrap();
        drop(peer);
        assert_eq!(receive(&mut wire, |_| {}).await.unwrap(), 4);
        assert_eq!(receive(&mut wire, |_| {}).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn what_a_peer_that_pauses_does_not_take_has_no_time_at_which_it_is_sent() {
        let (socket, _peer) = tokio::io::duplex(8);
        let mut wire = Wire::new(socket);
        wire.send(Bytes::from_static(b"longer than the pipe"));
        wire.be_quiet_until(Some(Instant::now()));
        assert!(wire.sends_at().is_some());
        let waits = poll_fn(|cx| Poll::Ready(wire.poll_receive(cx, true, |_| {}).is_pending())).await;
        assert!(waits && wire.unsent_bytes > 0);
        // Or its session would wake up without end.
        assert_eq!(wire.sends_at(), None);
    }

    #[tokio::test]
    async fn what_has_come_is_had_without_waiting() {
        let (socket, mut peer) = tokio::io::duplex(8);
        let mut wire = Wire::new(socket);
        assert_eq!(wire.receive_ready(|_| {}).await.unwrap(), None);
        peer.write_all(b"x").await.unwrap();
        assert_eq!(wire.receive_ready(|_| {}).await.unwrap(), Some(1));
        drop(peer);
        assert_eq!(wire.receive_ready(|_| {}).await.unwrap(), Some(0));
    }

    #[tokio::test]
    async fn what_is_read_at_once_is_handed_on_in_pieces() {
        let (socket, mut peer) = tokio::io::duplex(3 * PIECE_BYTES);
        let mut wire = Wire::new(socket);
        let sent: Vec<u8> = (0..251).cycle().take(2 * PIECE_BYTES + 9).collect();
        peer.write_all(&sent).await.unwrap();
        let mut heard = Vec::new();
        for (piece, is_more) in [(PIECE_BYTES, true), (PIECE_BYTES, true), (9, false)] {
            assert_eq!(receive(&mut wire, |bytes| heard.extend_from_slice(bytes)).await.unwrap(), piece);
            assert_eq!((heard.len() as u64, wire.has_unread()), (wire.received(), is_more));
            let waits = poll_fn(|cx| Poll::Ready(wire.poll_receive(cx, false, |_| unreachable!()).is_pending())).await;
            assert!(waits, "nothing is to be read now");
        }
        assert!(heard == sent);
        assert_eq!(wire.receive_ready(|_| {}).await.unwrap(), None);
    }
}
