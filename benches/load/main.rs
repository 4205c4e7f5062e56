//! Many publishers at once, which cost little themselves: prepared bytes, one thread in realtime.
//!
//! Speaks RTMP to any server (or the same bytes without waiting for answers, `--deaf`, to one that cannot answer). Each
//! second it prints a line of JSON on what it has sent; `benches/compare` reads it.
#![expect(clippy::disallowed_methods, reason = "sends by the clock")]

#[path = "../common/conversation.rs"]
mod conversation;
#[path = "../common/media.rs"]
mod media;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::{Parser, ValueEnum};

use self::conversation::{HANDSHAKE_BYTES, HELLO_BYTES};
use self::media::{Profile, Program, ROUND_MS};

/// Publishes the same footage many times.
#[derive(Debug, Parser)]
struct Options {
    /// The server.
    #[arg(long, default_value = "127.0.0.1:1935")]
    to: SocketAddr,
    /// How much further on the next publisher's port is, for servers that take one publisher each.
    #[arg(long, default_value_t = 0)]
    port_step: u16,
    /// How many.
    #[arg(long, default_value_t = 1)]
    publishers: u16,
    /// What they send.
    #[arg(long, value_enum, default_value_t = Profile::Large)]
    profile: Profile,
    /// How fast.
    #[arg(long, value_enum, default_value_t = Speed::Realtime)]
    speed: Speed,
    /// For how long, in seconds.
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// At full speed: until all publishers together have sent so much, in megabytes, if the time is not over before.
    #[arg(long, default_value_t = 6000)]
    megabytes: u64,
    /// Realtime: sends what came together in so many milliseconds by one write, as a link with jitter would deliver it.
    /// 0 means a write for each message.
    #[arg(long, default_value_t = 0)]
    gather_ms: u64,
    /// The publishers' names are this and a number.
    #[arg(long, default_value = "live/p")]
    name: String,
    /// Waits for no answer.
    #[arg(long)]
    deaf: bool,
    /// Realtime: has the system send the bytes as they lie in a file (`sendfile` of Linux), so that one core sends more. The
    /// receiver copies as much, but need not free what held the bytes.
    #[arg(long)]
    sendfile: bool,
}

/// How fast a publisher sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Speed {
    /// As fast as the footage was shot.
    Realtime,
    /// As fast as the server takes it.
    Max,
    /// Not at all: connects, shakes hands, and says no more.
    Idle,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let program = Program::new(options.profile)?;
    let sockets = connect_all(&options, &program)?;
    println!(
        r#"{{"event":"connected","round_s":{},"round_bytes":{},"payload_bytes":{}}}"#,
        ROUND_MS / 1000,
        program.round.len(),
        program.payload_bytes
    );
    let length = Duration::try_from_secs_f64(options.seconds)?;
    match options.speed {
        Speed::Realtime => {
            let source = if options.sendfile { Source::file(&program.round)? } else { Source::Memory(&program.round) };
            send_in_realtime(sockets, &program, &source, length, options.gather_ms)
        }
        Speed::Max => send_at_once(sockets, &program, length, options.megabytes * 1_000_000),
        Speed::Idle => {
            sleep(length);
            Ok(())
        }
    }
}

/// In the order of their numbers. Some servers let everybody wait a while, so many are let wait together.
fn connect_all(options: &Options, program: &Program) -> anyhow::Result<Vec<TcpStream>> {
    let mut sockets = Vec::new();
    let all: Vec<_> = (0..options.publishers).collect();
    for together in all.chunks(CONNECT_TOGETHER) {
        let connected: Vec<_> = thread::scope(|scope| {
            let connecting: Vec<_> = together
                .iter()
                .map(|&number| {
                    let connect = move || connect(options, number, program);
                    (number, scope.spawn(connect))
                })
                .collect();
            connecting.into_iter().map(|(number, connecting)| (number, connecting.join())).collect()
        });
        for (number, socket) in connected {
            let socket = socket.map_err(|_| anyhow::anyhow!("a publisher's thread panicked"))?;
            sockets.push(socket.with_context(|| format!("publisher {number}"))?);
        }
    }
    Ok(sockets)
}

