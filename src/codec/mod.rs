//! Decoder configuration records: parsed once, found sane, and carried into the CMAF header byte for byte.
//! One file a codec, one closed enum; a new codec is a file here and the arms that the compiler then lists.
//!
//! | document | what of it |
//! |---|---|
//! | [ISO/IEC 14496-15:2022](https://www.iso.org/standard/83336.html) §5.3 | `AVCDecoderConfigurationRecord`, length-prefixed NAL units |
//! | [ITU-T H.264](https://www.itu.int/rec/T-REC-H.264) §7.3, Annex D, E | NAL unit headers, recovery point SEI; the SPS is read by `h264-reader` |
//! | [ISO/IEC 14496-3:2019](https://www.iso.org/standard/76383.html) §1.6.2.1 | `AudioSpecificConfig` |
//! | [RFC 6381](https://www.rfc-editor.org/rfc/rfc6381) §3.3 | the codec's name in `CODECS` |
//!
//! Knows nothing of FLV, boxes or playlists.

pub mod aac;
pub mod avc;

use std::fmt;

/// A decoder's configuration, as the publisher's sequence header gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Configuration {
    /// H.264.
    Avc(avc::Configuration),
    /// AAC and HE-AAC.
    Aac(aac::Configuration),
}

impl Configuration {
    /// Pictures; otherwise sound.
    pub fn is_video(&self) -> bool {
        match self {
            Self::Avc(_) => true,
            Self::Aac(_) => false,
        }
    }

    /// The codec as `CODECS` names it (RFC 6381 §3.3): `avc1.64001f`, `mp4a.40.2`.
    pub fn rfc6381(&self) -> String {
        match self {
            Self::Avc(avc) => avc.rfc6381(),
            Self::Aac(aac) => aac.rfc6381(),
        }
    }

    /// Width and height of the picture in pixels of the stream, cropping applied, pixel shape not.
    pub fn resolution(&self) -> Option<(u32, u32)> {
        match self {
            Self::Avc(avc) => Some((avc.width().into(), avc.height().into())),
            Self::Aac(_) => None,
        }
    }

    /// The frame rate, where the configuration promises one.
    pub fn frame_rate(&self) -> Option<FrameRate> {
        match self {
            Self::Avc(avc) => avc.frame_rate(),
            Self::Aac(_) => None,
        }
    }

    /// Audio samples a second, as decoded.
    pub fn sample_rate(&self) -> Option<u32> {
        match self {
            Self::Avc(_) => None,
            Self::Aac(aac) => Some(aac.sample_rate()),
        }
    }

    /// Audio samples in each coded frame, as decoded.
    pub fn samples_per_frame(&self) -> Option<u32> {
        match self {
            Self::Avc(_) => None,
            Self::Aac(aac) => Some(aac.samples_per_frame()),
        }
    }

    /// Audio channels, as decoded.
    pub fn channels(&self) -> Option<u8> {
        match self {
            Self::Avc(_) => None,
            Self::Aac(aac) => Some(aac.channels()),
        }
    }
}

/// Frames a second as a fraction: 30000/1001 is NTSC's 29.97.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRate {
    /// Frames in `seconds`.
    pub frames: u64,
    /// Seconds in which they are shown; never 0.
    pub seconds: u64,
}

impl FrameRate {
    /// Frames in 1000 seconds, rounded to the nearest: what HLS writes with three decimals.
    pub fn millihertz(self) -> u64 {
        let exact = (u128::from(self.frames) * 1000 + u128::from(self.seconds) / 2) / u128::from(self.seconds);
        u64::try_from(exact).unwrap_or(u64::MAX)
    }
}

/// Refuses a record that is empty, or so long that headers would carry somebody's ballast.
fn check_length(record: &[u8], most_bytes: usize) -> Result<(), Error> {
    if record.is_empty() {
        return Err(Error::Empty);
    }
    if record.len() > most_bytes {
        return Err(Error::Invalid { field: "length of a decoder configuration record", value: record.len() as u64 });
    }
    Ok(())
}

/// Why a decoder configuration record or an access unit was refused. All but [`Error::Unsupported`] is nonsense from the
/// peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// No bytes at all. ffmpeg relaying MPEG-TS sends such a sequence header before the real one.
    Empty,
    /// The bytes end within the named part.
    CutShort(&'static str),
    /// A part that the record cannot do without is not there.
    Missing(&'static str),
    /// The named field has a value that it cannot have.
    Invalid {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// The sequence parameter set cannot be read.
    UnreadableParameterSet,
    /// Legal, but nothing that upscope can carry.
    Unsupported {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the record is empty"),
            Self::CutShort(part) => write!(f, "the bytes end within the {part}"),
            Self::Missing(part) => write!(f, "there is no {part}"),
            Self::Invalid { field, value } => write!(f, "{value} is no {field}"),
            Self::UnreadableParameterSet => f.write_str("the sequence parameter set cannot be read"),
            Self::Unsupported { field, value } => write!(f, "{field} {value} is not supported"),
        }
    }
}

impl std::error::Error for Error {}

/// Records of real encoders, for tests here and elsewhere.
#[cfg(test)]
pub(crate) mod samples {
    use bytes::Bytes;

    /// OBS Studio 29.0.2, x264: 640x360, 30 frames a second.
    pub(crate) const OBS_AVC: &str =
        "0164001effe1001e6764001eacd940a02ff97016a0202028000003000800000301e478b16cb001000468efbcb0";
    /// ffmpeg 5.1, x264: 320x180, 60000/1001 frames a second.
    pub(crate) const FFMPEG_AVC_5994: &str =
        "01640015ffe1001867640015acd941419f9f011000003e90001d4c00f162d96001000668ebe084b22cfdf8f800";
    /// ffmpeg 5.1, x264: 192x108, 25 frames a second; edited by hand to NAL unit lengths of 2 bytes.
    pub(crate) const TWO_BYTE_LENGTHS_AVC: &str =
        "0164000bfde100196764000bacd9430ffbc044000003000400000300c83c50a65801000668ebe1d2c8b0fdf8f800";
    /// ffmpeg 5.1: AAC-LC, 48 kHz, stereo.
    pub(crate) const FFMPEG_AAC: &str = "119056e500";
    /// libfdk_aac: HE-AAC, 24 kHz core, 48 kHz out, stereo.
    pub(crate) const HE_AAC: &str = "2b118800";

    /// Bytes written as hexadecimal digits, spaces between them ignored.
    pub(crate) fn hex(text: &str) -> Bytes {
        let digits: Vec<_> = text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).unwrap()).collect();
        digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
    }
}
