//! What we say: protocol control, results and status (RTMP 1.0 §5.4, §7.1.7, §7.2), in words that encoders know.

use bytes::{Bytes, BytesMut};
use rml_amf0::Amf0Value;
use rml_rtmp::chunk_io::{ChunkSerializationError, ChunkSerializer};
use rml_rtmp::messages::{PeerBandwidthLimitType, RtmpMessage, UserControlEventType};
use rml_rtmp::time::RtmpTimestamp;

use super::limits;

/// Bytes for the peer, in order.
pub(super) struct Replies {
    serializer: ChunkSerializer,
    chunk_bytes: usize,
    bytes: BytesMut,
}

impl Replies {
    pub(super) fn new() -> Self {
        Self { serializer: ChunkSerializer::new(), chunk_bytes: DEFAULT_CHUNK_BYTES, bytes: BytesMut::new() }
    }

    /// What has not been polled yet.
    pub(super) fn poll(&mut self) -> Option<Bytes> {
        // Taken whole, so that an idle connection keeps no buffer.
        (!self.bytes.is_empty()).then(|| std::mem::take(&mut self.bytes).freeze())
    }

    /// Bytes outside the chunk stream: the handshake.
    pub(super) fn send_raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// §5.4.3.
    pub(super) fn acknowledgement(&mut self, sequence_number: u32) {
        self.send(RtmpMessage::Acknowledgement { sequence_number }, 0);
    }

    /// §7.1.7 Ping Response.
    pub(super) fn pong(&mut self, timestamp: u32) {
        self.user_control(UserControlEventType::PingResponse, None, Some(timestamp));
    }

    /// §7.1.7 Stream Begin.
    pub(super) fn stream_begin(&mut self, stream_id: u32) {
        self.user_control(UserControlEventType::StreamBegin, Some(stream_id), None);
    }

    /// The control messages that come before the answer to `connect`: windows and our chunk size.
    pub(super) fn begin(&mut self) {
        self.send(RtmpMessage::WindowAcknowledgement { size: WINDOW_BYTES }, 0);
        self.send(RtmpMessage::SetPeerBandwidth { size: WINDOW_BYTES, limit_type: PeerBandwidthLimitType::Dynamic }, 0);
        if let Ok(packet) = self.serializer.set_max_chunk_size(CHUNK_BYTES, RtmpTimestamp::new(0)) {
            self.bytes.extend_from_slice(&packet.bytes);
            self.chunk_bytes = CHUNK_BYTES as usize;
        }
    }

    /// §7.2.1.1: the answer to `connect`. To a peer that speaks Enhanced RTMP it names what we pass on.
    pub(super) fn connected(&mut self, transaction_id: f64, object_encoding: f64, is_enhanced: bool) {
        let properties = object([("fmsVer", text("FMS/3,0,1,123")), ("capabilities", Amf0Value::Number(31.0))]);
        let mut information = status_entries("status", "NetConnection.Connect.Success", "Connection succeeded.");
        information.push(("objectEncoding", Amf0Value::Number(object_encoding)));
        if is_enhanced {
            let forward_any = || object([("*", Amf0Value::Number(FOUR_CC_CAN_FORWARD))]);
            information.push(("videoFourCcInfoMap", forward_any()));
            information.push(("audioFourCcInfoMap", forward_any()));
            information.push(("capsEx", Amf0Value::Number(CAPS_EX)));
        }
        self.command("_result", transaction_id, properties, vec![object(information)], 0);
    }

    /// A `_result` with one value.
    pub(super) fn result(&mut self, transaction_id: f64, value: Amf0Value) {
        self.command("_result", transaction_id, Amf0Value::Null, vec![value], 0);
    }

    /// An `_error` with a status.
    pub(super) fn error(&mut self, transaction_id: f64, code: &str, description: &str) {
        let information = object(status_entries("error", code, description));
        self.command("_error", transaction_id, Amf0Value::Null, vec![information], 0);
    }

    /// What Flash Media Server sends on `FCPublish` and `FCUnpublish`.
    pub(super) fn on_fc(&mut self, name: &str, code: &str, stream: &str) {
        let information = object(status_entries("status", code, stream));
        self.command(name, 0.0, Amf0Value::Null, vec![information], 0);
    }

    /// §7.2.2: `onStatus` on a message stream.
    pub(super) fn status(&mut self, stream_id: u32, level: &str, code: &str, description: &str) {
        let information = object(status_entries(level, code, description));
        self.command("onStatus", 0.0, Amf0Value::Null, vec![information], stream_id);
    }

    fn user_control(&mut self, event_type: UserControlEventType, stream_id: Option<u32>, timestamp: Option<u32>) {
        let timestamp = timestamp.map(RtmpTimestamp::new);
        self.send(RtmpMessage::UserControl { event_type, stream_id, buffer_length: None, timestamp }, 0);
    }

    fn command(
        &mut self,
        name: &str,
        transaction_id: f64,
        command_object: Amf0Value,
        additional_arguments: Vec<Amf0Value>,
        stream_id: u32,
    ) {
        let command_name = name.to_owned();
        let message = RtmpMessage::Amf0Command { command_name, transaction_id, command_object, additional_arguments };
        self.send(message, stream_id);
    }

    fn send(&mut self, message: RtmpMessage, stream_id: u32) {
        let sent = self.serialize(message, stream_id);
        debug_assert!(sent.is_ok(), "our texts are short: {sent:?}");
    }

    fn serialize(&mut self, message: RtmpMessage, stream_id: u32) -> Result<(), ChunkSerializationError> {
        let payload = message.into_message_payload(RtmpTimestamp::new(0), stream_id)?;
        // Some encoders want full headers on what is not media; only a message within a chunk may have one.
        let fits_a_chunk = payload.data.len() <= self.chunk_bytes;
        let packet = self.serializer.serialize(&payload, fits_a_chunk, false)?;
        self.bytes.extend_from_slice(&packet.bytes);
        Ok(())
    }
}

/// A text value, cut at a length that AMF0 strings and patience allow.
pub(super) fn text(value: &str) -> Amf0Value {
    let end = value.floor_char_boundary(limits::REPLY_TEXT_BYTES);
    Amf0Value::Utf8String(value[..end].to_owned())
}

fn status_entries(level: &str, code: &str, description: &str) -> Vec<(&'static str, Amf0Value)> {
    vec![("level", text(level)), ("code", text(code)), ("description", text(description))]
}

fn object(entries: impl IntoIterator<Item = (&'static str, Amf0Value)>) -> Amf0Value {
    Amf0Value::Object(entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// §5.4.4, §5.4.5: how much we let a peer send before it hears of us; also how often we acknowledge unless the peer asks
/// otherwise. As in Flash Media Server.
pub(super) const WINDOW_BYTES: u32 = 2_500_000;
/// The chunk size for what we send. ffmpeg sends with the size that it receives, so a large one saves it and us headers;
/// 60,000 is what SRS sends, so the field knows it.
const CHUNK_BYTES: u32 = 60_000;
/// The chunk size before that is set.
const DEFAULT_CHUNK_BYTES: usize = 128;
/// Enhanced RTMP v2 "`FourCcInfoMask`": we neither decode nor encode.
const FOUR_CC_CAN_FORWARD: f64 = 4.0;
/// Enhanced RTMP v2 "`CapsExMask`": multitrack (2), `ModEx` (4) and its nanoseconds (8).
const CAPS_EX: f64 = 14.0;
