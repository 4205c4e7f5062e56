//! A TCP socket in two paces: prompt, woken by the system whenever bytes come, or paced, looked at once a beat.
//!
//! A paced socket is not registered with the system's event queue at all, so bytes that come cost no wake-up. When more
//! comes than a live stream sends, it is read promptly again. While nothing that comes can change what viewers see, a
//! socket rests: it is looked at after some beats only.
//!
//! ```text
//! the segment    |◀──────────── can't end ───────────▶|◀─ can end ─▶|
//! paced looks    ▲       ▲       ▲       ▲       ▲    ▲  ▲  ▲  ▲  ▲  at beats
//! prompt looks   ▲       ▲       ▲       ▲       ▲    ▲▲ ▲▲▲ ▲ ▲▲ ▲  at beats, then whenever bytes come
//! ```

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

/// More than this between two looks is no live stream, in bytes: 80 Mbit/s at 50 ms. It is read as fast as it comes.
const MOST_PACED_BYTES: usize = 512 << 10;
/// A socket that brings less than this a second, in bytes, is a live stream again: 40 Mbit/s.
const LEAST_PROMPT_BYTES: f64 = 5e6;
/// For how long a socket is read promptly before its pace is looked at again.
const PROMPT_FOR: Duration = Duration::from_secs(2);
/// The longest rest. A publisher's goodbye is seen as much later.
const LONGEST_REST: Duration = Duration::from_millis(200);
/// So many bytes may come during a rest, by what came last: less than systems hold for a receiver.
const MOST_RESTED_BYTES: usize = 128 << 10;
/// How much sooner a rest ends than segments can, for what comes a little early.
const REST_MARGIN: Duration = Duration::from_millis(100);
/// The beat of rests where there is no other one.
const REST_BEAT: Duration = Duration::from_millis(50);

/// Connections that can be read when it suits us instead of whenever bytes come.
pub(super) trait Pace {
    /// From now on, look at the connection as `rhythm` says.
    fn pace(&mut self, rhythm: &Rhythm);
    /// What comes until then may wait.
    fn rest_until(&mut self, quiet_until: Option<Instant>);
    /// Whatever has come may be read now, whenever the next look is.
    fn hasten(&mut self);
}

/// When the sockets of publishers are looked at.
#[derive(Debug, Clone)]
pub(super) struct Rhythm {
    beat: Arc<Beat>,
    /// Outside rests whenever bytes come, not at beats.
    is_prompt: bool,
}

impl Rhythm {
    /// Bytes that could end a segment wait for `delay` at most.
    pub(super) fn start(delay: Duration) -> Self {
        let is_prompt = delay.is_zero();
        Self { beat: Beat::start(if is_prompt { REST_BEAT } else { delay }), is_prompt }
    }

    /// How many beats from now nobody has to look, if nobody has to until `quiet_until`.
    fn beats_until(&self, quiet_until: Option<Instant>) -> u64 {
        let until = quiet_until.and_then(|until| until.checked_sub(REST_MARGIN));
        let rest = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        let beats = rest.min(LONGEST_REST).as_micros() / self.beat.every().as_micros().max(1);
        u64::try_from(beats).unwrap_or(0)
    }
}

/// A TCP socket.
#[derive(Debug)]
pub(super) struct Socket {
    state: State,
    /// Set once the socket may be paced.
    rhythm: Option<Rhythm>,
    quiet_until: Option<Instant>,
    /// By the last look that was paced, how many beats may pass while [`MOST_RESTED_BYTES`] come.
    longest_rest: u64,
}

#[derive(Debug)]
enum State {
    /// What comes fast is counted.
    Prompt(TcpStream, Option<Flow>),
    Paced(Paced),
    /// The system refused to change its pace.
    Broken,
}

/// What comes too fast for a live stream.
#[derive(Debug)]
struct Flow {
    since: Instant,
    bytes: usize,
}

/// A socket that nobody but the beat wakes.
#[derive(Debug)]
struct Paced {
    socket: std::net::TcpStream,
    /// The beat from which on it is looked at.
    looks_at: u64,
    /// The beat for which a waker waits.
    waits_for: u64,
    /// The beat of the last look, how many beats it came after the one before, and what it found.
    looked_at: u64,
    beats: u64,
    bytes: usize,
}

