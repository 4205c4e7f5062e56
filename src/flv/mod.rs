//! FLV: the bodies of RTMP audio, video and data messages, which are those of FLV tags, become [`Tag`]s. Legacy and enhanced
//! headers come out alike: H.264 of an FLV 10.1 tag and `avc1` of an enhanced one are the same [`VideoTag`].
//!
//! | document | what of it |
//! |---|---|
//! | [Adobe Flash Video File Format Specification 10.1](https://rtmp.veriskope.com/pdf/video_file_format_spec_v10_1.pdf) Annex E | tag headers and bodies, `onMetaData`, the file |
//! | [Enhanced RTMP v2](https://veovera.org/docs/enhanced/enhanced-rtmp-v2) | `ExAudioTagHeader`, `ExVideoTagHeader`, multitrack |
//!
//! What says nothing (an empty body, a command frame, a sequence header without a record) comes out as `None`. Coded bytes
//! are slices of the body; nothing is copied. Knows nothing of RTMP, and of codecs only where their headers end.

mod audio;
mod colour_info;
pub mod file;
mod script;
mod tags;
mod video;

use std::fmt;

use bytes::Bytes;

pub use self::audio::{AudioPacket, AudioTag, parse_audio};
pub use self::script::{DataTag, Metadata, parse_data};
pub use self::tags::Tags;
pub use self::video::{VideoPacket, VideoTag, parse_video};

/// One message of a publisher that concerns the media.
#[derive(Debug, Clone, PartialEq)]
pub struct Tag {
    /// When it is to be decoded, in milliseconds on the publisher's clock; wraps at 2^32.
    pub timestamp: u32,
    /// What it says.
    pub body: TagBody,
}

/// What a tag says.
#[derive(Debug, Clone, PartialEq)]
pub enum TagBody {
    /// About a video track.
    Video(VideoTag),
    /// About an audio track.
    Audio(AudioTag),
    /// About the whole broadcast; hints only.
    Metadata(Box<Metadata>),
    /// About a moment of the broadcast: a cue point, a caption, a time code, what the publisher likes.
    Data(DataTag),
}

/// A codec's name in Enhanced RTMP, given to legacy codecs too.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FourCc(pub [u8; 4]);

impl FourCc {
    /// H.264.
    pub const AVC: Self = Self(*b"avc1");
    /// H.265.
    pub const HEVC: Self = Self(*b"hvc1");
    /// H.266.
    pub const VVC: Self = Self(*b"vvc1");
    /// AV1.
    pub const AV1: Self = Self(*b"av01");
    /// VP8.
    pub const VP8: Self = Self(*b"vp08");
    /// VP9.
    pub const VP9: Self = Self(*b"vp09");
    /// AAC.
    pub const AAC: Self = Self(*b"mp4a");
    /// MP3, which has no sequence header.
    pub const MP3: Self = Self(*b".mp3");
    /// Opus.
    pub const OPUS: Self = Self(*b"Opus");
    /// FLAC.
    pub const FLAC: Self = Self(*b"fLaC");
    /// AC-3.
    pub const AC3: Self = Self(*b"ac-3");
    /// E-AC-3.
    pub const EAC3: Self = Self(*b"ec-3");

    /// The codec in the words of its specification, where it is one that is known and not carried.
    pub fn uncarried_name(self) -> Option<&'static str> {
        UNCARRIED.iter().find(|(codec, _)| *codec == self).map(|(_, name)| *name)
    }
}

/// What HLS does not carry. The legacy codecs have no four characters in Enhanced RTMP; these are QuickTime's or our own.
const UNCARRIED: [(FourCc, &str); 17] = [
    (FourCc::VVC, "VVC"),
    (FourCc::VP8, "VP8"),
    (FourCc(*b"jpeg"), "JPEG"),
    (FourCc(*b"FLV1"), "Sorenson H.263"),
    (FourCc(*b"FSV1"), "Screen video"),
    (FourCc(*b"VP6F"), "On2 VP6"),
    (FourCc(*b"VP6A"), "On2 VP6 with alpha channel"),
    (FourCc(*b"FSV2"), "Screen video version 2"),
    (FourCc(*b"vuvu"), "an unknown legacy video codec"),
    (FourCc(*b"lpcm"), "linear PCM"),
    (FourCc(*b"adpc"), "ADPCM"),
    (FourCc(*b"nmos"), "Nellymoser"),
    (FourCc(*b"alaw"), "G.711 A-law"),
    (FourCc(*b"ulaw"), "G.711 mu-law"),
    (FourCc(*b"spex"), "Speex"),
    (FourCc(*b"devi"), "device-specific sound"),
    (FourCc(*b"auau"), "an unknown legacy audio codec"),
];

