//! A publisher of raw bytes, for what no honest client sends.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// AMF0 (§2).
pub(crate) fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap().to_be_bytes();
    [&[2], &length[..], text.as_bytes()].concat()
}

pub(crate) fn number(number: f64) -> Vec<u8> {
    [&[0], &number.to_be_bytes()[..]].concat()
}

pub(crate) fn object(fields: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let fields = fields.iter().flat_map(|(name, value)| [&text(name)[1..], value].concat());
    [vec![3], fields.collect(), vec![0, 0, 9]].concat()
}

pub(crate) const NULL: [u8; 1] = [5];

/// A chunk header of type 0 (RTMP 1.0 §5.3.1.2.1) that announces `length` bytes.
pub(crate) fn header(chunk_stream: u8, kind: u8, stream: u32, timestamp: u32, length: usize) -> Vec<u8> {
    let length = u32::try_from(length).unwrap().to_be_bytes();
    let field = timestamp.min(0xFF_FFFF).to_be_bytes();
    let mut header = vec![chunk_stream];
    header.extend(&field[1..]);
    header.extend(&length[1..]);
    header.push(kind);
    header.extend(stream.to_le_bytes());
    if timestamp >= 0xFF_FFFF {
        header.extend(timestamp.to_be_bytes());
    }
    header
}

/// A message in chunks of `chunk_bytes`.
pub(crate) fn message_in(
    chunk_bytes: usize,
    chunk_stream: u8,
    kind: u8,
    stream: u32,
    timestamp: u32,
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = header(chunk_stream, kind, stream, timestamp, body.len());
    for (index, piece) in body.chunks(chunk_bytes).enumerate() {
        if index > 0 {
            bytes.push(0xC0 | chunk_stream);
            if timestamp >= 0xFF_FFFF {
                bytes.extend(timestamp.to_be_bytes());
            }
        }
        bytes.extend(piece);
    }
    bytes
}

/// A message in chunks of the size that holds at the start.
pub(crate) fn message(chunk_stream: u8, kind: u8, stream: u32, timestamp: u32, body: &[u8]) -> Vec<u8> {
    message_in(128, chunk_stream, kind, stream, timestamp, body)
}

pub(crate) fn command(stream: u32, values: &[Vec<u8>]) -> Vec<u8> {
    message(3, 20, stream, 0, &values.concat())
}

/// C0, C1 and C2 at once; C2 is wrong, as that of many clients.
pub(crate) fn hello() -> Vec<u8> {
    let mut hello = vec![3, 0, 0, 0, 0, 0, 0, 0, 0];
    hello.extend((0..1528 + 1536u32).map(|i| u8::try_from(i * 7 % 251).unwrap()));
    hello
}

pub(crate) fn connect(app: &str) -> Vec<u8> {
    let url = text(&format!("rtmp://localhost/{app}"));
    command(0, &[text("connect"), number(1.0), object(&[("app", text(app)), ("tcUrl", url)])])
}

pub(crate) fn create_stream() -> Vec<u8> {
    command(0, &[text("createStream"), number(2.0), NULL.to_vec()])
}

pub(crate) fn publish(name: &str) -> Vec<u8> {
    command(1, &[text("publish"), number(3.0), NULL.to_vec(), text(name), text("live")])
}

/// The end of a publish.
pub(crate) fn goodbye() -> Vec<u8> {
    command(1, &[text("deleteStream"), number(4.0), NULL.to_vec(), number(1.0)])
}

/// All up to the publish.
pub(crate) fn opening(app: &str, name: &str) -> Vec<u8> {
    [hello(), connect(app), create_stream(), publish(name)].concat()
}

pub(crate) fn set_chunk_size(bytes: u32) -> Vec<u8> {
    message(2, 1, 0, 0, &bytes.to_be_bytes())
}

/// How long the server may take for anything that it does at once.
pub(crate) const SOON: Duration = Duration::from_secs(3);

/// A connection.
pub(crate) struct Peer {
    pub(crate) socket: TcpStream,
    /// What the server said.
    pub(crate) heard: Vec<u8>,
}

impl Peer {
    pub(crate) fn dial(address: SocketAddr) -> Self {
        Self::connect(TcpStream::connect(address).unwrap())
    }

    fn connect(socket: TcpStream) -> Self {
        socket.set_nodelay(true).unwrap();
        socket.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { socket, heard: Vec::new() }
    }

