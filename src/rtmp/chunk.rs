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
            if self.chunk_left == 0 && !self.continues(input) {
                let Some(header) = self.read_header(input)? else { return Ok(None) };
                self.begin_chunk(&header)?;
            }
            // A message without payload is whole with its header.
            let whole = if self.carry.length > 0 {
                let now = self.carry.pop(self.chunk_left);
                self.take_payload(&now.bytes[..now.length])?
            } else {
                let (now, rest) = input.split_at(input.len().min(self.chunk_left));
                *input = rest;
                self.take_payload(now)?
            };
            if let Some(message) = whole
                && let Some(message) = self.obey(message)?
            {
                return Ok(Some(message));
            }
            if self.chunk_left > 0 && input.is_empty() {
                return Ok(None);
            }
        }
    }

    /// Begins the next chunk if its header is what most are: the one byte of type 3 that goes on with the message of the
    /// chunk before (§5.3.1.2.4).
    fn continues(&mut self, input: &mut &[u8]) -> bool {
        let Some(stream) = self.streams.get(self.current) else { return false };
        let is_plain = stream.is_unfinished && !stream.header.has_extended_time && self.carry.length == 0;
        match input.split_first() {
            Some((&first, rest)) if is_plain && (first >> 6, u32::from(first & 0x3f)) == (3, stream.id) => {
                *input = rest;
                self.position += 1;
                self.chunk_left = self.chunk_bytes.min(stream.missing_bytes());
                true
            }
            _ => false,
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
        self.position += header.size as u64;
        // Behind the header only what was carried stays, and there is some only where a repeated time was looked for.
        self.carry.length = carried;
        self.carry.pop(header.size);
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
        self.chunk_left = self.chunk_bytes.min(stream.missing_bytes());
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

    /// Bytes that its message lacks.
    fn missing_bytes(&self) -> usize {
        self.length() - self.body.len()
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

/// What could not be read yet: the start of a header that an input cut in two.
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

    /// Takes up to `length` bytes from the start.
    fn pop(&mut self, length: usize) -> Self {
        let mut popped = Self::default();
        if self.length > 0 {
            popped.push(&self.bytes[..length.min(self.length)]);
            self.bytes.copy_within(popped.length..self.length, 0);
            self.length -= popped.length;
        }
        popped
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

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, VecDeque};

    use bytes::Bytes;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use rml_rtmp::chunk_io::ChunkSerializer;
    use rml_rtmp::messages::MessagePayload;
    use rml_rtmp::time::RtmpTimestamp;

    use super::*;

    /// What a message is to the one who sends it.
    #[derive(Debug, Clone, PartialEq)]
    struct Sent {
        chunk_stream_id: u32,
        timestamp: u32,
        type_id: u8,
        stream_id: u32,
        payload: Vec<u8>,
    }

    impl Sent {
        fn audio(chunk_stream_id: u32, timestamp: u32, payload: &[u8]) -> Self {
            Self { chunk_stream_id, timestamp, type_id: type_id::AUDIO, stream_id: 1, payload: payload.to_vec() }
        }
    }

    /// Sends messages with the smallest headers that are legal.
    struct Writer {
        chunk_bytes: usize,
        repeats_extended_time: bool,
        /// Chunk stream id: the message before and its time field.
        before: HashMap<u32, (Sent, u32)>,
    }

    impl Writer {
        fn new() -> Self {
            Self { chunk_bytes: DEFAULT_CHUNK_BYTES, repeats_extended_time: true, before: HashMap::new() }
        }

        fn chunks(&mut self, sent: &Sent) -> VecDeque<Vec<u8>> {
            let before = self.before.get(&sent.chunk_stream_id);
            let (format, time) = match before {
                Some((before, field)) if before.stream_id == sent.stream_id => {
                    let delta = sent.timestamp.wrapping_sub(before.timestamp);
                    if (before.type_id, before.payload.len()) != (sent.type_id, sent.payload.len()) {
                        (1, delta)
                    } else if *field != delta {
                        (2, delta)
                    } else {
                        (3, delta)
                    }
                }
                _ => (0, sent.timestamp),
            };
            let extended = if time >= EXTENDED_TIME { time.to_be_bytes().to_vec() } else { vec![] };
            let mut header = basic_header(format, sent.chunk_stream_id);
            if format < 3 {
                header.extend(&time.min(EXTENDED_TIME).to_be_bytes()[1..]);
            }
            if format < 2 {
                header.extend(&u32::try_from(sent.payload.len()).unwrap().to_be_bytes()[1..]);
                header.push(sent.type_id);
            }
            if format == 0 {
                header.extend(sent.stream_id.to_le_bytes());
            }
            if format < 3 || self.repeats_extended_time {
                header.extend(&extended);
            }
            self.before.insert(sent.chunk_stream_id, (sent.clone(), time));
            let mut pieces = sent.payload.chunks(self.chunk_bytes);
            let mut chunks = VecDeque::from([[&header, pieces.next().unwrap_or_default()].concat()]);
            for piece in pieces {
                let mut chunk = basic_header(3, sent.chunk_stream_id);
                if self.repeats_extended_time {
                    chunk.extend(&extended);
                }
                chunk.extend(piece);
                chunks.push_back(chunk);
            }
            chunks
        }

        fn message(&mut self, sent: &Sent) -> Vec<u8> {
            self.chunks(sent).into_iter().flatten().collect()
        }

        fn set_chunk_size(&mut self, size: u32) -> Vec<u8> {
            let payload = size.to_be_bytes().to_vec();
            let bytes =
                self.message(&Sent { type_id: type_id::SET_CHUNK_SIZE, stream_id: 0, ..Sent::audio(2, 0, &payload) });
            self.chunk_bytes = usize::try_from(size & 0x7fff_ffff).unwrap();
            bytes
        }
    }

    fn basic_header(format: u8, chunk_stream_id: u32) -> Vec<u8> {
        let format = format << 6;
        match chunk_stream_id {
            2..64 => vec![format | u8::try_from(chunk_stream_id).unwrap()],
            64..320 => vec![format, u8::try_from(chunk_stream_id - 64).unwrap()],
            _ => {
                let [low, high] = u16::try_from(chunk_stream_id - 64).unwrap().to_le_bytes();
                vec![format | 1, low, high]
            }
        }
    }

    fn read_all(reader: &mut ChunkReader, mut input: &[u8]) -> Result<Vec<RawMessage>, Error> {
        let mut messages = Vec::new();
        while let Some(message) = reader.read(&mut input)? {
            messages.push(message);
        }
        assert!(input.is_empty());
        Ok(messages)
    }

    fn read(bytes: &[u8]) -> Result<Vec<(u32, Vec<u8>)>, Error> {
        let messages = read_all(&mut ChunkReader::new(0), bytes)?;
        Ok(messages.into_iter().map(|message| (message.timestamp, message.body.to_vec())).collect())
    }

    #[test]
    fn a_large_type_0_time_is_extended_with_and_without_repetition() {
        for repeats_extended_time in [true, false] {
            let mut writer = Writer { repeats_extended_time, ..Writer::new() };
            let payload = vec![7; 300];
            let bytes = [
                writer.message(&Sent::audio(4, 0x00FF_FFFF, &payload)),
                writer.message(&Sent::audio(4, 0x0100_0010, &payload)),
            ];
            let expected = [(0x00FF_FFFF, payload.clone()), (0x0100_0010, payload)];
            assert_eq!(read(&bytes.concat()).unwrap(), expected);
        }
    }

    #[test]
    fn a_delta_may_be_extended_although_it_is_small() {
        let bytes = [
            &[4, 0, 0, 5, 0, 0, 1, 8, 1, 0, 0, 0, b'a'][..],
            &[0x84, 0xff, 0xff, 0xff, 0, 0, 0, 20, b'b'],
            &[0xc4, 0, 0, 0, 20, b'c'],
            &[0xc4, b'd'],
            &[0x84, 0, 0, 1, b'e'],
        ];
        let expected = [(5, b"a"), (25, b"b"), (45, b"c"), (65, b"d"), (66, b"e")].map(|(t, p)| (t, p.to_vec()));
        assert_eq!(read(&bytes.concat()).unwrap(), expected);
    }

    #[test]
    fn type_3_after_type_0_adds_its_time_once_more() {
        let bytes = [&[4, 0, 0, 5, 0, 0, 1, 8, 1, 0, 0, 0, b'a'][..], &[0xc4, b'b'], &[0xc4, b'c']].concat();
        assert_eq!(read(&bytes).unwrap().iter().map(|(time, _)| *time).collect::<Vec<_>>(), [5, 10, 15]);
    }

    #[test]
    fn messages_without_payload_are_messages() {
        let mut writer = Writer::new();
        let bytes = [0, 10, 20, 30].map(|time| writer.message(&Sent::audio(4, time, &[])));
        let expected = [0, 10, 20, 30].map(|time| (time, vec![]));
        assert_eq!(read(&bytes.concat()).unwrap(), expected);
    }

    #[test]
    fn abort_drops_the_unfinished_message_of_its_chunk_stream() {
        let mut writer = Writer::new();
        let mut cut = writer.chunks(&Sent::audio(4, 1, &[1; 300]));
        cut.pop_back();
        let abort = Sent { type_id: type_id::ABORT, stream_id: 0, ..Sent::audio(2, 0, &[0, 0, 0, 4]) };
        let abort_unknown = Sent { payload: vec![0, 0, 0, 99], ..abort.clone() };
        let bytes = [
            cut.into_iter().flatten().collect(),
            writer.message(&abort),
            writer.message(&abort_unknown),
            writer.message(&Sent::audio(4, 2, &[2; 300])),
        ];
        let mut reader = ChunkReader::new(0);
        let messages = read_all(&mut reader, &bytes.concat()).unwrap();
        assert_eq!(messages.len(), 1);
        assert_eq!((messages[0].timestamp, &messages[0].body[..]), (2, &[2; 300][..]));
        assert_eq!((reader.abandoned(), reader.unfinished_bytes()), (1, 0));
    }

    #[test]
    fn a_new_header_within_a_message_begins_anew() {
        let mut writer = Writer::new();
        let cut = writer.chunks(&Sent::audio(4, 1, &[1; 300])).pop_front().unwrap();
        let bytes = [cut, Writer::new().message(&Sent::audio(4, 9, b"new"))].concat();
        let mut reader = ChunkReader::new(0);
        let messages = read_all(&mut reader, &bytes).unwrap();
        assert_eq!(messages.iter().map(|m| (m.timestamp, &m.body[..])).collect::<Vec<_>>(), [(9, &b"new"[..])]);
        assert_eq!((reader.abandoned(), reader.unfinished_bytes()), (1, 0));
    }

    #[test]
    fn any_chunk_size_but_0_is_taken() {
        let payload = vec![5; 70_000];
        for size in [1, 2, 65_536, 0xFF_FFFF, 0x0100_0000, 0x7FFF_FFFF] {
            let mut writer = Writer::new();
            let bytes = [writer.set_chunk_size(size), writer.message(&Sent::audio(4, 1, &payload))].concat();
            assert_eq!(read(&bytes).unwrap(), [(1, payload.clone())], "{size}");
        }
        // The first bit means nothing.
        for size in [0, 0x8000_0000] {
            let bytes = Writer::new().set_chunk_size(size);
            let at = bytes.len() as u64;
            assert_eq!(read(&bytes), Err(Error::Protocol { at, violation: Violation::ZeroChunkSize }));
        }
    }

    #[test]
    fn a_header_that_leans_on_nothing_is_an_error() {
        for format in [2, 3] {
            let violation = Violation::NoHeaderBefore { chunk_stream_id: 5, format };
            assert_eq!(read(&[format << 6 | 5, 0, 0, 0, 0]), Err(Error::Protocol { at: 0, violation }));
        }
        let type_1 = [0x45, 0, 0, 7, 0, 0, 1, 8, b'a'];
        assert_eq!(read(&type_1).unwrap(), [(7, b"a".to_vec())]);
    }

    #[test]
    fn short_control_messages_are_errors() {
        for type_id in [type_id::SET_CHUNK_SIZE, type_id::ABORT] {
            let bytes = Writer::new().message(&Sent { type_id, ..Sent::audio(2, 0, &[0, 0, 1]) });
            let violation = Violation::ShortControlMessage { type_id };
            assert_eq!(read(&bytes), Err(Error::Protocol { at: bytes.len() as u64, violation }));
        }
    }

    #[test]
    fn chunk_streams_and_message_lengths_are_limited() {
        let mut writer = Writer::new();
        let bytes: Vec<_> = (0..33).flat_map(|id| writer.message(&Sent::audio(3 + id, 0, b"a"))).collect();
        let error = read(&bytes).unwrap_err();
        assert!(error.to_string().ends_with("at most 32 chunk streams"), "{error}");

        let mut reader = ChunkReader::new(0);
        let too_long = [4, 0, 0, 0, 0x40, 0, 1, 9, 1, 0, 0, 0];
        let error = read_all(&mut reader, &too_long).unwrap_err();
        assert_eq!(error, Error::Limit { at: 12, what: "bytes in a message", limit: 4 << 20 });
    }

    #[test]
    fn what_unfinished_messages_hold_is_limited_in_all() {
        let mut reader = ChunkReader::new(0);
        read_all(&mut reader, &Writer::new().set_chunk_size(0xFF_FFFF)).unwrap();
        let piece = vec![0; 3 << 20];
        // 4 MiB announced on each of two chunk streams, 3 MiB sent on each.
        read_all(&mut reader, &[4, 0, 0, 0, 0x40, 0, 0, 9, 1, 0, 0, 0]).unwrap();
        read_all(&mut reader, &piece).unwrap();
        assert_eq!(reader.unfinished_bytes(), 3 << 20);
        read_all(&mut reader, &vec![0; 1 << 20]).unwrap();
        assert_eq!(reader.unfinished_bytes(), 0);

        let mut writer = Writer { chunk_bytes: 3 << 20, ..Writer::new() };
        let mut reader = ChunkReader::new(0);
        read_all(&mut reader, &Writer::new().set_chunk_size(3 << 20)).unwrap();
        for chunk_stream_id in [4, 5] {
            let sent = Sent::audio(chunk_stream_id, 0, &vec![0; 4 << 20]);
            let result = read_all(&mut reader, &writer.chunks(&sent)[0]);
            assert_eq!(result.is_err(), chunk_stream_id == 5);
        }
    }

    fn any_sent() -> impl Strategy<Value = Sent> {
        // Not 319: a header that starts 00 ff ff ff ff cannot be told from a repeated time of 2^24 - 1.
        let chunk_stream_id = prop_oneof![Just(3u32), Just(4), Just(63), Just(64), Just(318), Just(320), Just(65_599)];
        let timestamp =
            prop_oneof![0u32..100, Just(40), 0x00FF_FFF0u32..0x0100_0010, any::<u32>(), 0xFFFF_FFF0u32..=0xFFFF_FFFF];
        let type_id = prop_oneof![Just(type_id::AUDIO), Just(type_id::VIDEO), Just(type_id::COMMAND_AMF0)];
        let payload = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..10),
            prop::collection::vec(any::<u8>(), 120..140),
            prop::collection::vec(any::<u8>(), 0..2000)
        ];
        (chunk_stream_id, timestamp, type_id, 0u32..2, payload).prop_map(
            |(chunk_stream_id, timestamp, type_id, stream_id, payload)| Sent {
                chunk_stream_id,
                timestamp,
                type_id,
                stream_id,
                payload,
            },
        )
    }

    /// The chunks of all messages, interleaved; and the messages in the order in which they become whole.
    fn interleave(writer: &mut Writer, all: Vec<Sent>, order: &[Index]) -> (Vec<u8>, Vec<Sent>) {
        let mut queues: Vec<(u32, VecDeque<Sent>)> = Vec::new();
        for sent in all {
            match queues.iter_mut().find(|(id, _)| *id == sent.chunk_stream_id) {
                Some((_, queue)) => queue.push_back(sent),
                None => queues.push((sent.chunk_stream_id, VecDeque::from([sent]))),
            }
        }
        let mut unfinished: HashMap<u32, VecDeque<Vec<u8>>> = HashMap::new();
        let (mut bytes, mut whole) = (Vec::new(), Vec::new());
        let mut order = order.iter().cycle();
        while !queues.is_empty() {
            let at = order.next().unwrap().index(queues.len());
            let (id, queue) = &mut queues[at];
            let chunks = unfinished.entry(*id).or_default();
            if chunks.is_empty() {
                *chunks = writer.chunks(&queue[0]);
            }
            bytes.extend(chunks.pop_front().unwrap());
            if chunks.is_empty() {
                whole.extend(queue.pop_front());
                if queue.is_empty() {
                    queues.remove(at);
                }
            }
        }
        (bytes, whole)
    }

    fn cut(bytes: &[u8], cuts: &[Index]) -> Vec<Vec<u8>> {
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([bytes.len()]).collect();
        ends.sort_unstable();
        let mut start = 0;
        ends.into_iter().map(|end| bytes[std::mem::replace(&mut start, end)..end].to_vec()).collect()
    }

    proptest! {
        #[test]
        fn what_was_sent_is_read_however_it_is_chunked_interleaved_and_cut(
            all in prop::collection::vec(any_sent(), 1..20),
            order in prop::collection::vec(any::<Index>(), 1..50),
            cuts in prop::collection::vec(any::<Index>(), 0..40),
            chunk_bytes in prop_oneof![1u32..10, Just(128), 100u32..3000],
            repeats_extended_time: bool,
            takes_blocks: bool,
        ) {
            let mut writer = Writer { repeats_extended_time, ..Writer::new() };
            let mut bytes = writer.set_chunk_size(chunk_bytes);
            let (chunks, mut whole) = interleave(&mut writer, all, &order);
            bytes.extend(chunks);
            // A reader may have to look beyond a message to know whether its times repeat.
            let last = Sent::audio(5, 0, b"the end");
            bytes.extend(writer.message(&last));
            whole.push(last);

            let mut reader = ChunkReader::new(0);
            reader.assembly.takes_blocks = takes_blocks;
            let mut read = Vec::new();
            for piece in cut(&bytes, &cuts) {
                read.extend(read_all(&mut reader, &piece).unwrap());
            }
            prop_assert_eq!(read.len(), whole.len());
            for (read, sent) in read.iter().zip(&whole) {
                prop_assert_eq!(
                    (read.type_id, read.timestamp, read.stream_id, &read.body[..]),
                    (sent.type_id, sent.timestamp, sent.stream_id, &sent.payload[..])
                );
            }
            prop_assert_eq!(reader.position, bytes.len() as u64);
            prop_assert_eq!(reader.unfinished_bytes, 0);

            let mut reader = ChunkReader::new(0);
            let one_by_one: Result<Vec<_>, _> = bytes.iter().map(|byte| read_all(&mut reader, &[*byte])).collect();
            prop_assert_eq!(one_by_one.unwrap().concat(), read);
        }

        #[test]
        fn what_another_serializer_writes_is_read(
            all in prop::collection::vec(any_sent(), 1..20),
            chunk_bytes in 1u32..3000,
        ) {
            let mut serializer = ChunkSerializer::new();
            let mut bytes = serializer.set_max_chunk_size(chunk_bytes, RtmpTimestamp::new(0)).unwrap().bytes;
            let mut timestamp = 0;
            let mut expected = Vec::new();
            // It sends nothing for an empty message, and its clock does not go back.
            for sent in all.into_iter().filter(|sent| !sent.payload.is_empty()) {
                timestamp += sent.timestamp % 0x0200_0000;
                let data = Bytes::from(sent.payload);
                expected.push((sent.type_id, timestamp, sent.stream_id, data.clone()));
                let payload = MessagePayload {
                    timestamp: RtmpTimestamp::new(timestamp),
                    type_id: sent.type_id,
                    message_stream_id: sent.stream_id,
                    data,
                };
                bytes.extend(serializer.serialize(&payload, false, false).unwrap().bytes);
            }
            let read = read_all(&mut ChunkReader::new(0), &bytes).unwrap();
            let read: Vec<_> = read.into_iter().map(|m| (m.type_id, m.timestamp, m.stream_id, m.body)).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn no_input_panics_and_any_cut_reads_the_same(
            bytes in prop::collection::vec(prop_oneof![4 => any::<u8>(), 1 => Just(0xffu8), 2 => Just(0u8), 2 => Just(0xc4u8), 1 => Just(4u8)], 0..600),
            cuts in prop::collection::vec(any::<Index>(), 0..20),
        ) {
            let read_cut = |pieces: Vec<Vec<u8>>| {
                let mut reader = ChunkReader::new(0);
                let mut messages = Vec::new();
                for piece in pieces {
                    let mut input = &piece[..];
                    loop {
                        match reader.read(&mut input) {
                            Ok(Some(message)) => messages.push(message),
                            Ok(None) => break,
                            Err(error) => return (messages, Some(error)),
                        }
                    }
                }
                (messages, None)
            };
            prop_assert_eq!(read_cut(vec![bytes.clone()]), read_cut(cut(&bytes, &cuts)));
        }
    }
}
