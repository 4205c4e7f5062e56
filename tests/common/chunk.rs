//! A chunk stream reader (RTMP 1.0 §5.3) that is simple and slow, and shares nothing with the program's.

use std::collections::HashMap;

use super::session::number;

/// Takes bytes, gives complete messages with the places of their bytes in the stream.
pub(crate) struct ChunkParser {
    buffer: Vec<u8>,
    /// Place of `buffer[0]` in the stream.
    base: usize,
    chunk_size: usize,
    streams: HashMap<u32, ChunkStream>,
}

/// A complete message.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) kind: u8,
    pub(crate) timestamp: u32,
    pub(crate) stream_id: u32,
    pub(crate) payload: Vec<u8>,
    /// Where each byte of the payload stands in the stream.
    pub(crate) payload_places: Vec<usize>,
    /// Where message stream ids of its chunk headers stand in the stream.
    pub(crate) stream_id_places: Vec<usize>,
    /// Where it ends in the stream.
    pub(crate) end: usize,
}

#[derive(Default)]
struct ChunkStream {
    timestamp: u32,
    /// The timestamp field in force: absolute or a difference.
    field: u32,
    is_extended: bool,
    length: usize,
    kind: u8,
    stream_id: u32,
    unfinished: Option<Message>,
}

impl ChunkParser {
    /// A reader whose first byte is at `base` in the stream.
    pub(crate) fn new(base: usize) -> Self {
        Self { buffer: Vec::new(), base, chunk_size: 128, streams: HashMap::new() }
    }

    /// Takes `bytes`, gives what they complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Message> {
        self.buffer.extend_from_slice(bytes);
        let mut messages = Vec::new();
        let mut at = 0;
        while let Some((used, message)) = self.chunk(at) {
            at += used;
            let Some(message) = message else { continue };
            match message.kind {
                1 => self.chunk_size = number(&message.payload[..4]) & 0x7FFF_FFFF,
                2 => {
                    let aborted = u32::try_from(number(&message.payload[..4])).unwrap();
                    if let Some(stream) = self.streams.get_mut(&aborted) {
                        stream.unfinished = None;
                    }
                }
                _ => {}
            }
            messages.push(message);
        }
        self.buffer.drain(..at);
        self.base += at;
        messages
    }

    /// Reads the chunk at `buffer[at..]`: its bytes, and the message when it completes one. `None` when it is not all
    /// there yet.
    fn chunk(&mut self, at: usize) -> Option<(usize, Option<Message>)> {
        let bytes = &self.buffer[at..];
        let format = *bytes.first()? >> 6;
        let (mut offset, id) = match bytes[0] & 63 {
            0 => (2, 64 + usize::from(*bytes.get(1)?)),
            1 => (3, 64 + usize::from(*bytes.get(1)?) + 256 * usize::from(*bytes.get(2)?)),
            id => (1, usize::from(id)),
        };
        let stream = self.streams.entry(u32::try_from(id).unwrap()).or_default();
        let have = stream.unfinished.as_ref().map_or(0, |message| message.payload.len());
        let header = bytes.get(offset..offset + [11, 7, 3, 0][usize::from(format)])?;
        let mut stream_id_place = None;
        let (mut field, mut is_extended) = (stream.field, stream.is_extended);
        let (mut length, mut kind, mut stream_id) = (stream.length, stream.kind, stream.stream_id);
        if format <= 2 {
            field = u32::try_from(number(&header[..3])).unwrap();
            is_extended = field == 0xFF_FFFF;
        }
        if format <= 1 {
            length = number(&header[3..6]);
            kind = header[6];
        }
        if format == 0 {
            stream_id = u32::from_le_bytes(header[7..11].try_into().unwrap());
            stream_id_place = Some(self.base + at + offset + 7);
        }
        offset += header.len();
        if is_extended {
            let extended = bytes.get(offset..offset + 4).map(|field| u32::try_from(number(field)).unwrap());
            if format <= 2 {
                field = extended?;
                offset += 4;
            } else if extended == Some(field) {
                offset += 4;
            } else if extended.is_none() && bytes.len() - offset < (length - have).min(self.chunk_size) {
                // Some clients do not repeat the field in type 3 chunks, so the last chunk may be shorter than it.
                return None;
            }
        }
        let payload = bytes.get(offset..offset + (length - have).min(self.chunk_size))?;

        if stream.unfinished.is_none() {
            stream.timestamp = if format == 0 { field } else { stream.timestamp.wrapping_add(field) };
        }
        (stream.field, stream.is_extended) = (field, is_extended);
        (stream.length, stream.kind, stream.stream_id) = (length, kind, stream_id);
        let mut message = stream.unfinished.take().unwrap_or_else(|| Message {
            kind,
            timestamp: stream.timestamp,
            stream_id,
            payload: Vec::new(),
            payload_places: Vec::new(),
            stream_id_places: Vec::new(),
            end: 0,
        });
        let used = offset + payload.len();
        message.payload.extend_from_slice(payload);
        message.payload_places.extend(self.base + at + offset..self.base + at + used);
        message.stream_id_places.extend(stream_id_place);
        message.end = self.base + at + used;
        if message.payload.len() < length {
            stream.unfinished = Some(message);
            return Some((used, None));
        }
        Some((used, Some(message)))
    }
}
