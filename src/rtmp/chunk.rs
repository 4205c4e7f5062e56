//! The chunk stream (RTMP 1.0 §5.3): chunks to messages.
//!
//! A push parser without a buffer: payload is copied once, from the input into the body of its message. Only a header
//! that an input cuts in two is carried over, at most 18 bytes.
//!
//! Chunk streams interleave freely, one message at a time in each. Set Chunk Size and Abort are obeyed here; all other
//! messages go out.

use bytes::{Buf, BytesMut};

use super::assembly::Assembly;
use super::error::{Error, Violation};
use super::limits;
use super::message::{RawMessage, type_id};

/// Reads one direction of a connection's chunk stream.
#[derive(Debug)]
pub(super) struct ChunkReader {
    streams: Vec<ChunkStream>,
    /// The chunk stream of the last chunk, an index into `streams`: the next one is mostly the same.
    current: usize,
    /// Payload bytes of the current chunk still to come; at 0 a header is next.
    chunk_left: usize,
    /// §5.4.1, as the peer set it.
    chunk_bytes: usize,
    carry: Carry,
    assembly: Assembly,
    /// Bytes held by unfinished messages.
    unfinished_bytes: usize,
    /// Bytes of the connection read so far.
    position: u64,
    /// Unfinished messages thrown away.
    abandoned: u64,
}

impl ChunkReader {
    /// A reader for what comes after `position` bytes of the connection.
    pub(super) fn new(position: u64) -> Self {
        Self {
            streams: Vec::new(),
            current: 0,
            chunk_left: 0,
            chunk_bytes: DEFAULT_CHUNK_BYTES,
            carry: Carry::default(),
            assembly: Assembly::default(),
            unfinished_bytes: 0,
            position,
            abandoned: 0,
        }
    }

    /// Bytes that unfinished messages hold.
    pub(super) fn unfinished_bytes(&self) -> usize {
        self.unfinished_bytes
    }

    /// Unfinished messages thrown away: aborted, or followed by a new one on their chunk stream.
    pub(super) fn abandoned(&self) -> u64 {
        self.abandoned
    }

    /// From now on media bodies are cut from larger blocks.
    pub(super) fn expect_media(&mut self) {
        self.assembly.takes_blocks = true;
    }

    /// The next whole message; `None` once all of `input` is taken.
    ///
    /// # Errors
    /// When the peer breaks the protocol or a limit; there is no going on after that.
    pub(super) fn read(&mut self, input: &mut &[u8]) -> Result<Option<RawMessage>, Error> {
        loop {
            if self.chunk_left == 0 {
                let Some(header) = self.read_header(input)? else { return Ok(None) };
                self.begin_chunk(&header)?;
            }
            // A message without payload is whole with its header.
            let (now, rest) = input.split_at(input.len().min(self.chunk_left));
            *input = rest;
            if let Some(message) = self.take_payload(now)?
                && let Some(message) = self.obey(message)?
            {
                return Ok(Some(message));
            }
            if self.chunk_left > 0 {
                return Ok(None);
            }
        }
    }

    /// The next chunk header, put together with what the input before left of it.
    fn read_header(&mut self, input: &mut &[u8]) -> Result<Option<Header>, Error> {
        let carried = self.carry.length;
        if carried == 0 {
            if let Some(header) = self.parse_header(input)? {
                self.position += header.size as u64;
                *input = &input[header.size..];
                return Ok(Some(header));
            }
            // Less than a header: all of it fits.
            self.carry.push(input);
            *input = &[];
            return Ok(None);
        }
        let added = self.carry.push(input);
        let Some(header) = self.parse_header(&self.carry.bytes[..self.carry.length])? else {
            *input = &input[added..];
            return Ok(None);
        };
        // What was carried was no whole header, so this one ends behind it.
        self.carry.length = 0;
        self.position += header.size as u64;
        *input = &input[header.size.saturating_sub(carried)..];
        Ok(Some(header))
    }

