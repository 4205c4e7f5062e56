//! Messages: what chunks add up to (RTMP 1.0 §6, §7.1).

use bytes::{Buf, Bytes};

/// Media that a publisher sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it carries.
    pub kind: MessageKind,
    /// The publisher's clock in milliseconds; wraps at 2^32.
    pub timestamp: u32,
    /// The FLV tag body; never empty. A slice of a block shared with neighbouring messages of its kind: copy what is
    /// kept for long.
    pub body: Bytes,
}

/// What a media message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// §7.1.4 Audio, an FLV audio tag body.
    Audio,
    /// §7.1.5 Video, an FLV video tag body.
    Video,
    /// §7.1.2 Data in AMF0: `onMetaData` with or without `@setDataFrame` before it, and others.
    Data,
}

/// A whole message as the chunk stream delivered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawMessage {
    /// §6.1.1 message type.
    pub(super) type_id: u8,
    /// Milliseconds, wraps at 2^32.
    pub(super) timestamp: u32,
    /// The message stream, 0 for control.
    pub(super) stream_id: u32,
    /// The payload.
    pub(super) body: Bytes,
    /// Bytes received up to its end, the handshake included.
    pub(super) end: u64,
}

impl RawMessage {
    /// The media in it, if it is media.
    pub(super) fn into_media(self) -> Option<Message> {
        let Self { type_id, timestamp, body, .. } = self;
        match type_id {
            type_id::AUDIO => Some(Message { kind: MessageKind::Audio, timestamp, body }),
            type_id::VIDEO => Some(Message { kind: MessageKind::Video, timestamp, body }),
            type_id::DATA_AMF0 | type_id::DATA_AMF3 => {
                Some(Message { kind: MessageKind::Data, timestamp, body: without_amf3_envelope(type_id, body) })
            }
            _ => None,
        }
    }
}

/// Commands and data of the AMF3 types start with a zero byte, then comes AMF0; a name cannot start with that byte.
pub(super) fn without_amf3_envelope(type_id: u8, mut body: Bytes) -> Bytes {
    if matches!(type_id, type_id::COMMAND_AMF3 | type_id::DATA_AMF3) && body.first() == Some(&0) {
        body.advance(1);
    }
    body
}

/// §7.1.6: the messages in an aggregate message, which are FLV tags, each with a back pointer behind it. Their times keep
/// their distances, and the first has the time of the aggregate. A tag cut short ends it.
pub(super) fn split_aggregate(aggregate: RawMessage) -> impl Iterator<Item = RawMessage> {
    let RawMessage { timestamp, stream_id, mut body, end, .. } = aggregate;
    let mut first = None;
    std::iter::from_fn(move || {
        let header: [u8; TAG_HEADER_BYTES] = body.get(..TAG_HEADER_BYTES)?.try_into().ok()?;
        let [type_id, s0, s1, s2, t0, t1, t2, t3, ..] = header;
        let length = usize::try_from(u32::from_be_bytes([0, s0, s1, s2])).ok()?;
        let tag_timestamp = u32::from_be_bytes([t3, t0, t1, t2]);
        if body.len() - TAG_HEADER_BYTES < length {
            return None;
        }
        body.advance(TAG_HEADER_BYTES);
        // A copy, so that a small message that is held back does not keep the whole aggregate alive.
        let tag_body = Bytes::copy_from_slice(&body.split_to(length));
        body.advance(BACK_POINTER_BYTES.min(body.len()));
        let offset = tag_timestamp.wrapping_sub(*first.get_or_insert(tag_timestamp));
        Some(RawMessage { type_id, timestamp: timestamp.wrapping_add(offset), stream_id, body: tag_body, end })
    })
}

/// What a message type is called in the specification.
pub(super) fn type_name(type_id: u8) -> &'static str {
    match type_id {
        type_id::SET_CHUNK_SIZE => "Set Chunk Size",
        type_id::ABORT => "Abort",
        type_id::ACKNOWLEDGEMENT => "Acknowledgement",
        type_id::USER_CONTROL => "User Control",
        type_id::WINDOW_ACKNOWLEDGEMENT_SIZE => "Window Acknowledgement Size",
        type_id::SET_PEER_BANDWIDTH => "Set Peer Bandwidth",
        type_id::AUDIO => "Audio",
        type_id::VIDEO => "Video",
        type_id::DATA_AMF3 | type_id::DATA_AMF0 => "Data",
        type_id::COMMAND_AMF3 | type_id::COMMAND_AMF0 => "Command",
        type_id::AGGREGATE => "Aggregate",
        _ => "unknown",
    }
}

