//! A publisher that says what a session says, and waits for the server where a real one does.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::amf::Command;
use super::case::{Delivery, End};
use super::chunk::{ChunkParser, Message};
use super::session::{HANDSHAKE_BYTES, Session};

/// How long the server may take for an answer.
const ANSWER: Duration = Duration::from_secs(10);

/// What became of a connection.
#[derive(Debug, Default)]
pub(crate) struct Played {
    /// The answer to each publish command that was sent: the error's code if it was refused.
    pub(crate) publishes: Vec<Result<(), String>>,
    /// Why not everything could be sent, though nothing was refused.
    pub(crate) trouble: Option<String>,
    /// The connection, when the client fell silent ([`End::Hang`]).
    pub(crate) open: Option<TcpStream>,
}

impl Played {
    /// The error with which a publish was refused.
    pub(crate) fn refusal(&self) -> Option<&str> {
        self.publishes.iter().find_map(|answer| answer.as_ref().err().map(String::as_str))
    }
}

/// Plays `session` against the server at `address`, as fast as it reads.
pub(crate) fn play(session: &Session, delivery: &Delivery, address: SocketAddr) -> Played {
    let mut played = Played::default();
    let outcome = Client::connect(session, delivery, address).and_then(|mut client| {
        let sent = client.send_all(&mut played);
        if played.refusal().is_some() {
            // A refused client goes away without another word.
            return client.end(End::Fin).map(|_| ());
        }
        sent?;
        played.open = client.end(delivery.end.unwrap_or(session.end))?;
        Ok(())
    });
    if let Err(error) = outcome
        && played.refusal().is_none()
    {
        played.trouble = Some(error.to_string());
    }
    played
}

/// A place in the stream at which the client waits for an answer.
struct Barrier {
    place: usize,
    awaits: Awaits,
    transaction: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaits {
    Connect,
    CreateStream,
    Publish,
}

struct Client<'a> {
    session: &'a Session,
    delivery: &'a Delivery,
    socket: TcpStream,
    /// What is sent; message stream ids are changed once the server has given its own.
    bytes: Vec<u8>,
    messages: Vec<Message>,
    barriers: VecDeque<Barrier>,
    /// The message stream ids that the recorded server gave, in order.
    recorded_stream_ids: VecDeque<u32>,
    answers: ChunkParser,
    unread: VecDeque<Command>,
}

