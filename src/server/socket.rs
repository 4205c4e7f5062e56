//! A TCP socket in two paces: prompt, woken by the system whenever bytes come, or paced, looked at once a beat.
//!
//! A paced socket is not registered with the system's event queue at all, so bytes that come cost no wake-up. When more
//! comes than a live stream sends, it is read promptly again.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::beat::Beat;

/// More than this between two beats is no live stream, in bytes: 80 Mbit/s at 50 ms. It is read as fast as it comes.
const MOST_PACED_BYTES: usize = 512 << 10;
/// A socket that brings less than this a second, in bytes, is a live stream again: 40 Mbit/s.
const LEAST_PROMPT_BYTES: f64 = 5e6;
/// For how long a socket is read promptly before its pace is looked at again.
const PROMPT_FOR: Duration = Duration::from_secs(2);

/// Connections that can be read once a beat instead of whenever bytes come.
pub(super) trait Pace {
    /// From now on, look at the connection once a beat.
    fn pace(&mut self, beat: &Arc<Beat>);
    /// Whatever has come may be read now, whenever the next beat is.
    fn hasten(&mut self);
}

/// A TCP socket.
#[derive(Debug)]
pub(super) struct Socket {
    state: State,
    /// Set once the socket may be paced.
    beat: Option<Arc<Beat>>,
    /// Bytes read since the last beat if paced, or since it became prompt.
    bytes: usize,
}

#[derive(Debug)]
enum State {
    /// Since when, if it was paced before.
    Prompt(TcpStream, Option<Instant>),
    Paced(Paced),
    /// The system refused to change its pace.
    Broken,
}

/// A socket that nobody but the beat wakes.
#[derive(Debug)]
struct Paced {
    socket: std::net::TcpStream,
    /// The beat after which it was read last.
    read_at: u64,
    /// The beat after which there was nothing more to read.
    dry_at: u64,
    /// The beat after which a waker waits.
    waits_after: u64,
}

impl Socket {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self { state: State::Prompt(socket, None), beat: None, bytes: 0 }
    }

    /// Changes the pace to that at which bytes come.
    fn adapt(&mut self) -> io::Result<()> {
        let Some(beat) = &self.beat else { return Ok(()) };
        match &mut self.state {
            State::Paced(paced) if self.bytes <= MOST_PACED_BYTES => {
                if std::mem::replace(&mut paced.read_at, beat.number()) != beat.number() {
                    self.bytes = 0;
                }
                return Ok(());
            }
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            State::Prompt(_, Some(since)) => {
                let elapsed = since.elapsed();
                if elapsed < PROMPT_FOR {
                    return Ok(());
                }
                let rate = self.bytes as f64 / elapsed.as_secs_f64();
                self.bytes = 0;
                *since = Instant::now();
                if rate > LEAST_PROMPT_BYTES {
                    return Ok(());
                }
            }
            State::Paced(_) | State::Prompt(_, None) => self.bytes = 0,
            State::Broken => {}
        }
        self.state = match std::mem::replace(&mut self.state, State::Broken) {
            State::Paced(paced) => State::Prompt(TcpStream::from_std(paced.socket)?, Some(Instant::now())),
            State::Prompt(socket, _) => State::Paced(Paced::new(socket.into_std()?)),
            State::Broken => State::Broken,
        };
        Ok(())
    }
}

impl Pace for Socket {
    fn pace(&mut self, beat: &Arc<Beat>) {
        self.beat = Some(Arc::clone(beat));
    }

    fn hasten(&mut self) {
        if let State::Paced(paced) = &mut self.state {
            paced.dry_at = 0;
        }
    }
}

/// The test pipe comes as it comes.
#[cfg(test)]
impl Pace for tokio::io::DuplexStream {
    fn pace(&mut self, _: &Arc<Beat>) {}
    fn hasten(&mut self) {}
}

impl Paced {
    fn new(socket: std::net::TcpStream) -> Self {
        Self { socket, read_at: 0, dry_at: 0, waits_after: 0 }
    }

