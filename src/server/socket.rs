//! A TCP socket in two paces: prompt, woken by the system whenever bytes come, or paced, looked at once a beat.
//!
//! A paced socket is not registered with the system's event queue at all, so bytes that come cost no wake-up. When more
//! comes than a live stream sends, it is looked at once a quick beat. While nothing that comes can change what viewers see,
//! a socket rests: it is looked at after some beats only.
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

/// Bytes worth being taken at once from a peer who may not publish yet, from a publisher, and from one that is fast.
const FIRST_READ_BYTES: usize = 16 << 10;
const READ_BYTES: usize = 64 << 10;
const FAST_READ_BYTES: usize = 128 << 10;
/// More than this a beat is no live stream, in bytes: 80 Mbit/s at 50 ms. It is fast.
const MOST_PACED_BYTES: usize = 512 << 10;
/// A socket that brings less than this a second, in bytes, is a live stream again: 40 Mbit/s.
const LEAST_FAST_BYTES: f64 = 5e6;
/// For how long a socket is fast before its pace is looked at again.
const FAST_FOR: Duration = Duration::from_secs(2);
/// The beat of what is fast. So much comes meanwhile that it is read in large pieces, and little is held up.
const QUICK_BEAT: Duration = Duration::from_millis(1);
/// The longest rest. A publisher's goodbye is seen as much later.
const LONGEST_REST: Duration = Duration::from_millis(400);
/// So many bytes may come during a rest, by what came last, and not more than twice what a look has found: systems hold for a
/// receiver twice what it last took at once (Linux: `tcp_rcv_space_adjust`). More would wait at the publisher.
const MOST_RESTED_BYTES: usize = 256 << 10;
/// So much is held for any receiver, in bytes.
const SURELY_HELD_BYTES: usize = 64 << 10;
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
    /// How many bytes are worth being taken at once.
    fn read_bytes(&self) -> usize;
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
    /// What comes, if that is fast; the beat is the quick one then.
    flow: Option<Flow>,
    /// The beat from which on it is looked at.
    looks_at: u64,
    /// The beat for which a waker waits.
    waits_for: u64,
    /// The beat of the last look, how many beats it came after the one before, and what it found.
    looked_at: u64,
    beats: u64,
    bytes: usize,
}

/// What comes too fast for a live stream.
#[derive(Debug)]
struct Flow {
    since: Instant,
    bytes: usize,
}

impl Socket {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self { state: State::Prompt(socket), rhythm: None, quiet_until: None, most_found: 0, longest_rest: 2 }
    }

    /// Changes the pace to that at which bytes come.
    fn adapt(&mut self) -> io::Result<()> {
        let Some(rhythm) = &self.rhythm else { return Ok(()) };
        match &mut self.state {
            State::Paced(paced) => match paced.changes_pace() {
                Some(true) => paced.follow(&rhythm.quick, Some(Flow::start())),
                Some(false) => paced.follow(&rhythm.beat, None),
                None => {}
            },
            State::Prompt(_) if !rhythm.is_prompt => self.leave_to_the_beat()?,
            State::Prompt(_) | State::Broken => {}
        }
        Ok(())
    }

    /// From now on the beat wakes it.
    fn leave_to_the_beat(&mut self) -> io::Result<()> {
        let Some(Rhythm { beat, .. }) = &self.rhythm else { return Ok(()) };
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
        let Some(rhythm) = &self.rhythm else { return 0 };
        if let State::Paced(paced) = &self.state {
            if paced.flow.is_some() {
                return 0;
            }
            // Nothing says nothing of what may come.
            if paced.bytes > 0 {
                self.most_found = self.most_found.max(paced.bytes);
                let most = MOST_RESTED_BYTES.min(SURELY_HELD_BYTES.max(2 * self.most_found));
                self.longest_rest = (most / paced.bytes_a_beat().max(1)) as u64;
            }
        }
        rhythm.beats_until(self.quiet_until).min(self.longest_rest)
    }

    /// Nothing has come: waits for the next look. Or, where the system is to wake it from now on, does not wait yet.
    fn wait(&mut self, cx: &Context<'_>) -> io::Result<bool> {
        if matches!(&self.state, State::Paced(paced) if paced.is_waiting()) {
            return Ok(true);
        }
        let is_prompt = self.rhythm.as_ref().is_none_or(|rhythm| rhythm.is_prompt);
        let beats = self.rest();
        match &self.state {
            State::Prompt(_) if beats > 1 => self.leave_to_the_beat()?,
            State::Paced(Paced { flow: None, .. }) if is_prompt && beats <= 1 => {
                self.leave_to_the_system()?;
                return Ok(false);
            }
            _ => {}
        }
        if let State::Paced(paced) = &mut self.state {
            paced.wait(beats.max(1), cx);
        }
        Ok(true)
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

    fn read_bytes(&self) -> usize {
        match &self.state {
            _ if self.rhythm.is_none() => FIRST_READ_BYTES,
            State::Paced(Paced { flow: Some(_), .. }) => FAST_READ_BYTES,
            _ => READ_BYTES,
        }
    }
}

