//! Video tags: FLV 10.1 §E.4.3, Enhanced RTMP v2 "Enhanced Video".

use bytes::Bytes;

use super::{Error, FourCc, Reader, Tag, TagBody};

/// A message about a video track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoTag {
    /// The publisher's number for the track; 0 outside Enhanced RTMP multitrack.
    pub track: u8,
    /// The codec.
    pub codec: FourCc,
    /// The publisher calls it a key frame.
    pub is_key: bool,
    /// What it brings.
    pub packet: VideoPacket,
}

/// What a video tag brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VideoPacket {
    /// A decoder configuration record, never empty.
    SequenceStart(Bytes),
    /// A coded picture, never empty.
    CodedFrames {
        /// Presentation time minus decode time, in milliseconds; may be negative.
        composition_ms: i32,
        /// The picture, for H.264 as length-prefixed NAL units.
        data: Bytes,
    },
    /// No more pictures with this configuration.
    SequenceEnd,
}

/// Parses the body of a video message. `None` when it says nothing: it is empty, a command frame, metadata of a picture, or
/// a header with nothing behind it.
///
/// # Errors
/// When it is cut short within its header, or something that upscope does not carry.
pub fn parse_video(timestamp: u32, body: &Bytes) -> Result<Option<Tag>, Error> {
    let mut reader = Reader { rest: body.clone(), part: "video tag header" };
    if reader.rest.is_empty() {
        return Ok(None);
    }
    let header = reader.u8()?;
    let is_enhanced = header & 0x80 != 0;
    let video = if is_enhanced { enhanced(header, reader)? } else { legacy(header, reader)? };
    Ok(video.map(|video| Tag { timestamp, body: TagBody::Video(video) }))
}

/// §E.4.3.1: frame type, codec, and for H.264 packet type and composition time.
fn legacy(header: u8, mut reader: Reader) -> Result<Option<VideoTag>, Error> {
    let frame_type = header >> 4;
    if frame_type == COMMAND_FRAME {
        return Ok(None);
    }
    let codec = match header & 0b1111 {
        7 => FourCc::AVC,
        // In no specification: how encoders sent H.265 before Enhanced RTMP.
        12 => FourCc::HEVC,
        other => return Err(Error::UnsupportedCodec { track: 0, codec: legacy_name(other) }),
    };
    let packet_type = reader.u8()?;
    // librtmp clients end a sequence without a composition time.
    let packet = match packet_type {
        SEQUENCE_END => Some(VideoPacket::SequenceEnd),
        SEQUENCE_START => {
            reader.skip(3)?;
            sequence_start(reader.rest)
        }
        CODED_FRAMES => {
            let composition_ms = reader.i24()?;
            coded_frames(composition_ms, reader.rest)
        }
        other => return Err(Error::PacketType(other)),
    };
    Ok(packet.map(|packet| VideoTag { track: 0, codec, is_key: is_key(frame_type), packet }))
}

/// Enhanced RTMP v2, `ExVideoTagHeader`.
fn enhanced(header: u8, mut reader: Reader) -> Result<Option<VideoTag>, Error> {
    let frame_type = header >> 4 & 0b111;
    let packet_type = reader.packet_type_behind_modifiers(header & 0b1111)?;
    if packet_type != METADATA && frame_type == COMMAND_FRAME {
        return Ok(None);
    }
    let (packet_type, codec, track) = match packet_type {
        MULTITRACK => reader.multitrack()?,
        packet_type => (packet_type, FourCc(reader.array()?), 0),
    };
    let packet = match packet_type {
        SEQUENCE_START => sequence_start(reader.rest),
        CODED_FRAMES => {
            let has_composition_time = matches!(codec, FourCc::AVC | FourCc::HEVC | FourCc::VVC);
            let composition_ms = if has_composition_time { reader.i24()? } else { 0 };
            coded_frames(composition_ms, reader.rest)
        }
        CODED_FRAMES_X => coded_frames(0, reader.rest),
        SEQUENCE_END => Some(VideoPacket::SequenceEnd),
        METADATA => None,
        MPEG2TS_SEQUENCE_START => return Err(Error::Unsupported("MPEG-TS sequence headers are")),
        other => return Err(Error::PacketType(other)),
    };
    Ok(packet.map(|packet| VideoTag { track, codec, is_key: is_key(frame_type), packet }))
}

fn sequence_start(record: Bytes) -> Option<VideoPacket> {
    (!record.is_empty()).then_some(VideoPacket::SequenceStart(record))
}

fn coded_frames(composition_ms: i32, data: Bytes) -> Option<VideoPacket> {
    (!data.is_empty()).then_some(VideoPacket::CodedFrames { composition_ms, data })
}

/// 1 key frame, 4 key frame made by a server; 2 and 3 are inter frames.
fn is_key(frame_type: u8) -> bool {
    matches!(frame_type, 1 | 4)
}

fn legacy_name(codec: u8) -> &'static str {
    match codec {
        1 => "JPEG",
        2 => "Sorenson H.263",
        3 => "Screen video",
        4 => "On2 VP6",
        5 => "On2 VP6 with alpha channel",
        6 => "Screen video version 2",
        _ => "an unknown legacy video codec",
    }
}

const COMMAND_FRAME: u8 = 5;

const SEQUENCE_START: u8 = 0;
const CODED_FRAMES: u8 = 1;
const SEQUENCE_END: u8 = 2;
const CODED_FRAMES_X: u8 = 3;
const METADATA: u8 = 4;
const MPEG2TS_SEQUENCE_START: u8 = 5;
const MULTITRACK: u8 = 6;
