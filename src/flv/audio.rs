//! Audio tags: FLV 10.1 §E.4.2, Enhanced RTMP v2 "Enhanced Audio".

use bytes::Bytes;

use super::{Body, Error, FourCc, Modified, Reader, Tag, TagBody, Tags};

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

/// Parses the body of an audio message. No tag when it says nothing: it is empty, or a header with nothing behind it (as
/// the sequence header `af 00` that ffmpeg sends when it relays MPEG-TS).
///
/// # Errors
/// When it is cut short within its header, or something that upscope does not carry.
pub fn parse_audio(timestamp: u32, body: &Bytes) -> Result<Tags, Error> {
    let mut reader = Reader { rest: body.clone(), part: "audio tag header" };
    if reader.rest.is_empty() {
        return Ok(Tags::default());
    }
    let header = reader.u8()?;
    match header >> 4 {
        EX_HEADER => enhanced(timestamp, header, reader),
        format => Ok(legacy(format, reader)?.map(|audio| tag(timestamp, audio)).into()),
    }
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
        // Not carried; it is told by its name what is left out.
        other => (uncarried(other), coded_frames(reader.rest)),
    };
    Ok(packet.map(|packet| AudioTag { track: 0, codec, packet }))
}

/// Enhanced RTMP v2, `ExAudioTagHeader`.
fn enhanced(timestamp: u32, header: u8, mut reader: Reader) -> Result<Tags, Error> {
    // Sound is counted in samples, finer than any offset.
    let Modified { packet_type, .. } = reader.modified(header & 0b1111)?;
    if packet_type == MULTITRACK {
        let (packet_type, bodies) = reader.multitrack()?;
        let mut tags = Vec::with_capacity(bodies.len());
        for body in bodies {
            tags.extend(packet(packet_type, body)?.map(|audio| tag(timestamp, audio)));
        }
        return Ok(tags.into());
    }
    let body = Body { codec: FourCc(reader.array()?), track: 0, rest: reader.rest };
    Ok(packet(packet_type, body)?.map(|audio| tag(timestamp, audio)).into())
}

fn packet(packet_type: u8, Body { codec, track, rest }: Body) -> Result<Option<AudioTag>, Error> {
    let packet = match packet_type {
        SEQUENCE_START => sequence_start(rest),
        CODED_FRAMES => coded_frames(rest),
        SEQUENCE_END => Some(AudioPacket::SequenceEnd),
        // Which speaker is which; the decoder configuration records and frame headers say it too, and are what decoders heed.
        MULTICHANNEL_CONFIG => None,
        other => return Err(Error::PacketType(other)),
    };
    Ok(packet.map(|packet| AudioTag { track, codec, packet }))
}

fn tag(timestamp: u32, audio: AudioTag) -> Tag {
    Tag { timestamp, body: TagBody::Audio(audio) }
}

fn sequence_start(record: Bytes) -> Option<AudioPacket> {
    (!record.is_empty()).then_some(AudioPacket::SequenceStart(record))
}

fn coded_frames(data: Bytes) -> Option<AudioPacket> {
    (!data.is_empty()).then_some(AudioPacket::CodedFrames(data))
}

fn uncarried(format: u8) -> FourCc {
    FourCc(*match format {
        0 | 3 => b"lpcm",
        1 => b"adpc",
        4..=6 => b"nmos",
        7 => b"alaw",
        8 => b"ulaw",
        11 => b"spex",
        15 => b"devi",
        _ => b"auau",
    })
}

/// The sound format of an `ExAudioTagHeader`.
const EX_HEADER: u8 = 9;

