//! Video tags: FLV 10.1 §E.4.3, Enhanced RTMP v2 "Enhanced Video".

use bytes::Bytes;

use super::{Body, Error, FourCc, Modified, Reader, Tag, TagBody, Tags, colour_info};
use crate::codec::Light;

/// A message about a video track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoTag {
    /// The publisher's number for the track; 0 outside Enhanced RTMP multitrack.
    pub track: u8,
    /// The codec.
    pub codec: FourCc,
    /// The publisher calls it a key frame.
    pub is_key: bool,
    /// How much later than its milliseconds say the picture is shown, in nanoseconds; less than a millisecond.
    pub offset_ns: u32,
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
    /// How values become light, where the codec does not say it.
    Light(Light),
    /// No more pictures with this configuration.
    SequenceEnd,
}

/// Parses the body of a video message. No tag when it says nothing: it is empty, a command frame, or a header with
/// nothing behind it.
///
/// # Errors
/// When it is cut short within its header, or something that upscope does not carry.
pub fn parse_video(timestamp: u32, body: &Bytes) -> Result<Tags, Error> {
    let mut reader = Reader { rest: body.clone(), part: "video tag header" };
    if reader.rest.is_empty() {
        return Ok(Tags::default());
    }
    let header = reader.u8()?;
    let is_enhanced = header & 0x80 != 0;
    if is_enhanced {
        return enhanced(timestamp, header, reader);
    }
    Ok(legacy(header, reader)?.map(|video| tag(timestamp, video)).into())
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
        // Not carried; it is told by its name what is left out.
        other => {
            let video = |packet| VideoTag {
                track: 0,
                codec: uncarried(other),
                is_key: is_key(frame_type),
                offset_ns: 0,
                packet,
            };
            return Ok(coded_frames(0, reader.rest).map(video));
        }
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
    Ok(packet.map(|packet| VideoTag { track: 0, codec, is_key: is_key(frame_type), offset_ns: 0, packet }))
}

/// Enhanced RTMP v2, `ExVideoTagHeader`.
fn enhanced(timestamp: u32, header: u8, mut reader: Reader) -> Result<Tags, Error> {
    let frame_type = header >> 4 & 0b111;
    let Modified { packet_type, offset_ns } = reader.modified(header & 0b1111)?;
    if packet_type != METADATA && frame_type == COMMAND_FRAME {
        return Ok(Tags::default());
    }
    let is_key = is_key(frame_type);
    if packet_type == MULTITRACK {
        let (packet_type, bodies) = reader.multitrack()?;
        let mut tags = Vec::with_capacity(bodies.len());
        for body in bodies {
            tags.extend(
                packet(packet_type, is_key, body)?.map(|video| tag(timestamp, VideoTag { offset_ns, ..video })),
            );
        }
        return Ok(tags.into());
    }
    let body = Body { codec: FourCc(reader.array()?), track: 0, rest: reader.rest };
    Ok(packet(packet_type, is_key, body)?.map(|video| tag(timestamp, VideoTag { offset_ns, ..video })).into())
}

fn packet(packet_type: u8, is_key: bool, Body { codec, track, rest }: Body) -> Result<Option<VideoTag>, Error> {
    let packet = match packet_type {
        SEQUENCE_START => sequence_start(rest),
        CODED_FRAMES => {
            let mut reader = Reader { rest, part: "video tag header" };
            let has_composition_time = matches!(codec, FourCc::AVC | FourCc::HEVC | FourCc::VVC);
            let composition_ms = if has_composition_time { reader.i24()? } else { 0 };
            coded_frames(composition_ms, reader.rest)
        }
        CODED_FRAMES_X => coded_frames(0, rest),
        SEQUENCE_END => Some(VideoPacket::SequenceEnd),
        METADATA => colour_info::parse(&rest).map(VideoPacket::Light),
        MPEG2TS_SEQUENCE_START => return Err(Error::Unsupported("MPEG-TS sequence headers are")),
        other => return Err(Error::PacketType(other)),
    };
    Ok(packet.map(|packet| VideoTag { track, codec, is_key, offset_ns: 0, packet }))
}