impl Socket {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self { state: State::Prompt(socket, None), rhythm: None, quiet_until: None, longest_rest: 2 }
    }

    /// Changes the pace to that at which bytes come.
    fn adapt(&mut self) -> io::Result<()> {
        let Some(Rhythm { beat, is_prompt }) = &self.rhythm else { return Ok(()) };
        let flow = match &mut self.state {
            State::Paced(paced) if paced.bytes > MOST_PACED_BYTES => Some(Flow { since: Instant::now(), bytes: 0 }),
            State::Paced(paced) if *is_prompt && paced.is_due(beat) => None,
            State::Prompt(_, Some(flow)) => {
                if flow.since.elapsed() < PROMPT_FOR {
                    return Ok(());
                }
                if flow.is_live_stream() {
                    None
                } else {
                    *flow = Flow { since: Instant::now(), bytes: 0 };
                    return Ok(());
                }
            }
            State::Prompt(_, None) if !is_prompt => None,
            State::Paced(_) | State::Prompt(_, None) | State::Broken => return Ok(()),
        };
        match &self.state {
            State::Prompt(..) => self.leave_to_the_beat(),
            _ => self.leave_to_the_system(flow),
        }
    }

    /// From now on the beat wakes it.
    fn leave_to_the_beat(&mut self) -> io::Result<()> {
        let Some(Rhythm { beat, .. }) = &self.rhythm else { return Ok(()) };
        self.state = match std::mem::replace(&mut self.state, State::Broken) {
            State::Prompt(socket, _) => State::Paced(Paced::new(socket.into_std()?, beat)),
            other => other,
        };
        Ok(())
    }

    /// From now on the system wakes it.
    fn leave_to_the_system(&mut self, flow: Option<Flow>) -> io::Result<()> {
        self.state = match std::mem::replace(&mut self.state, State::Broken) {
            State::Paced(paced) => State::Prompt(TcpStream::from_std(paced.socket)?, flow),
            other => other,
        };
        Ok(())
    }

    /// Nothing has come. How many beats the next look may wait.
    fn rest(&mut self) -> u64 {
        let Some(rhythm) = &self.rhythm else { return 0 };
        if let State::Paced(paced) = &self.state
            && paced.beats > 0
        {
            let bytes_a_beat = paced.bytes / usize::try_from(paced.beats).unwrap_or(usize::MAX);
            self.longest_rest = (MOST_RESTED_BYTES / bytes_a_beat.max(1)) as u64;
        }
        rhythm.beats_until(self.quiet_until).min(self.longest_rest)
    }

    /// Nothing has come: waits for the next look.
    fn wait(&mut self, cx: &Context<'_>) -> io::Result<()> {
        if let (State::Paced(paced), Some(Rhythm { beat, .. })) = (&self.state, &self.rhythm)
            && paced.is_waiting(beat)
        {
            return Ok(());
        }
        let beats = self.rest();
        if matches!(&self.state, State::Prompt(_, None)) && beats > 1 {
            self.leave_to_the_beat()?;
        }
        if let (State::Paced(paced), Some(Rhythm { beat, .. })) = (&mut self.state, &self.rhythm) {
            paced.wait(beats.max(1), beat, cx);
        }
        Ok(())
    }
}

impl Pace for Socket {
    fn pace(&mut self, rhythm: &Rhythm) {
        self.rhythm = Some(rhythm.clone());
    }

    fn rest_until(&mut self, quiet_until: Option<Instant>) {
        self.quiet_until = quiet_until;
    }

    fn hasten(&mut self) {
        if let State::Paced(paced) = &mut self.state {
            paced.looks_at = 0;
        }
    }
}

/// The test pipe comes as it comes.
#[cfg(test)]
impl Pace for tokio::io::DuplexStream {
    fn pace(&mut self, _: &Rhythm) {}
    fn rest_until(&mut self, _: Option<Instant>) {}
    fn hasten(&mut self) {}
}

impl Flow {
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    fn is_live_stream(&self) -> bool {
        self.bytes as f64 / self.since.elapsed().as_secs_f64() <= LEAST_PROMPT_BYTES
    }
}

impl Paced {
    fn new(socket: std::net::TcpStream, beat: &Beat) -> Self {
        Self { socket, looks_at: 0, waits_for: 0, looked_at: beat.number(), beats: 0, bytes: 0 }
    }

    /// It may be looked at.
    fn is_due(&self, beat: &Beat) -> bool {
        self.looks_at <= beat.number()
    }

    /// A beat that is still to come will wake whoever reads.
    fn is_waiting(&self, beat: &Beat) -> bool {
        !self.is_due(beat) && self.waits_for == self.looks_at
    }