const SEQUENCE_START: u8 = 0;
const CODED_FRAMES: u8 = 1;
const SEQUENCE_END: u8 = 2;
const MULTICHANNEL_CONFIG: u8 = 4;
const MULTITRACK: u8 = 5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::samples::{FFMPEG_AAC, hex};

    fn audio(body: &str) -> Result<Option<AudioTag>, Error> {
        let mut all = several(body)?;
        assert!(all.len() < 2, "{all:?}");
        Ok(all.pop())
    }

    fn several(body: &str) -> Result<Vec<AudioTag>, Error> {
        let audio = |tag| match tag {
            Tag { timestamp: 1234, body: TagBody::Audio(audio) } => audio,
            other => panic!("{other:?}"),
        };
        Ok(parse_audio(1234, &hex(body))?.map(audio).collect())
    }

    fn tag(track: u8, codec: FourCc, packet: AudioPacket) -> Result<Option<AudioTag>, Error> {
        Ok(Some(AudioTag { track, codec, packet }))
    }

    #[test]
    fn legacy_and_enhanced_come_out_alike() {
        let start = tag(0, FourCc::AAC, AudioPacket::SequenceStart(hex(FFMPEG_AAC)));
        assert_eq!(audio(&format!("af00{FFMPEG_AAC}")), start);
        assert_eq!(audio(&format!("90 6d703461{FFMPEG_AAC}")), start);

        let frame = tag(0, FourCc::AAC, AudioPacket::CodedFrames(hex("211004")));
        assert_eq!(audio("af01211004"), frame);
        // The rate, size and type in the first byte do not matter.
        assert_eq!(audio("a001211004"), frame);
        assert_eq!(audio("91 6d703461 211004"), frame);

        assert_eq!(audio("2fff fb90"), tag(0, FourCc::MP3, AudioPacket::CodedFrames(hex("fffb90"))));
        assert_eq!(audio("91 2e6d7033 fffb90"), tag(0, FourCc::MP3, AudioPacket::CodedFrames(hex("fffb90"))));
    }

    #[test]
    fn what_says_nothing_is_none() {
        // Empty; the sequence header that ffmpeg sends when it relays MPEG-TS; a frame of no bytes; ffmpeg 9's speakers.
        for body in ["", "af00", "af01", "2f", "90 6d703461", "91 6d703461", "94 4f707573 010200000003"] {
            assert_eq!(audio(body), Ok(None), "{body}");
        }
    }

    #[test]
    fn other_tracks_are_never_track_0() {
        // As ffmpeg 9 sends them.
        assert_eq!(
            audio("95 00 6d703461 01 119056e500"),
            tag(1, FourCc::AAC, AudioPacket::SequenceStart(hex("119056e500")))
        );
        assert_eq!(audio("95 01 6d703461 01 dc004c61"), tag(1, FourCc::AAC, AudioPacket::CodedFrames(hex("dc004c61"))));
        assert_eq!(audio("95 04 6d703461 01 010200000003"), Ok(None));
        assert_eq!(audio("95 02 6d703461 01"), tag(1, FourCc::AAC, AudioPacket::SequenceEnd));
    }

    #[test]
    fn several_tracks_in_one_message_come_apart() {
        let frame = |track, codec, data| AudioTag { track, codec, packet: AudioPacket::CodedFrames(hex(data)) };
        let one_codec = "95 11 6d703461 00 000001 21 03 000002 2233 04 000000";
        assert_eq!(several(one_codec), Ok(vec![frame(0, FourCc::AAC, "21"), frame(3, FourCc::AAC, "2233")]));
        let many_codecs = "95 21 6d703461 00 000001 21 4f707573 01 000002 7c0c";
        assert_eq!(several(many_codecs), Ok(vec![frame(0, FourCc::AAC, "21"), frame(1, FourCc::OPUS, "7c0c")]));
        assert_eq!(several("95 11 6d703461 00 000002 21"), Err(Error::CutShort("multitrack body")));
        assert_eq!(several("95 11 6d703461 00 0000"), Err(Error::CutShort("audio tag header")));
        assert_eq!(
            several("95 31 6d703461").unwrap_err().to_string(),
            "this kind of multitrack message is not supported"
        );
    }

    #[test]
    fn enhanced_codecs_are_named_by_their_four_characters() {
        let head = "4f707573486561640102380180bb0000000000";
        assert_eq!(audio(&format!("90 4f707573 {head}")), tag(0, FourCc::OPUS, AudioPacket::SequenceStart(hex(head))));
        assert_eq!(FourCc::OPUS.to_string(), "Opus");
        assert_eq!(FourCc(*b"a\n\x00\xff").to_string(), r"a\n\x00\xff");
        // Behind a nanosecond offset.
        assert_eq!(audio("97 02 000001 01 4f707573 7c0c"), tag(0, FourCc::OPUS, AudioPacket::CodedFrames(hex("7c0c"))));
    }

    #[test]
    fn what_cannot_be_carried_is_named() {
        let name = |body: &str| audio(body).unwrap().unwrap().codec.uncarried_name();
        assert_eq!(name("b6 00"), Some("Speex"));
        assert_eq!(name("3f 00"), Some("linear PCM"));
        assert_eq!(name("cf 00"), Some("an unknown legacy audio codec"));
        assert_eq!(name("af01 00"), None);
        assert_eq!(audio("af02"), Err(Error::PacketType(2)));
        assert_eq!(audio("93 6d703461"), Err(Error::PacketType(3)));
        for body in ["af", "90", "90 6d70", "95", "95 01 6d703461", "97 02 00"] {
            assert_eq!(audio(body), Err(Error::CutShort("audio tag header")), "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(first: u8, rest in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse_audio(0, &[&[first][..], &rest].concat().into());
        }
    }
}