/// A connection that is let publish, with everything said that comes before media.
fn connect(options: &Options, number: u16, program: &Program) -> anyhow::Result<TcpStream> {
    let mut to = options.to;
    to.set_port(to.port() + options.port_step * number);
    let mut socket = TcpStream::connect(to).with_context(|| format!("connect to {to}"))?;
    socket.set_nodelay(true)?;
    let (app, name) = options.name.split_once('/').context("a name has the form APP/NAME")?;
    let key = format!("{name}{number}");
    let mut c2 = vec![0; HANDSHAKE_BYTES];
    socket.write_all(&conversation::hello())?;
    if !options.deaf {
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut answer = vec![0; HELLO_BYTES + HANDSHAKE_BYTES];
        socket.read_exact(&mut answer).context("shake hands")?;
        c2.copy_from_slice(&answer[1..HELLO_BYTES]);
    }
    let mut words = c2;
    if options.speed != Speed::Idle {
        words.extend(conversation::connect(app));
        words.extend(conversation::publish(&key));
    }
    socket.write_all(&words)?;
    if options.speed == Speed::Idle {
        return Ok(socket);
    }
    if !options.deaf {
        let mut said = Vec::new();
        while !conversation::is_publishing(&said) {
            let mut buffer = [0; 4096];
            let length = socket.read(&mut buffer).context("wait for the consent to publish")?;
            ensure!(length > 0, "the server closed the connection");
            said.extend(&buffer[..length]);
        }
    }
    socket.write_all(&program.opening)?;
    Ok(socket)
}

/// Who sends, and how far.
struct Publisher {
    socket: TcpStream,
    /// When its current round started, in microseconds.
    round_us: u64,
    /// The next write of the round.
    next: usize,
    /// Bytes of the round sent.
    sent: usize,
}

/// What is sent at once.
#[derive(Clone, Copy)]
struct Batch {
    due_us: u64,
    end: usize,
}

/// Where the bytes of a round lie.
enum Source<'a> {
    Memory(&'a [u8]),
    File(File),
}

impl Source<'_> {
    fn file(round: &[u8]) -> anyhow::Result<Self> {
        let mut file = tempfile::tempfile().context("make a file to send from")?;
        file.write_all(round)?;
        Ok(Self::File(file))
    }

    /// As many of these bytes as the socket takes.
    fn send(&self, bytes: Range<usize>, socket: &mut TcpStream) -> io::Result<usize> {
        match self {
            Self::Memory(round) => socket.write(&round[bytes]),
            Self::File(file) => send_from_file(file, bytes, socket),
        }
    }
}

#[cfg(target_os = "linux")]
fn send_from_file(file: &File, bytes: Range<usize>, socket: &TcpStream) -> io::Result<usize> {
    Ok(rustix::fs::sendfile(socket, file, Some(&mut (bytes.start as u64)), bytes.len())?)
}

#[cfg(not(target_os = "linux"))]
fn send_from_file(_: &File, _: Range<usize>, _: &TcpStream) -> io::Result<usize> {
    Err(ErrorKind::Unsupported.into())
}