    /// §5.3.1: the header at the start of `bytes`, or `None` if they do not hold all of it.
    fn parse_header(&self, bytes: &[u8]) -> Result<Option<Header>, Error> {
        let mut rest = bytes;
        let Ok(first) = rest.try_get_u8() else { return Ok(None) };
        let format = first >> 6;
        // §5.3.1.1: ids 0 and 1 stand for the longer forms; the third byte counts 256s.
        let chunk_stream_id = match first & 0x3f {
            0 => rest.try_get_u8().map(|id| 64 + u32::from(id)),
            1 => rest.try_get_u16_le().map(|id| 64 + u32::from(id)),
            id => Ok(u32::from(id)),
        };
        let Ok(chunk_stream_id) = chunk_stream_id else { return Ok(None) };
        // §5.3.1.2.
        let Some((fields, after)) = rest.split_at_checked(MESSAGE_HEADER_BYTES[usize::from(format)]) else {
            return Ok(None);
        };
        rest = after;
        let index = self.find(chunk_stream_id);
        // Type 1 as the first header has all it needs but the message stream; librtmp sends it.
        if index.is_none() && format >= 2 {
            return Err(self.broken(Violation::NoHeaderBefore { chunk_stream_id, format }));
        }
        let before = index.map(|index| &self.streams[index].header);
        let mut header = before.copied().unwrap_or_default();
        if let [t0, t1, t2, ..] = *fields {
            header.time = u32::from_be_bytes([0, t0, t1, t2]);
            header.has_extended_time = header.time == EXTENDED_TIME;
        }
        if let [_, _, _, l0, l1, l2, type_id, ..] = *fields {
            header.length = u32::from_be_bytes([0, l0, l1, l2]);
            header.type_id = type_id;
        }
        if let [.., s0, s1, s2, s3] = *fields
            && format == 0
        {
            header.stream_id = u32::from_le_bytes([s0, s1, s2, s3]);
        }
        // §5.3.1.3.
        if header.has_extended_time {
            if format < 3 {
                let Ok(time) = rest.try_get_u32() else { return Ok(None) };
                header.time = time;
            } else {
                match repeats(rest, header.time) {
                    Some(true) => rest.advance(EXTENDED_TIME_BYTES),
                    Some(false) => {}
                    None => return Ok(None),
                }
            }
        }
        Ok(Some(Header { format, chunk_stream_id, index, size: bytes.len() - rest.len(), message: header }))
    }

    /// Makes the chunk's stream the current one and starts its message, unless the chunk continues one.
    fn begin_chunk(&mut self, header: &Header) -> Result<(), Error> {
        self.current = match header.index {
            Some(index) => index,
            None => self.add_stream(header.chunk_stream_id)?,
        };
        let stream = &mut self.streams[self.current];
        if header.format < 3 && stream.is_unfinished {
            self.unfinished_bytes -= stream.abandon(&mut self.assembly);
            self.abandoned += 1;
        }
        if !stream.is_unfinished {
            stream.header = header.message;
            // §5.3.1.2.4: a type 3 header that starts a message adds the time field of the header before once more, of
            // whatever type that was.
            stream.timestamp = match header.format {
                0 => header.message.time,
                _ => stream.timestamp.wrapping_add(header.message.time),
            };
            if stream.length() > limits::MESSAGE_BYTES {
                return Err(self.too_much("bytes in a message", limits::MESSAGE_BYTES));
            }
            stream.body = self.assembly.begin(stream.header.type_id, stream.length());
            stream.is_unfinished = true;
        }
        self.chunk_left = self.chunk_bytes.min(stream.length() - stream.body.len());
        Ok(())
    }

    /// Adds `payload` to the current message, and returns it if that makes it whole.
    fn take_payload(&mut self, payload: &[u8]) -> Result<Option<RawMessage>, Error> {
        self.position += payload.len() as u64;
        self.chunk_left -= payload.len();
        self.unfinished_bytes += payload.len();
        if self.unfinished_bytes > limits::MESSAGE_BYTES {
            return Err(self.too_much("bytes in unfinished messages", limits::MESSAGE_BYTES));
        }
        let stream = &mut self.streams[self.current];
        let length = stream.length();
        Assembly::extend(&mut stream.body, payload, length);
        if stream.body.len() < length {
            return Ok(None);
        }
        self.unfinished_bytes -= length;
        stream.is_unfinished = false;
        Ok(Some(RawMessage {
            type_id: stream.header.type_id,
            timestamp: stream.timestamp,
            stream_id: stream.header.stream_id,
            body: self.assembly.finish(stream.header.type_id, &mut stream.body),
            end: self.position,
        }))
    }

    /// §5.4: does what a message says about the chunk stream, or hands it back.
    fn obey(&mut self, message: RawMessage) -> Result<Option<RawMessage>, Error> {
        if !matches!(message.type_id, type_id::SET_CHUNK_SIZE | type_id::ABORT) {
            return Ok(Some(message));
        }
        let Ok(value) = (&message.body[..]).try_get_u32() else {
            return Err(self.broken(Violation::ShortControlMessage { type_id: message.type_id }));
        };
        if message.type_id == type_id::ABORT {
            self.abort(value);
            return Ok(None);
        }
        // §5.4.1: the first bit is zero, or means nothing.
        let chunk_bytes = (value & 0x7fff_ffff).min(limits::CHUNK_BYTES);
        if chunk_bytes == 0 {
            return Err(self.broken(Violation::ZeroChunkSize));
        }
        self.chunk_bytes = usize::try_from(chunk_bytes).unwrap_or(usize::MAX);
        Ok(None)
    }