/// The test pipe comes as it comes.
#[cfg(test)]
impl Pace for tokio::io::DuplexStream {
    fn pace(&mut self, _: &Rhythm) {}
    fn rest_until(&mut self, _: Option<Instant>) {}
    fn hasten(&mut self) {}

    fn read_bytes(&self) -> usize {
        READ_BYTES
    }
}

impl Flow {
    fn start() -> Self {
        Self { since: Instant::now(), bytes: 0 }
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    fn is_live_stream(&self) -> bool {
        self.bytes as f64 / self.since.elapsed().as_secs_f64() <= LEAST_FAST_BYTES
    }
}

impl Paced {
    fn new(socket: std::net::TcpStream, beat: &Arc<Beat>) -> Self {
        let beat = Arc::clone(beat);
        Self { socket, looked_at: beat.number(), beat, flow: None, looks_at: 0, waits_for: 0, beats: 0, bytes: 0 }
    }

    /// Whether it has become fast, or a live stream again.
    fn changes_pace(&mut self) -> Option<bool> {
        let Some(flow) = &mut self.flow else { return (self.bytes_a_beat() > MOST_PACED_BYTES).then_some(true) };
        if flow.since.elapsed() < FAST_FOR {
            return None;
        }
        let is_live_stream = flow.is_live_stream();
        *flow = Flow::start();
        is_live_stream.then_some(false)
    }

    /// By what the last look found.
    fn bytes_a_beat(&self) -> usize {
        self.bytes / usize::try_from(self.beats.max(1)).unwrap_or(usize::MAX)
    }

    /// From now on this beat wakes it.
    fn follow(&mut self, beat: &Arc<Beat>, flow: Option<Flow>) {
        self.beat = Arc::clone(beat);
        self.flow = flow;
        (self.looks_at, self.waits_for, self.looked_at, self.beats, self.bytes) = (0, 0, beat.number(), 0, 0);
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
                self.flow.iter_mut().for_each(|flow| flow.bytes += count);
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
        // Three rests, and five beats within the margin.
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
    async fn rests_become_longer_with_what_was_found_and_not_longer_than_systems_hold() {
        const BEAT_BYTES: usize = 20_000;
        let (mut peer, mut socket) = pair().await;
        let beat = Duration::from_millis(10);
        socket.pace(&Rhythm::start(beat));
        socket.rest_until(Some(Instant::now() + Duration::from_secs(3600)));
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
    async fn what_comes_fast_is_read_promptly_and_is_a_live_stream_again() {
        let (mut peer, mut socket) = pair().await;
        let writer = tokio::spawn(async move {
            peer.write_all(&vec![7; 64 << 20]).await.unwrap();
            peer
        });
        socket.pace(&Rhythm::start(EVERY));
        let (mut received, mut buffer) = (0, vec![0; 64 << 10]);
        let began = Instant::now();
        while received < 64 << 20 {
            received += socket.read(&mut buffer).await.unwrap();
        }
        assert!(began.elapsed() < EVERY * 20, "{:?} for 64 MiB", began.elapsed());
        let mut peer = writer.await.unwrap();
        assert_eq!(socket.read_bytes(), FAST_READ_BYTES);
        // It is looked at once a quick beat: this comes in many pieces.
        let writer = tokio::spawn(async move {
            let until = Instant::now() + FAST_FOR * 2 + EVERY;
            while Instant::now() < until {
                peer.write_all(&[8; 100]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        while socket.read(&mut buffer).await.unwrap() > 0 {}
        writer.await.unwrap();
        assert_eq!(socket.read_bytes(), READ_BYTES);
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