fn tag(timestamp: u32, video: VideoTag) -> Tag {
    Tag { timestamp, body: TagBody::Video(video) }
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

fn uncarried(codec: u8) -> FourCc {
    FourCc(*match codec {
        1 => b"jpeg",
        2 => b"FLV1",
        3 => b"FSV1",
        4 => b"VP6F",
        5 => b"VP6A",
        6 => b"FSV2",
        _ => b"vuvu",
    })
}

const COMMAND_FRAME: u8 = 5;

const SEQUENCE_START: u8 = 0;
const CODED_FRAMES: u8 = 1;
const SEQUENCE_END: u8 = 2;
const CODED_FRAMES_X: u8 = 3;
const METADATA: u8 = 4;
const MPEG2TS_SEQUENCE_START: u8 = 5;
const MULTITRACK: u8 = 6;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::samples::{OBS_AVC, hex};

    fn video(body: &str) -> Result<Option<VideoTag>, Error> {
        let mut all = several(body)?;
        assert!(all.len() < 2, "{all:?}");
        Ok(all.pop())
    }

    fn several(body: &str) -> Result<Vec<VideoTag>, Error> {
        let video = |tag| match tag {
            Tag { timestamp: 1234, body: TagBody::Video(video) } => video,
            other => panic!("{other:?}"),
        };
        Ok(parse_video(1234, &hex(body))?.map(video).collect())
    }

    fn tag(track: u8, codec: FourCc, is_key: bool, packet: VideoPacket) -> Result<Option<VideoTag>, Error> {
        Ok(Some(VideoTag { track, codec, is_key, offset_ns: 0, packet }))
    }

    fn frames(composition_ms: i32, data: &str) -> VideoPacket {
        VideoPacket::CodedFrames { composition_ms, data: hex(data) }
    }

    #[test]
    fn legacy_and_enhanced_come_out_alike() {
        let start = tag(0, FourCc::AVC, true, VideoPacket::SequenceStart(hex(OBS_AVC)));
        assert_eq!(video(&format!("1700000000{OBS_AVC}")), start);
        assert_eq!(video(&format!("90 61766331{OBS_AVC}")), start);

        let key = tag(0, FourCc::AVC, true, frames(80, "000000036588 84"));
        assert_eq!(video("1701000050 000000036588 84"), key);
        assert_eq!(video("91 61766331 000050 000000036588 84"), key);

        let inter = tag(0, FourCc::AVC, false, frames(0, "0000000141"));
        assert_eq!(video("2701000000 0000000141"), inter);
        assert_eq!(video("a3 61766331 0000000141"), inter);

        let end = tag(0, FourCc::AVC, true, VideoPacket::SequenceEnd);
        assert_eq!(video("1702000000"), end);
        assert_eq!(video("1702"), end);
        assert_eq!(video("92 61766331"), end);
    }

    #[test]
    fn composition_times_are_signed() {
        assert_eq!(video("2701ffffd8 00"), tag(0, FourCc::AVC, false, frames(-40, "00")));
        assert_eq!(video("2701800000 00"), tag(0, FourCc::AVC, false, frames(-8_388_608, "00")));
        assert_eq!(video("27017fffff 00"), tag(0, FourCc::AVC, false, frames(8_388_607, "00")));
    }

    #[test]
    fn data_are_a_slice_of_the_body() {
        let body = hex("2701000000 0000000141");
        let Some(Tag { body: TagBody::Video(VideoTag { packet: VideoPacket::CodedFrames { data, .. }, .. }), .. }) =
            parse_video(0, &body).unwrap().next()
        else {
            panic!()
        };
        assert_eq!(data.as_ptr(), body[5..].as_ptr());
    }

    #[test]
    fn what_says_nothing_is_none() {
        // Empty; nothing behind the header; a record of no bytes; command frames; metadata that end in the middle.
        for body in [
            "",
            "2701000000",
            "1700000000",
            "5700",
            "57",
            "d5 00",
            "90 61766331",
            "d468766331 020009636f6c6f72496e666f",
        ] {
            assert_eq!(video(body), Ok(None), "{body}");
        }
    }

    #[test]
    fn enhanced_codecs_are_named_by_their_four_characters() {
        // As ffmpeg 9 sends them.
        assert_eq!(video("a1 68766331 0000a0 0000014c02"), tag(0, FourCc::HEVC, false, frames(160, "0000014c02")));
        assert_eq!(video("a1 61763031 329a22"), tag(0, FourCc::AV1, false, frames(0, "329a22")));
        assert_eq!(
            video("90 61763031 81000c00"),
            tag(0, FourCc::AV1, true, VideoPacket::SequenceStart(hex("81000c00")))
        );
        // Before Enhanced RTMP.
        assert_eq!(video("2c01000028 0000000102"), tag(0, FourCc::HEVC, false, frames(40, "0000000102")));
    }

    #[test]
    fn modifiers_are_heeded_or_skipped_and_tracks_are_told_apart() {
        // A nanosecond offset of 3 bytes, then coded frames; one that is too large, and a modifier of a kind to come.
        let later = |body: &str| video(body).unwrap().map(|tag| (tag.offset_ns, tag.packet));
        assert_eq!(later("a7 02 00000a 03 61766331 41"), Some((10, frames(0, "41"))));
        assert_eq!(later("a7 02 0f423f 07 02 0f4240 03 61766331 41"), Some((999_999, frames(0, "41"))));
        assert_eq!(later("a7 02 00000a 13 61766331 41"), Some((0, frames(0, "41"))));
        // A long modifier, then another.
        let long = format!("a7 ff 0100 {} 07 00 00 03 61766331 41", "00".repeat(257));
        assert_eq!(video(&long), tag(0, FourCc::AVC, false, frames(0, "41")));
        assert_eq!(video("a6 01 61766331 02 000050 41"), tag(2, FourCc::AVC, false, frames(80, "41")));
        assert_eq!(video("96 00 61766331 01 0164"), tag(1, FourCc::AVC, true, VideoPacket::SequenceStart(hex("0164"))));
    }

    #[test]
    fn several_tracks_in_one_message_come_apart() {
        let frame = |track, codec, packet| VideoTag { track, codec, is_key: false, offset_ns: 0, packet };
        // The composition time belongs to each track.
        let both = "a6 11 61766331 00 000005 000050 4101 01 000004 000000 42";
        let expected = vec![frame(0, FourCc::AVC, frames(80, "4101")), frame(1, FourCc::AVC, frames(0, "42"))];
        assert_eq!(several(both), Ok(expected));
        let many_codecs = "a6 23 61766331 00 000002 4101 61763031 01 000001 42";
        let expected = vec![frame(0, FourCc::AVC, frames(0, "4101")), frame(1, FourCc::AV1, frames(0, "42"))];
        assert_eq!(several(many_codecs), Ok(expected));
        assert_eq!(several("a6 11 61766331 00 000002 0000"), Err(Error::CutShort("video tag header")));
    }

    #[test]
    fn colours_beside_the_codec_are_read() {
        let colours = "d4 68766331 020009636f6c6f72496e666f 03 000b636f6c6f72436f6e666967 03 000009 000009";
        assert_eq!(video(colours), tag(0, FourCc::HEVC, false, VideoPacket::Light(Light::default())));
    }

    #[test]
    fn what_cannot_be_carried_is_named() {
        let name = |body: &str| video(body).unwrap().unwrap().codec.uncarried_name();
        assert_eq!(name("22 00"), Some("Sorenson H.263"));
        assert_eq!(name("1f 00"), Some("an unknown legacy video codec"));
        assert_eq!(name("91 76766331 000000 00"), Some("VVC"));
        assert_eq!(video("2703000000"), Err(Error::PacketType(3)));
        assert_eq!(video("98 61766331"), Err(Error::PacketType(8)));
        assert_eq!(video("95 61763031").unwrap_err().to_string(), "MPEG-TS sequence headers are not supported");
        for body in
            ["17", "1701", "17010000", "90", "906176", "91 61766331 0000", "a7", "a7 02 00", "a6", "a6 01 61766331"]
        {
            assert_eq!(video(body), Err(Error::CutShort("video tag header")), "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(first: u8, rest in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse_video(0, &[&[first][..], &rest].concat().into());
        }
    }
}