    /// Has the waker woken in so many beats, and looks then.
    fn wait(&mut self, beats: u64, beat: &Beat, cx: &Context<'_>) {
        self.looks_at = beat.number() + beats;
        self.waits_for = self.looks_at;
        beat.wake_at(self.looks_at, cx.waker());
    }

    fn poll_read(&mut self, beat: &Beat, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.is_due(beat) {
            return Poll::Pending;
        }
        let number = beat.number();
        if self.looked_at != number {
            self.beats = number - self.looked_at;
            self.looked_at = number;
            self.bytes = 0;
        }
        let unfilled = buffer.initialize_unfilled();
        let room = unfilled.len();
        match retried(|| self.socket.read(unfilled)) {
            Ok(count) => {
                if 0 < count && count < room {
                    self.looks_at = number + 1;
                }
                self.bytes += count;
                buffer.advance(count);
                Poll::Ready(Ok(()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_write(&mut self, beat: &Beat, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match retried(|| self.socket.write(bytes)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                beat.wake_at(beat.number() + 1, cx.waker());
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
        let polled = match (&mut this.state, &this.rhythm) {
            (State::Prompt(socket, _), _) => Pin::new(socket).poll_read(cx, buffer),
            (State::Paced(paced), Some(Rhythm { beat, .. })) => paced.poll_read(beat, buffer),
            _ => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        };
        if let State::Prompt(_, Some(flow)) = &mut this.state {
            flow.bytes += buffer.filled().len() - before;
        }
        if polled.is_pending() {
            this.wait(cx)?;
        }
        polled
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match (&mut this.state, &this.rhythm) {
            (State::Prompt(socket, _), _) => Pin::new(socket).poll_write(cx, bytes),
            (State::Paced(paced), Some(Rhythm { beat, .. })) => paced.poll_write(beat, cx, bytes),
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
        socket.pace(&Rhythm::start(EVERY));
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

    /// Reads what is sent, a little every 5 ms, while nobody looks for `quiet`: how often bytes were found then, and how long
    /// the first of what was sent after that waited.
    async fn reads_and_delay(rhythm: &Rhythm, quiet: Duration) -> (u32, Duration) {
        let (mut peer, mut socket) = pair().await;
        socket.pace(rhythm);
        let end = Instant::now() + quiet;
        socket.rest_until(Some(end));
        let writer = tokio::spawn(async move {
            while Instant::now() < end {
                peer.write_all(&[0; 100]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(EVERY * 2).await;
            let sent_at = Instant::now();
            peer.write_all(&[1; 100]).await.unwrap();
            (peer, sent_at)
        });
        let (mut reads, mut buffer) = (0, vec![0; 64 << 10]);
        loop {
            let count = socket.read(&mut buffer).await.unwrap();
            if buffer[..count].contains(&1) {
                let (_, sent_at) = writer.await.unwrap();
                return (reads, sent_at.elapsed());
            }
            reads += u32::from(Instant::now() < end);
        }
    }

    #[tokio::test]
    async fn a_socket_rests_while_nothing_matters_and_not_longer() {
        const QUIET: Duration = Duration::from_millis(1000);
        let rhythm = Rhythm::start(Duration::from_millis(20));
        let (rested, delay) = reads_and_delay(&rhythm, QUIET + REST_MARGIN).await;
        // Five rests, and five beats within the margin.
        assert!((1..=18).contains(&rested), "{rested} reads in {QUIET:?}");
        assert!(delay < LONGEST_REST / 2, "{delay:?}");
    }

    #[tokio::test]
    async fn a_prompt_socket_rests_too_and_is_prompt_again() {
        const QUIET: Duration = Duration::from_millis(1000);
        let rhythm = Rhythm::start(Duration::ZERO);
        let (rested, delay) = reads_and_delay(&rhythm, QUIET + REST_MARGIN).await;
        let (prompt, _) = reads_and_delay(&rhythm, QUIET / 4).await;
        // Beside what comes within the margin, where it is prompt.
        assert!((1..=40).contains(&rested), "{rested} reads in {QUIET:?}");
        assert!(prompt >= 10, "{prompt} reads in {:?}", QUIET / 4);
        assert!(delay < REST_BEAT / 2, "{delay:?}");
    }

    #[tokio::test]
    async fn what_comes_fast_is_read_promptly() {
        let (mut peer, mut socket) = pair().await;
        let writer = tokio::spawn(async move { peer.write_all(&vec![7; 64 << 20]).await });
        socket.pace(&Rhythm::start(EVERY));
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
        socket.pace(&Rhythm::start(EVERY));
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