    fn wait(&mut self, beat: &Beat, cx: &Context<'_>) {
        let number = beat.number();
        if self.waits_after != number {
            self.waits_after = number;
            beat.wake_after(number, cx.waker());
        }
    }

    fn poll_read(&mut self, beat: &Beat, cx: &Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let number = beat.number();
        if self.dry_at != number {
            let unfilled = buffer.initialize_unfilled();
            let room = unfilled.len();
            match retried(|| self.socket.read(unfilled)) {
                Ok(count) => {
                    if 0 < count && count < room {
                        self.dry_at = number;
                    }
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.dry_at = number,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.wait(beat, cx);
        Poll::Pending
    }

    fn poll_write(&mut self, beat: &Beat, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match retried(|| self.socket.write(bytes)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.wait(beat, cx);
                Poll::Pending
            }
            result => Poll::Ready(result),
        }
    }
}

/// A system call, again if a signal came between.
fn retried<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.adapt()?;
        let before = buffer.filled().len();
        let polled = match (&mut this.state, &this.beat) {
            (State::Prompt(socket, _), _) => Pin::new(socket).poll_read(cx, buffer),
            (State::Paced(paced), Some(beat)) => paced.poll_read(beat, cx, buffer),
            _ => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        };
        this.bytes += buffer.filled().len() - before;
        polled
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match (&mut this.state, &this.beat) {
            (State::Prompt(socket, _), _) => Pin::new(socket).poll_write(cx, bytes),
            (State::Paced(paced), Some(beat)) => paced.poll_write(beat, cx, bytes),
            _ => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket holds nothing back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().state {
            State::Prompt(socket, _) => Pin::new(socket).poll_shutdown(cx),
            State::Paced(paced) => Poll::Ready(paced.socket.shutdown(Shutdown::Write)),
            State::Broken => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const EVERY: Duration = Duration::from_millis(100);

    async fn pair() -> (TcpStream, Socket) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (peer, Socket::new(listener.accept().await.unwrap().0))
    }

    #[tokio::test]
    async fn a_paced_socket_is_read_once_a_beat_and_loses_nothing() {
        let (mut peer, mut socket) = pair().await;
        let writer = tokio::spawn(async move {
            for number in 0..200u8 {
                peer.write_all(&[number; 100]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        let beat = Beat::start(EVERY);
        socket.pace(&beat);
        let (mut received, mut reads, mut buffer) = (Vec::new(), 0, vec![0; 64 << 10]);
        loop {
            let count = socket.read(&mut buffer).await.unwrap();
            if count == 0 {
                break;
            }
            reads += 1;
            received.extend_from_slice(&buffer[..count]);
        }
        writer.await.unwrap();
        let sent: Vec<u8> = (0..200u8).flat_map(|number| [number; 100]).collect();
        assert_eq!(received, sent);
        assert!(reads <= 20, "{reads} reads of what took about half a second");
    }

    #[tokio::test]
    async fn what_comes_fast_is_read_promptly() {
        let (mut peer, mut socket) = pair().await;
        let writer = tokio::spawn(async move { peer.write_all(&vec![7; 64 << 20]).await });
        let beat = Beat::start(EVERY);
        socket.pace(&beat);
        let (mut received, mut buffer) = (0, vec![0; 64 << 10]);
        let began = Instant::now();
        while received < 64 << 20 {
            received += socket.read(&mut buffer).await.unwrap();
        }
        assert!(began.elapsed() < EVERY * 20, "{:?} for 64 MiB", began.elapsed());
        writer.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_paced_socket_says_when_its_peer_is_gone_and_can_still_speak() {
        let (mut peer, mut socket) = pair().await;
        let beat = Beat::start(EVERY);
        socket.pace(&beat);
        peer.write_all(b"last").await.unwrap();
        peer.shutdown().await.unwrap();
        let mut received = Vec::new();
        socket.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"last");
        socket.write_all(b"goodbye").await.unwrap();
        socket.shutdown().await.unwrap();
        let mut said = String::new();
        peer.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "goodbye");
    }
}