impl fmt::Display for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FourCc({self})")
    }
}

/// Why a body was refused. One bad tag is skipped and counted; it says nothing about the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The peer sent nonsense: the body ends within the named part.
    CutShort(&'static str),
    /// The peer sent nonsense: a packet type that no version of the specification has.
    PacketType(u8),
    /// The peer sent nonsense: an FLV file that does not begin like one.
    NotFlv,
    /// We lack the named thing.
    Unsupported(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CutShort(part) => write!(f, "the body ends within the {part}"),
            Self::PacketType(packet_type) => write!(f, "packet type {packet_type} does not exist"),
            Self::NotFlv => f.write_str("this is no FLV file"),
            Self::Unsupported(what) => write!(f, "{what} not supported"),
        }
    }
}

impl std::error::Error for Error {}

/// Takes fields off the front of a body, whose rest stays a slice of it.
#[derive(Debug)]
struct Reader {
    rest: Bytes,
    /// What the fields belong to, for [`Error::CutShort`].
    part: &'static str,
}

impl Reader {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let array = *self.rest.first_chunk().ok_or(Error::CutShort(self.part))?;
        bytes::Buf::advance(&mut self.rest, N);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>()?[0])
    }

    fn i24(&mut self) -> Result<i32, Error> {
        let [a, b, c] = self.array()?;
        Ok(i32::from_be_bytes([a, b, c, 0]) >> 8)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Error> {
        if bytes > self.rest.len() {
            return Err(Error::CutShort(self.part));
        }
        bytes::Buf::advance(&mut self.rest, bytes);
        Ok(())
    }

    /// Enhanced RTMP v2, `ModEx`: the packet type behind modifiers, and what they say. Those that we do not know are skipped.
    fn modified(&mut self, mut packet_type: u8) -> Result<Modified, Error> {
        let mut offset_ns = 0;
        while packet_type == MOD_EX {
            let mut size = usize::from(self.u8()?) + 1;
            if size == 256 {
                size = usize::from(u16::from_be_bytes(self.array()?)) + 1;
            }
            let said = self.rest.clone();
            self.skip(size)?;
            let types = self.u8()?;
            packet_type = types & 0b1111;
            if let (TIMESTAMP_OFFSET_NANO, 3, &[a, b, c, ..]) = (types >> 4, size, &said[..]) {
                let said_ns = u32::from_be_bytes([0, a, b, c]);
                offset_ns = if said_ns <= MOST_OFFSET_NS { said_ns } else { offset_ns };
            }
        }
        Ok(Modified { packet_type, offset_ns })
    }

    /// Enhanced RTMP v2, multitrack: the packet type within, and for each track its codec, its number and its body.
    fn multitrack(&mut self) -> Result<(u8, Vec<Body>), Error> {
        let types = self.u8()?;
        let packet_type = types & 0b1111;
        let kind = types >> 4;
        if kind > MANY_TRACKS_MANY_CODECS {
            return Err(Error::Unsupported("this kind of multitrack message is"));
        }
        let shared = if kind == MANY_TRACKS_MANY_CODECS { None } else { Some(FourCc(self.array()?)) };
        if kind == ONE_TRACK {
            let track = self.u8()?;
            let body = Body { codec: shared.expect("one track has one codec"), track, rest: self.rest.split_off(0) };
            return Ok((packet_type, vec![body]));
        }
        let mut bodies = Vec::new();
        while !self.rest.is_empty() {
            let codec = match shared {
                Some(codec) => codec,
                None => FourCc(self.array()?),
            };
            let track = self.u8()?;
            let [a, b, c] = self.array()?;
            let size = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
            if size > self.rest.len() {
                return Err(Error::CutShort("multitrack body"));
            }
            bodies.push(Body { codec, track, rest: self.rest.split_to(size) });
        }
        Ok((packet_type, bodies))
    }
}

/// A packet type, and what modifiers before it say.
#[derive(Debug)]
struct Modified {
    packet_type: u8,
    /// Of the presentation, in nanoseconds.
    offset_ns: u32,
}

/// One track's part of an enhanced message.
#[derive(Debug)]
struct Body {
    codec: FourCc,
    track: u8,
    rest: Bytes,
}

/// The packet type of modifiers, in audio and video.
const MOD_EX: u8 = 7;
/// The modifier that makes timestamps finer, by less than a millisecond.
const TIMESTAMP_OFFSET_NANO: u8 = 0;
const MOST_OFFSET_NS: u32 = 999_999;
/// `AvMultitrackType`.
const ONE_TRACK: u8 = 0;
const MANY_TRACKS_MANY_CODECS: u8 = 2;
