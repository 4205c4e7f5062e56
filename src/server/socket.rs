//! A TCP socket in two paces: prompt, woken by the system whenever bytes come, or paced, looked at once a beat.
//!
//! A paced socket is not registered with the system's event queue at all, so bytes that come cost no wake-up. A film, which
//! comes as fast as it is taken, is looked at once a quick beat. While nothing that comes can change what viewers see, a
//! socket rests: it is looked at after some beats only.
//!
//! ```text
//! the segment    |◀──────────── can't end ───────────▶|◀─ can end ─▶|
//! paced looks    ▲       ▲       ▲       ▲       ▲     ▲  ▲  ▲  ▲  ▲  at beats
//! prompt looks   ▲       ▲       ▲       ▲       ▲   ▲▲▲ ▲▲▲ ▲ ▲▲ ▲   at beats, then whenever bytes come
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

/// Bytes worth being taken at once from a peer who may not publish yet, from a publisher, and from one that is fast. Each read
/// makes the system acknowledge what was received, and send on the peer's behalf if both are on one machine: so all that came
/// during a rest is read at once, and of a film what comes between two quick beats.
const FIRST_READ_BYTES: usize = 16 << 10;
const READ_BYTES: usize = MOST_RESTED_BYTES;
const FAST_READ_BYTES: usize = 2 << 20;
/// Less than this at a look at a film, in bytes, and the next one may wait twice as long.
const FAST_LOOK_BYTES: usize = 4 << 10;
/// In quick beats.
const LONGEST_FAST_WAIT: u64 = 50;
/// The beat of films. So much comes meanwhile that it is read in large pieces, and little is held up.
const QUICK_BEAT: Duration = Duration::from_millis(1);
/// The longest rest. A publisher's goodbye is seen as much later.
const LONGEST_REST: Duration = Duration::from_millis(400);
/// So many bytes may come during a rest, by what came last, and not more than twice what a look has found: systems hold for a
/// receiver twice what it last took at once (Linux: `tcp_rcv_space_adjust`). More would wait at the publisher.
const MOST_RESTED_BYTES: usize = 256 << 10;
/// So much is held for any receiver, in bytes.
const SURELY_HELD_BYTES: usize = 64 << 10;
/// How much sooner the rest of a prompt socket ends than segments can; that of a paced one ends with the first beat behind.
const PROMPT_MARGIN: Duration = Duration::from_millis(90);
/// The beat of rests where there is no other one.
const REST_BEAT: Duration = Duration::from_millis(50);

/// Connections that can be read when it suits us instead of whenever bytes come.
pub(super) trait Pace {
    /// From now on, look at the connection as `rhythm` says.
    fn pace(&mut self, rhythm: &Rhythm);
    /// What comes next, and so when it is looked at.
    fn expect(&mut self, next: Next);
    /// Whatever has come may be read now, whenever the next look is.
    fn hasten(&mut self);
    /// How many bytes are worth being taken at once.
    fn read_bytes(&self) -> usize;
}

/// What a publisher sends next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// What may end a segment.
    Any,
    /// Nothing that does before then: it may wait.
    QuietUntil(Instant),
    /// More than a live stream, as fast as it is taken.
    Film,
}

/// When the sockets of publishers are looked at.
#[derive(Debug, Clone)]
pub(super) struct Rhythm {
    beat: Arc<Beat>,
    quick: Arc<Beat>,
    /// Outside rests whenever bytes come, not at beats.
    is_prompt: bool,
}

impl Rhythm {
    /// Bytes that could end a segment wait for `delay` at most.
    pub(super) fn start(delay: Duration) -> Self {
        let is_prompt = delay.is_zero();
        let beat = Beat::start(if is_prompt { REST_BEAT } else { delay });
        Self { beat, quick: Beat::start(QUICK_BEAT), is_prompt }
    }

    /// How many beats from now it is looked at next, if nobody has to before `quiet_until`.
    fn beats_until(&self, quiet_until: Instant) -> u64 {
        let (margin, behind) = if self.is_prompt { (PROMPT_MARGIN, 0) } else { (Duration::ZERO, 1) };
        let beats = |time: Duration| time.as_micros() / self.beat.every().as_micros().max(1);
        let rest = beats(quiet_until.saturating_duration_since(Instant::now() + margin)) + behind;
        u64::try_from(rest.min(beats(LONGEST_REST))).unwrap_or(0)
    }
}

/// A TCP socket.
#[derive(Debug)]
pub(super) struct Socket {
    state: State,
    /// Set once the socket may be paced.
    rhythm: Option<Rhythm>,
    next: Next,
    /// The most bytes that a look has found.
    most_found: usize,
    /// By the last look that was paced, how many beats may pass before too much comes.
    longest_rest: u64,
}

#[derive(Debug)]
enum State {
    Prompt(TcpStream),
    Paced(Paced),
    /// The system refused to change its pace.
    Broken,
}