/// §5.4, §7.1: message types.
pub(super) mod type_id {
    pub(in super::super) const SET_CHUNK_SIZE: u8 = 1;
    pub(in super::super) const ABORT: u8 = 2;
    pub(in super::super) const ACKNOWLEDGEMENT: u8 = 3;
    pub(in super::super) const USER_CONTROL: u8 = 4;
    pub(in super::super) const WINDOW_ACKNOWLEDGEMENT_SIZE: u8 = 5;
    pub(in super::super) const SET_PEER_BANDWIDTH: u8 = 6;
    pub(in super::super) const AUDIO: u8 = 8;
    pub(in super::super) const VIDEO: u8 = 9;
    pub(in super::super) const DATA_AMF3: u8 = 15;
    pub(in super::super) const COMMAND_AMF3: u8 = 17;
    pub(in super::super) const DATA_AMF0: u8 = 18;
    pub(in super::super) const COMMAND_AMF0: u8 = 20;
    pub(in super::super) const AGGREGATE: u8 = 22;
}

/// Type (1 byte), size (3), timestamp (3 low, 1 high), stream id (3).
const TAG_HEADER_BYTES: usize = 11;
/// The size of the tag before, which nobody needs.
const BACK_POINTER_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(type_id: u8, timestamp: u32, body: &[u8]) -> Vec<u8> {
        let [high, rest @ ..] = timestamp.to_be_bytes();
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        let mut bytes = vec![type_id];
        bytes.extend(&length[1..]);
        bytes.extend(rest);
        bytes.extend([high, 0, 0, 0]);
        bytes.extend(body);
        bytes.extend((11 + u32::try_from(body.len()).unwrap()).to_be_bytes());
        bytes
    }

    fn aggregate(timestamp: u32, body: Vec<u8>) -> Vec<(u8, u32, Vec<u8>)> {
        let raw = RawMessage { type_id: type_id::AGGREGATE, timestamp, stream_id: 1, body: body.into(), end: 0 };
        split_aggregate(raw).map(|m| (m.type_id, m.timestamp, m.body.to_vec())).collect()
    }

    #[test]
    fn an_aggregate_is_split_and_its_times_are_relative_to_the_first() {
        let body = [tag(8, 0x0100_0000, b"a"), tag(9, 0x0100_0010, b"video"), tag(8, 0x00FF_FFFF, b"")].concat();
        assert_eq!(aggregate(5, body), [(8, 5, b"a".to_vec()), (9, 21, b"video".to_vec()), (8, 4, vec![])]);
    }

    #[test]
    fn an_aggregate_cut_short_keeps_its_whole_tags() {
        let body = [tag(8, 0, b"a"), tag(9, 1, b"video")].concat();
        let whole = 11 + 1 + 4;
        for length in 0..body.len() {
            // The back pointer of the last tag may be missing.
            let expected = usize::from(length >= whole - 4) + usize::from(length >= body.len() - 4);
            assert_eq!(aggregate(0, body[..length].to_vec()).len(), expected, "{length}");
        }
    }

    #[test]
    fn the_amf3_envelope_is_taken_off() {
        let raw = |type_id, body: &'static [u8]| RawMessage {
            type_id,
            timestamp: 0,
            stream_id: 1,
            body: body.into(),
            end: 0,
        };
        let media = raw(type_id::DATA_AMF3, &[0, 2, 0, 0]).into_media().unwrap();
        assert_eq!((media.kind, &media.body[..]), (MessageKind::Data, &[2, 0, 0][..]));
        assert_eq!(&raw(type_id::DATA_AMF3, &[2, 0, 0]).into_media().unwrap().body[..], [2, 0, 0]);
        assert_eq!(raw(type_id::COMMAND_AMF0, &[2, 0, 0]).into_media(), None);
    }
}
