//! Tags made by hand: sequence headers of real encoders, and frames of a few bytes.

use bytes::Bytes;
use upscope::flv::{AudioPacket, AudioTag, FourCc, Tag, TagBody, VideoPacket, VideoTag};

/// Decoder configurations of H.264: OBS 640x360, ffmpeg 320x180.
pub(crate) const AVC: [&str; 2] = [
    "0164001effe1001e6764001eacd940a02ff97016a0202028000003000800000301e478b16cb001000468efbcb0",
    "01640015ffe1001867640015acd941419f9f011000003e90001d4c00f162d96001000668ebe084b22cfdf8f800",
];

/// Decoder configurations of AAC: 48 kHz stereo, 44.1 kHz stereo, HE-AAC.
pub(crate) const AAC: [&str; 3] = ["119056e500", "1210", "2b118800"];

/// Bytes written as hexadecimal digits.
pub(crate) fn hex(digits: &str) -> Bytes {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn video(timestamp: u32, is_key: bool, packet: VideoPacket) -> Tag {
    let video = VideoTag { track: 0, codec: FourCc::AVC, is_key, offset_ns: 0, packet };
    Tag { timestamp, body: TagBody::Video(video) }
}

fn audio(timestamp: u32, track: u8, packet: AudioPacket) -> Tag {
    Tag { timestamp, body: TagBody::Audio(AudioTag { track, codec: FourCc::AAC, packet }) }
}

pub(crate) fn video_header(timestamp: u32, record: &str) -> Tag {
    video(timestamp, true, VideoPacket::SequenceStart(hex(record)))
}

pub(crate) fn audio_header(timestamp: u32, record: &str) -> Tag {
    audio_header_of(0, timestamp, record)
}

pub(crate) fn audio_header_of(track: u8, timestamp: u32, record: &str) -> Tag {
    audio(timestamp, track, AudioPacket::SequenceStart(hex(record)))
}

/// A picture of `bytes` bytes: an IDR slice if it is a key frame, otherwise another slice.
pub(crate) fn picture_of(bytes: usize, timestamp: u32, composition_ms: i32, is_key: bool) -> Tag {
    let unit_type = if is_key { 0x65 } else { 0x41 };
    let length = u32::try_from(bytes.max(1)).unwrap();
    let mut data = length.to_be_bytes().to_vec();
    data.push(unit_type);
    data.resize(4 + bytes.max(1), 0x80);
    video(timestamp, is_key, VideoPacket::CodedFrames { composition_ms, data: data.into() })
}

pub(crate) fn picture(timestamp: u32, is_key: bool) -> Tag {
    picture_of(20, timestamp, 0, is_key)
}

/// A picture behind the NAL units `before`, each with its length.
pub(crate) fn picture_behind(before: &str, timestamp: u32, is_key: bool) -> Tag {
    let units = hex(&before.replace(' ', ""));
    let slice = if is_key { "00000003658880" } else { "00000003418880" };
    let data = [&units[..], &hex(slice)].concat().into();
    video(timestamp, is_key, VideoPacket::CodedFrames { composition_ms: 0, data })
}

/// A picture of an open GOP: a key frame by its header, without an IDR slice.
pub(crate) fn open_key(timestamp: u32) -> Tag {
    let data = hex("00000002 4180".replace(' ', "").as_str());
    video(timestamp, true, VideoPacket::CodedFrames { composition_ms: 0, data })
}

/// A message without a slice: an access unit delimiter.
pub(crate) fn no_picture(timestamp: u32) -> Tag {
    let data = hex("0000000209f0");
    video(timestamp, false, VideoPacket::CodedFrames { composition_ms: 0, data })
}

pub(crate) fn sound(timestamp: u32) -> Tag {
    sound_of(0, timestamp, 6)
}

pub(crate) fn sound_of(track: u8, timestamp: u32, bytes: usize) -> Tag {
    audio(timestamp, track, AudioPacket::CodedFrames(vec![0x21; bytes].into()))
}