    /// §5.4.2.
    fn abort(&mut self, chunk_stream_id: u32) {
        let Some(index) = self.find(chunk_stream_id) else { return };
        let stream = &mut self.streams[index];
        if stream.is_unfinished {
            self.unfinished_bytes -= stream.abandon(&mut self.assembly);
            self.abandoned += 1;
        }
    }

    fn find(&self, chunk_stream_id: u32) -> Option<usize> {
        if self.streams.get(self.current).is_some_and(|stream| stream.id == chunk_stream_id) {
            return Some(self.current);
        }
        self.streams.iter().position(|stream| stream.id == chunk_stream_id)
    }

    fn add_stream(&mut self, id: u32) -> Result<usize, Error> {
        if self.streams.len() == limits::CHUNK_STREAMS {
            return Err(self.too_much("chunk streams", limits::CHUNK_STREAMS));
        }
        self.streams.push(ChunkStream {
            id,
            header: MessageHeader::default(),
            timestamp: 0,
            is_unfinished: false,
            body: BytesMut::new(),
        });
        Ok(self.streams.len() - 1)
    }

    fn broken(&self, violation: Violation) -> Error {
        Error::Protocol { at: self.position, violation }
    }

    fn too_much(&self, what: &'static str, limit: usize) -> Error {
        Error::Limit { at: self.position, what, limit: limit as u64 }
    }
}

/// One chunk stream: its last header and its unfinished message.
#[derive(Debug)]
struct ChunkStream {
    id: u32,
    header: MessageHeader,
    /// Of the last message, in milliseconds.
    timestamp: u32,
    is_unfinished: bool,
    body: BytesMut,
}

impl ChunkStream {
    /// Bytes of the last message, the unfinished one if there is one.
    fn length(&self) -> usize {
        usize::try_from(self.header.length).unwrap_or(usize::MAX)
    }

    /// Throws the unfinished message away and returns how many bytes it held.
    fn abandon(&mut self, assembly: &mut Assembly) -> usize {
        let held = self.body.len();
        assembly.abandon(self.header.type_id, &mut self.body);
        self.is_unfinished = false;
        held
    }
}

/// A chunk header as read, made whole with the one before it on its chunk stream.
#[derive(Debug, Clone, Copy)]
struct Header {
    format: u8,
    chunk_stream_id: u32,
    /// The chunk stream, if it is known.
    index: Option<usize>,
    /// Bytes of the header.
    size: usize,
    message: MessageHeader,
}

/// What a later header of the chunk stream may leave out.
#[derive(Debug, Clone, Copy, Default)]
struct MessageHeader {
    /// The timestamp (type 0) or its delta (types 1 and 2) in milliseconds.
    time: u32,
    /// `time` came as an extended timestamp, which type 3 headers may repeat.
    has_extended_time: bool,
    /// Bytes of the message.
    length: u32,
    type_id: u8,
    stream_id: u32,
}

/// The start of a header that an input cut in two.
#[derive(Debug, Default)]
struct Carry {
    bytes: [u8; LONGEST_HEADER],
    length: usize,
}

impl Carry {
    /// Takes what fits of `input` and returns how much that is.
    fn push(&mut self, input: &[u8]) -> usize {
        let free = &mut self.bytes[self.length..];
        let added = free.len().min(input.len());
        free[..added].copy_from_slice(&input[..added]);
        self.length += added;
        added
    }
}

/// Whether `bytes` start with the extended timestamp `time`: §5.3.1.3 has type 3 headers repeat it, but some encoders do
/// not. `None` while too few bytes are there to tell.
fn repeats(bytes: &[u8], time: u32) -> Option<bool> {
    let expected = time.to_be_bytes();
    let there = bytes.len().min(EXTENDED_TIME_BYTES);
    if bytes[..there] != expected[..there] {
        return Some(false);
    }
    (there == EXTENDED_TIME_BYTES).then_some(true)
}

/// §5.4.1: until the peer sets another.
const DEFAULT_CHUNK_BYTES: usize = 128;
/// §5.3.1.2: message header by format.
const MESSAGE_HEADER_BYTES: [usize; 4] = [11, 7, 3, 0];
/// §5.3.1.3: what stands in the 3-byte field when the time is in the extended one.
const EXTENDED_TIME: u32 = 0xFF_FFFF;
const EXTENDED_TIME_BYTES: usize = 4;
/// Basic header, message header, extended timestamp.
const LONGEST_HEADER: usize = 3 + 11 + EXTENDED_TIME_BYTES;
