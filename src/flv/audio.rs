//! Audio tags: FLV 10.1 §E.4.2, Enhanced RTMP v2 "Enhanced Audio".

use bytes::Bytes;

use super::{Error, FourCc, Reader, Tag, TagBody};

/// A message about an audio track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioTag {
    /// The publisher's number for the track; 0 outside Enhanced RTMP multitrack.
    pub track: u8,
    /// The codec.
    pub codec: FourCc,
    /// What it brings.
    pub packet: AudioPacket,
}

/// What an audio tag brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AudioPacket {
    /// A decoder configuration record, never empty.
    SequenceStart(Bytes),
    /// A coded audio frame, never empty.
    CodedFrames(Bytes),
    /// No more audio with this configuration.
    SequenceEnd,
}

/// Parses the body of an audio message. `None` when it says nothing: it is empty, or a header with nothing behind it (as
/// the sequence header `af 00` that ffmpeg sends when it relays MPEG-TS).
///
/// # Errors
/// When it is cut short within its header, or something that upscope does not carry.
pub fn parse_audio(timestamp: u32, body: &Bytes) -> Result<Option<Tag>, Error> {
    let mut reader = Reader { rest: body.clone(), part: "audio tag header" };
    if reader.rest.is_empty() {
        return Ok(None);
    }
    let header = reader.u8()?;
    let audio = match header >> 4 {
        EX_HEADER => enhanced(header, reader)?,
        format => legacy(format, reader)?,
    };
    Ok(audio.map(|audio| Tag { timestamp, body: TagBody::Audio(audio) }))
}

/// §E.4.2.1: sound format (rate, size and type, the other bits of the first byte, are not to be believed), for AAC a packet
/// type.
fn legacy(format: u8, mut reader: Reader) -> Result<Option<AudioTag>, Error> {
    let (codec, packet) = match format {
        10 => match reader.u8()? {
            0 => (FourCc::AAC, sequence_start(reader.rest)),
            1 => (FourCc::AAC, coded_frames(reader.rest)),
            other => return Err(Error::PacketType(other)),
        },
        2 | 14 => (FourCc::MP3, coded_frames(reader.rest)),
        other => return Err(Error::UnsupportedCodec { track: 0, codec: legacy_name(other) }),
    };
    Ok(packet.map(|packet| AudioTag { track: 0, codec, packet }))
}

/// Enhanced RTMP v2, `ExAudioTagHeader`.
fn enhanced(header: u8, mut reader: Reader) -> Result<Option<AudioTag>, Error> {
    let packet_type = reader.packet_type_behind_modifiers(header & 0b1111)?;
    let (packet_type, codec, track) = match packet_type {
        MULTITRACK => reader.multitrack()?,
        packet_type => (packet_type, FourCc(reader.array()?), 0),
    };
    let packet = match packet_type {
        SEQUENCE_START => sequence_start(reader.rest),
        CODED_FRAMES => coded_frames(reader.rest),
        SEQUENCE_END => Some(AudioPacket::SequenceEnd),
        // Which speaker is which; the decoder configuration records say it too.
        MULTICHANNEL_CONFIG => None,
        other => return Err(Error::PacketType(other)),
    };
    Ok(packet.map(|packet| AudioTag { track, codec, packet }))
}

fn sequence_start(record: Bytes) -> Option<AudioPacket> {
    (!record.is_empty()).then_some(AudioPacket::SequenceStart(record))
}

fn coded_frames(data: Bytes) -> Option<AudioPacket> {
    (!data.is_empty()).then_some(AudioPacket::CodedFrames(data))
}

fn legacy_name(format: u8) -> &'static str {
    match format {
        0 | 3 => "linear PCM",
        1 => "ADPCM",
        4..=6 => "Nellymoser",
        7 => "G.711 A-law",
        8 => "G.711 mu-law",
        11 => "Speex",
        15 => "device-specific sound",
        _ => "an unknown legacy audio codec",
    }
}

/// The sound format of an `ExAudioTagHeader`.
const EX_HEADER: u8 = 9;

const SEQUENCE_START: u8 = 0;
const CODED_FRAMES: u8 = 1;
const SEQUENCE_END: u8 = 2;
const MULTICHANNEL_CONFIG: u8 = 4;
const MULTITRACK: u8 = 5;