    /// A publisher that was let in, with large chunks.
    pub(crate) fn publishing(address: SocketAddr, app: &str, name: &str) -> Self {
        Self::try_publishing(address, app, name).unwrap_or_else(|| panic!("{name} is not let in"))
    }

    /// The same, if there is somebody who lets it in.
    pub(crate) fn try_publishing(address: SocketAddr, app: &str, name: &str) -> Option<Self> {
        let mut peer = Self::connect(TcpStream::connect(address).ok()?);
        peer.send(&[opening(app, name), set_chunk_size(60_000)].concat());
        peer.hears("NetStream.Publish.Start", SOON).then_some(peer)
    }

    /// Shows the film over and over, at its own pace, until `is_over`.
    pub(crate) fn show_film(&mut self, is_over: impl Fn() -> bool) {
        self.show_film_and(is_over, |_| {});
    }

    /// The same, and what was `sent` is told each time.
    pub(crate) fn show_film_and(&mut self, is_over: impl Fn() -> bool, mut sent: impl FnMut(&FilmTag)) {
        let film = film();
        let start = Instant::now();
        for tag in films(&film) {
            let due = start + Duration::from_millis(tag.1.into());
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if is_over() {
                return;
            }
            assert!(self.send(&media(&tag)), "a healthy publisher was cut off");
            sent(&tag);
        }
    }

    /// Sends, unless the server has closed the connection already.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    /// Listens until the server closes the connection, for `patience` at most; how long that took.
    pub(crate) fn closed_within(&mut self, patience: Duration) -> Option<Duration> {
        let start = Instant::now();
        self.listen(patience, |_| false).then(|| start.elapsed())
    }

    /// Listens until `words` have been said; whether they have.
    pub(crate) fn hears(&mut self, words: &str, patience: Duration) -> bool {
        let is_there = |heard: &[u8]| heard.windows(words.len()).any(|window| window == words.as_bytes());
        self.listen(patience, is_there);
        is_there(&self.heard)
    }

    /// Whether the server closed the connection before `is_enough` and the end of `patience`.
    fn listen(&mut self, patience: Duration, is_enough: impl Fn(&[u8]) -> bool) -> bool {
        let until = Instant::now() + patience;
        let mut buffer = [0; 4096];
        while !is_enough(&self.heard) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.socket.set_read_timeout(Some(left)).unwrap();
            match self.socket.read(&mut buffer) {
                Ok(0) => return true,
                Ok(length) => self.heard.extend_from_slice(&buffer[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
        false
    }
}

/// Says that it is over, in a panic too.
pub(crate) struct SetOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A tag of the film: message type, time in milliseconds, body.
pub(crate) type FilmTag = (u8, u32, Vec<u8>);

/// The audio and video of the film in `samples`.
pub(crate) fn film() -> Vec<FilmTag> {
    flv("samples/big-buck-bunny.flv")
}

/// The audio and video of an FLV file, by its path in the repository.
pub(crate) fn flv(path: &str) -> Vec<FilmTag> {
    let file = std::fs::read(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let mut tags = Vec::new();
    let mut rest = &file[13..];
    while rest.len() >= 11 {
        let length = usize::from(rest[1]) << 16 | usize::from(rest[2]) << 8 | usize::from(rest[3]);
        let timestamp = u32::from_be_bytes([rest[7], rest[4], rest[5], rest[6]]);
        if matches!(rest[0], 8 | 9) {
            tags.push((rest[0], timestamp, rest[11..11 + length].to_vec()));
        }
        rest = &rest[11 + length + 4..];
    }
    tags
}

/// The film again and again, each tag with its time in milliseconds from the start. The decoder configurations are said
/// once.
pub(crate) fn films(film: &[FilmTag]) -> impl Iterator<Item = FilmTag> {
    let length_ms = film.iter().map(|tag| tag.1).max().unwrap() + 33;
    (0..).flat_map(move |round| {
        let tags = film.iter().filter(move |tag| round == 0 || tag.2[1] != 0);
        tags.map(move |tag| (tag.0, tag.1 + round * length_ms, tag.2.clone()))
    })
}

/// A tag as a message on message stream 1, in chunks of 60,000 bytes.
pub(crate) fn media((kind, timestamp, body): &FilmTag) -> Vec<u8> {
    message_in(60_000, if *kind == 8 { 4 } else { 6 }, *kind, 1, *timestamp, body)
}