impl<'a> Client<'a> {
    fn connect(session: &'a Session, delivery: &'a Delivery, address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(ANSWER))?;
        socket.set_write_timeout(Some(ANSWER))?;
        let messages = session.messages();
        let barriers = messages.iter().filter_map(barrier).collect();
        Ok(Self {
            session,
            delivery,
            socket,
            bytes: session.client.clone(),
            barriers,
            recorded_stream_ids: recorded_stream_ids(session, &messages),
            messages,
            answers: ChunkParser::new(HANDSHAKE_BYTES),
            unread: VecDeque::new(),
        })
    }

    fn send_all(&mut self, played: &mut Played) -> io::Result<()> {
        let end = self.delivery.stop_at.unwrap_or(usize::MAX).min(self.bytes.len());
        self.shake_hands(end)?;
        let mut at = HANDSHAKE_BYTES;
        while at < end {
            let stop = self.barriers.front().map_or(end, |barrier| barrier.place.min(end));
            self.send(at, stop)?;
            at = stop;
            while self.barriers.front().is_some_and(|barrier| barrier.place <= at) {
                let barrier = self.barriers.pop_front().unwrap();
                if !self.delivery.no_wait {
                    self.wait(&barrier, played)?;
                }
                if played.refusal().is_some() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// C0 and C1, then S0 and S1 (and S2 where the client wants it), then C2: an echo of S1, which no server refuses.
    fn shake_hands(&mut self, end: usize) -> io::Result<()> {
        self.send(0, end.min(1537))?;
        let mut answer = vec![0; HANDSHAKE_BYTES];
        let first = if self.session.waits_for_s2 { HANDSHAKE_BYTES } else { 1537 };
        self.socket.read_exact(&mut answer[..first]).map_err(|e| context("no S0, S1", &e))?;
        self.bytes[1537..HANDSHAKE_BYTES].copy_from_slice(&answer[1..1537]);
        self.send(1537, end.min(HANDSHAKE_BYTES))?;
        self.socket.read_exact(&mut answer[first..]).map_err(|e| context("no S2", &e))
    }

    fn send(&mut self, from: usize, to: usize) -> io::Result<()> {
        for piece in self.bytes[from.min(to)..to].chunks(self.delivery.segment.unwrap_or(usize::MAX)) {
            self.socket.write_all(piece).map_err(|e| context("the server does not take more", &e))?;
        }
        Ok(())
    }

    fn wait(&mut self, barrier: &Barrier, played: &mut Played) -> io::Result<()> {
        loop {
            let answer = self.next_command().map_err(|e| context(&format!("no answer to {:?}", barrier.awaits), &e))?;
            let is_result = matches!(answer.name(), "_result" | "_error");
            let is_error = answer.name() == "_error" || answer.status().is_some_and(|(level, _)| level == "error");
            if is_error {
                let code = answer.status().map_or("_error", |(_, code)| code);
                played.publishes.push(Err(code.to_owned()));
                return Ok(());
            }
            match barrier.awaits {
                Awaits::Connect | Awaits::CreateStream if is_result && answer.transaction() == barrier.transaction => {
                    if barrier.awaits == Awaits::CreateStream {
                        self.use_stream_id(&answer, barrier.place);
                    }
                    return Ok(());
                }
                Awaits::Publish if answer.name() == "onStatus" => {
                    played.publishes.push(Ok(()));
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    /// Writes the message stream id that the server gave over the recorded one in everything after `place`.
    fn use_stream_id(&mut self, answer: &Command, place: usize) {
        let Some(recorded) = self.recorded_stream_ids.pop_front() else { return };
        let given = answer.id(3).expect("createStream is answered with an id");
        for message in self.messages.iter().filter(|message| message.end > place) {
            if message.stream_id == recorded {
                for &at in &message.stream_id_places {
                    self.bytes[at..at + 4].copy_from_slice(&given.to_le_bytes());
                }
            }
            let Some(command) = Command::of(message) else { continue };
            if matches!(command.name(), "deleteStream" | "closeStream") && command.id(3) == Some(recorded) {
                // The number stands behind its marker.
                let places = &message.payload_places[command.place(3) + 1..];
                for (&at, byte) in places.iter().zip(f64::from(given).to_be_bytes()) {
                    self.bytes[at] = byte;
                }
            }
        }
    }

    /// The next command from the server; everything else it says is passed over.
    fn next_command(&mut self) -> io::Result<Command> {
        loop {
            if let Some(command) = self.unread.pop_front() {
                return Ok(command);
            }
            let mut buffer = [0; 4096];
            let count = self.socket.read(&mut buffer)?;
            if count == 0 {
                return Err(io::Error::other("the server closed the connection"));
            }
            self.unread.extend(self.answers.feed(&buffer[..count]).iter().filter_map(Command::of));
        }
    }

    /// Goes away, and sees the server do the same.
    fn end(mut self, end: End) -> io::Result<Option<TcpStream>> {
        match end {
            End::Hang => return Ok(Some(self.socket)),
            End::Rst if all_received(&self.socket)? => {
                socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO))?;
            }
            End::Fin | End::Rst => {
                self.socket.shutdown(Shutdown::Write)?;
                let mut rest = Vec::new();
                self.socket.read_to_end(&mut rest).map_err(|e| context("the server does not close", &e))?;
            }
        }
        Ok(None)
    }
}

fn barrier(message: &Message) -> Option<Barrier> {
    let command = Command::of(message)?;
    let awaits = match command.name() {
        "connect" => Awaits::Connect,
        "createStream" => Awaits::CreateStream,
        "publish" => Awaits::Publish,
        _ => return None,
    };
    Some(Barrier { place: message.end, awaits, transaction: command.transaction() })
}

/// The ids that the recorded server answered to createStream; 1, 2 ... in crafted sessions.
fn recorded_stream_ids(session: &Session, messages: &[Message]) -> VecDeque<u32> {
    let answers: Vec<_> = session.server_messages().iter().filter_map(Command::of).collect();
    let created = messages.iter().filter_map(Command::of).filter(|command| command.name() == "createStream");
    (1..)
        .zip(created)
        .map(|(count, command)| {
            let answer = answers
                .iter()
                .find(|answer| answer.name() == "_result" && answer.transaction() == command.transaction())
                .and_then(|answer| answer.id(3));
            answer.unwrap_or(count)
        })
        .collect()
}

/// Waits until the server has read all that was sent, for a reset throws away what is still on its way. Only Linux
/// tells; `false` elsewhere.
fn all_received(socket: &TcpStream) -> io::Result<bool> {
    let (Ok(ours), Ok(theirs)) = (hex_address(socket.local_addr()?), hex_address(socket.peer_addr()?)) else {
        return Ok(false);
    };
    let deadline = Instant::now() + ANSWER;
    while Instant::now() < deadline {
        let Ok(table) = fs::read_to_string("/proc/self/net/tcp") else { return Ok(false) };
        // Columns: number, local address, remote address, state, bytes to send : bytes to read.
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        let queues = |local: &str, remote: &str| {
            let line = lines.iter().find(|columns| columns.get(1..3) == Some(&[local, remote]))?;
            line.get(4)?.split_once(':')
        };
        let is_sent = queues(&ours, &theirs).is_none_or(|(to_send, _)| to_send == "00000000");
        let is_read = queues(&theirs, &ours).is_none_or(|(_, to_read)| to_read == "00000000");
        if is_sent && is_read {
            return Ok(true);
        }
        thread::yield_now();
    }
    Err(io::Error::other("the server does not read what was sent"))
}

/// An IPv4 address as in `/proc/net/tcp`.
fn hex_address(address: SocketAddr) -> Result<String, SocketAddr> {
    match address {
        SocketAddr::V4(v4) => Ok(format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.ip().octets()), v4.port())),
        SocketAddr::V6(_) => Err(address),
    }
}

fn context(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