fn send_in_realtime(
    sockets: Vec<TcpStream>,
    program: &Program,
    source: &Source<'_>,
    length: Duration,
    gather_ms: u64,
) -> anyhow::Result<()> {
    let batches = batches(program, gather_ms);
    let mut publishers = Vec::new();
    // Key frames come evenly spread.
    let count = sockets.len() as u64;
    for (at, socket) in (0..).zip(sockets) {
        socket.set_nonblocking(true)?;
        publishers.push(Publisher { socket, round_us: at * SPREAD_US / count, next: 0, sent: 0 });
    }
    let mut due: BinaryHeap<_> =
        publishers.iter().enumerate().map(|(at, publisher)| Reverse((publisher.round_us, at))).collect();

    let start = Instant::now();
    let micros = |time: Instant| u64::try_from(time.duration_since(start).as_micros()).unwrap_or(u64::MAX);
    let (mut sent_bytes, mut latest_us, mut report_us) = (0_u64, 0, 1_000_000);
    let end_us = u64::try_from(length.as_micros())?;
    while let Some(Reverse((at_us, number))) = due.pop() {
        let mut now_us = micros(Instant::now());
        if now_us < at_us {
            sleep(Duration::from_micros(at_us - now_us));
            now_us = micros(Instant::now());
        }
        if now_us >= report_us {
            report(now_us, sent_bytes, latest_us);
            (latest_us, report_us) = (0, report_us + 1_000_000);
            for publisher in &mut publishers {
                listen(&mut publisher.socket)?;
            }
        }
        if now_us >= end_us {
            return Ok(());
        }
        let publisher = &mut publishers[number];
        let batch = batches[publisher.next];
        match source.send(publisher.sent..batch.end, &mut publisher.socket) {
            Ok(length) => {
                publisher.sent += length;
                sent_bytes += length as u64;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("send"),
        }
        if publisher.sent < batch.end {
            // The server is behind.
            due.push(Reverse((now_us + RETRY_US, number)));
            continue;
        }
        latest_us = latest_us.max(now_us - (publisher.round_us + batch.due_us).min(now_us));
        publisher.next += 1;
        if publisher.next == batches.len() {
            (publisher.next, publisher.sent) = (0, 0);
            publisher.round_us += ROUND_MS * 1000;
        }
        due.push(Reverse((publisher.round_us + batches[publisher.next].due_us, number)));
    }
    bail!("nobody to send")
}

/// The messages' writes.
fn batches(program: &Program, gather_ms: u64) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut tick = None;
    for message in &program.messages {
        let batch = Batch { due_us: message.due_ms * 1000, end: message.end };
        let this_tick = message.due_ms.checked_div(gather_ms);
        match batches.last_mut() {
            Some(last) if this_tick.is_some() && this_tick == tick => *last = batch,
            _ => batches.push(batch),
        }
        tick = this_tick;
    }
    batches
}

/// Takes what the server says.
fn listen(socket: &mut TcpStream) -> anyhow::Result<()> {
    loop {
        match socket.read(&mut [0; 4096]) {
            Ok(0) => bail!("the server closed a connection"),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("listen"),
        }
    }
}

fn send_at_once(sockets: Vec<TcpStream>, program: &Program, length: Duration, most_bytes: u64) -> anyhow::Result<()> {
    let sent_bytes = AtomicU64::new(0);
    let start = Instant::now();
    thread::scope(|scope| {
        let mut sending = Vec::new();
        for mut socket in sockets {
            let mut ear = socket.try_clone()?;
            ear.set_read_timeout(None)?;
            thread::spawn(move || while matches!(ear.read(&mut [0; 4096]), Ok(1..)) {});
            let sent_bytes = &sent_bytes;
            sending.push(scope.spawn(move || -> anyhow::Result<()> {
                for piece in program.round.chunks(WRITE_BYTES).cycle() {
                    if start.elapsed() >= length || sent_bytes.load(Ordering::Relaxed) >= most_bytes {
                        break;
                    }
                    socket.write_all(piece).context("send")?;
                    sent_bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
                }
                Ok(())
            }));
        }
        while !sending.iter().all(thread::ScopedJoinHandle::is_finished) {
            sleep(Duration::from_millis(20));
        }
        report(u64::try_from(start.elapsed().as_micros())?, sent_bytes.load(Ordering::Relaxed), 0);
        for sent in sending {
            sent.join().map_err(|_| anyhow::anyhow!("a publisher's thread panicked"))??;
        }
        Ok(())
    })
}

fn report(time_us: u64, sent_bytes: u64, latest_us: u64) {
    println!(r#"{{"event":"sent","time_us":{time_us},"bytes":{sent_bytes},"late_us":{latest_us}}}"#);
}

/// How many connect at the same time.
const CONNECT_TOGETHER: usize = 32;
/// Over which time publishers begin, in microseconds: a group of pictures.
const SPREAD_US: u64 = 2_000_000;
/// When to try again what a server did not take, in microseconds.
const RETRY_US: u64 = 1_000;
/// At full speed, what is written at once.
const WRITE_BYTES: usize = 256 << 10;