/// A socket that nobody but the beat wakes.
#[derive(Debug)]
struct Paced {
    socket: std::net::TcpStream,
    beat: Arc<Beat>,
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
        Self { state: State::Prompt(socket), rhythm: None, next: Next::Any, most_found: 0, longest_rest: 2 }
    }

    /// The beat at which it is looked at, if it may be paced.
    fn beat(&self) -> Option<&Arc<Beat>> {
        let rhythm = self.rhythm.as_ref()?;
        Some(if self.next == Next::Film { &rhythm.quick } else { &rhythm.beat })
    }

    /// Outside rests the system wakes it whenever bytes come.
    fn is_prompt(&self) -> bool {
        self.next != Next::Film && self.rhythm.as_ref().is_none_or(|rhythm| rhythm.is_prompt)
    }

    /// Changes the pace to that at which bytes come.
    fn adapt(&mut self) -> io::Result<()> {
        let Some(beat) = self.beat() else { return Ok(()) };
        match &self.state {
            State::Paced(paced) if !Arc::ptr_eq(&paced.beat, beat) => {
                let beat = Arc::clone(beat);
                if let State::Paced(paced) = &mut self.state {
                    paced.follow(beat);
                }
                Ok(())
            }
            State::Prompt(_) if !self.is_prompt() => self.leave_to_the_beat(),
            _ => Ok(()),
        }
    }

    /// From now on the beat wakes it.
    fn leave_to_the_beat(&mut self) -> io::Result<()> {
        let Some(beat) = self.beat().cloned() else { return Ok(()) };
        self.state = match std::mem::replace(&mut self.state, State::Broken) {
            State::Prompt(socket) => State::Paced(Paced::new(socket.into_std()?, beat)),
            other => other,
        };
        Ok(())
    }

    /// From now on the system wakes it.
    fn leave_to_the_system(&mut self) -> io::Result<()> {
        self.state = match std::mem::replace(&mut self.state, State::Broken) {
            State::Paced(paced) => State::Prompt(TcpStream::from_std(paced.socket)?),
            other => other,
        };
        Ok(())
    }

    /// Nothing has come. How many beats the next look may wait.
    fn rest(&mut self) -> u64 {
        if let State::Paced(paced) = &self.state {
            if self.next == Next::Film {
                let is_little = paced.bytes < FAST_LOOK_BYTES;
                return if is_little { (paced.beats * 2).clamp(1, LONGEST_FAST_WAIT) } else { 1 };
            }
            // Nothing says nothing of what may come.
            if paced.bytes > 0 {
                self.most_found = self.most_found.max(paced.bytes);
                let most = MOST_RESTED_BYTES.min(SURELY_HELD_BYTES.max(2 * self.most_found));
                self.longest_rest = (most / paced.bytes_a_beat().max(1)) as u64;
            }
        }
        let (Next::QuietUntil(until), Some(rhythm)) = (self.next, &self.rhythm) else { return 1 };
        rhythm.beats_until(until).min(self.longest_rest).max(1)
    }

    /// Nothing has come: waits for the next look. Or, where the system is to wake it from now on, does not wait yet.
    fn wait(&mut self, cx: &Context<'_>) -> io::Result<bool> {
        if matches!(&self.state, State::Paced(paced) if paced.is_waiting()) {
            return Ok(true);
        }
        let beats = self.rest();
        match &self.state {
            State::Prompt(_) if beats > 1 => self.leave_to_the_beat()?,
            State::Paced(_) if self.is_prompt() && beats == 1 => {
                self.leave_to_the_system()?;
                return Ok(false);
            }
            _ => {}
        }
        if let State::Paced(paced) = &mut self.state {
            paced.wait(beats, cx);
        }
        Ok(true)
    }
}

impl Pace for Socket {
    fn pace(&mut self, rhythm: &Rhythm) {
        self.rhythm = Some(rhythm.clone());
    }

    fn expect(&mut self, next: Next) {
        self.next = next;
    }

    fn hasten(&mut self) {
        if let State::Paced(paced) = &mut self.state {
            paced.looks_at = 0;
        }
    }

    fn read_bytes(&self) -> usize {
        match self.next {
            _ if self.rhythm.is_none() => FIRST_READ_BYTES,
            Next::Film => FAST_READ_BYTES,
            Next::Any | Next::QuietUntil(_) => READ_BYTES,
        }
    }
}

/// The test pipe comes as it comes.
#[cfg(test)]
impl Pace for tokio::io::DuplexStream {
    fn pace(&mut self, _: &Rhythm) {}
    fn expect(&mut self, _: Next) {}
    fn hasten(&mut self) {}

    fn read_bytes(&self) -> usize {
        FAST_READ_BYTES
    }
}

impl Paced {
    fn new(socket: std::net::TcpStream, beat: Arc<Beat>) -> Self {
        Self { socket, looked_at: beat.number(), beat, looks_at: 0, waits_for: 0, beats: 0, bytes: 0 }
    }

    /// By what the last look found.
    fn bytes_a_beat(&self) -> usize {
        self.bytes / usize::try_from(self.beats.max(1)).unwrap_or(usize::MAX)
    }

    /// From now on this beat wakes it.
    fn follow(&mut self, beat: Arc<Beat>) {
        (self.looks_at, self.waits_for, self.looked_at, self.beats, self.bytes) = (0, 0, beat.number(), 0, 0);
        self.beat = beat;
    }

    /// It may be looked at.
    fn is_due(&self) -> bool {
        self.looks_at <= self.beat.number()
    }

    /// A beat that is still to come will wake whoever reads.
    fn is_waiting(&self) -> bool {
        !self.is_due() && self.waits_for == self.looks_at
    }

    /// Has the waker woken in so many beats, and looks then.
    fn wait(&mut self, beats: u64, cx: &Context<'_>) {
        self.looks_at = self.beat.number() + beats;
        self.waits_for = self.looks_at;
        self.beat.wake_at(self.looks_at, cx.waker());
    }

    fn poll_read(&mut self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.is_due() {
            return Poll::Pending;
        }
        let number = self.beat.number();
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

    fn poll_write(&mut self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match retried(|| self.socket.write(bytes)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.beat.wake_at(self.beat.number() + 1, cx.waker());
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
        loop {
            this.adapt()?;
            let polled = match &mut this.state {
                State::Prompt(socket) => Pin::new(socket).poll_read(cx, buffer),
                State::Paced(paced) => paced.poll_read(buffer),
                State::Broken => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            };
            if polled.is_ready() || this.wait(cx)? {
                return polled;
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().state {
            State::Prompt(socket) => Pin::new(socket).poll_write(cx, bytes),
            State::Paced(paced) => paced.poll_write(cx, bytes),
            State::Broken => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket holds nothing back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().state {
            State::Prompt(socket) => Pin::new(socket).poll_shutdown(cx),
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
        socket.expect(Next::QuietUntil(end));
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
        let (rested, delay) = reads_and_delay(&rhythm, QUIET).await;
        // Three rests, and the first beat behind them.
        assert!((1..=8).contains(&rested), "{rested} reads in {QUIET:?}");
        assert!(delay < LONGEST_REST / 2, "{delay:?}");
    }

    #[tokio::test]
    async fn a_prompt_socket_rests_too_and_is_prompt_again() {
        const QUIET: Duration = Duration::from_millis(1000);
        let rhythm = Rhythm::start(Duration::ZERO);
        let (rested, delay) = reads_and_delay(&rhythm, QUIET + PROMPT_MARGIN).await;
        let (prompt, _) = reads_and_delay(&rhythm, QUIET / 4).await;
        // Beside what comes within the margin, where it is prompt.
        assert!((1..=40).contains(&rested), "{rested} reads in {QUIET:?}");
        assert!(prompt >= 10, "{prompt} reads in {:?}", QUIET / 4);
        assert!(delay < REST_BEAT / 2, "{delay:?}");
    }

    #[tokio::test]
    async fn rests_become_longer_with_what_was_found_and_not_longer_than_systems_hold() {
        const BEAT_BYTES: usize = 20_000;
        let (mut peer, mut socket) = pair().await;
        let beat = Duration::from_millis(10);
        socket.pace(&Rhythm::start(beat));
        socket.expect(Next::QuietUntil(Instant::now() + Duration::from_secs(3600)));
        let writer = tokio::spawn(async move {
            let start = Instant::now();
            for number in 0..200 {
                tokio::time::sleep_until(start + beat * number).await;
                peer.write_all(&[0; BEAT_BYTES]).await.unwrap();
            }
        });
        let (mut found, mut buffer) = (Vec::new(), vec![0; 512 << 10]);
        loop {
            let count = socket.read(&mut buffer).await.unwrap();
            if count == 0 {
                break;
            }
            found.push(count);
        }
        writer.await.unwrap();
        assert!(found[0] <= SURELY_HELD_BYTES, "{found:?}");
        let mut later = found.split_off(found.len() / 2);
        later.sort_unstable();
        let usual = later[later.len() / 2];
        assert!((MOST_RESTED_BYTES / 2..MOST_RESTED_BYTES + 3 * BEAT_BYTES).contains(&usual), "{later:?}");
    }

    #[tokio::test]
    async fn a_film_is_read_as_it_comes_and_what_follows_it_at_the_beat() {
        for delay in [EVERY, Duration::ZERO] {
            let (mut peer, mut socket) = pair().await;
            let writer = tokio::spawn(async move {
                peer.write_all(&vec![7; 64 << 20]).await.unwrap();
                peer
            });
            socket.pace(&Rhythm::start(delay));
            socket.expect(Next::Film);
            let (mut received, mut buffer) = (0, vec![0; 64 << 10]);
            let began = Instant::now();
            while received < 64 << 20 {
                received += socket.read(&mut buffer).await.unwrap();
            }
            assert!(began.elapsed() < EVERY * 20, "{:?} for 64 MiB", began.elapsed());
            let mut peer = writer.await.unwrap();
            socket.expect(Next::Any);
            peer.write_all(b"after it").await.unwrap();
            assert_eq!(socket.read(&mut buffer).await.unwrap(), 8);
        }
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
