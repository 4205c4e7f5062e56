//! Decoder configuration records: parsed once, found sane, and carried into the CMAF header byte for byte.
//! One file a codec, one closed enum; a new codec is a file here and the arms that the compiler then lists.
//!
//! | document | what of it |
//! |---|---|
//! | [ISO/IEC 14496-15:2022](https://www.iso.org/standard/83336.html) §5.3 | `AVCDecoderConfigurationRecord`, length-prefixed NAL units |
//! | [ITU-T H.264](https://www.itu.int/rec/T-REC-H.264) §7.3, Annex D, E | NAL unit headers, recovery point SEI; the SPS is read by `h264-reader` |
//! | ISO/IEC 14496-15 §8.3, [ITU-T H.265](https://www.itu.int/rec/T-REC-H.265) | `HEVCDecoderConfigurationRecord`, SPS, NAL unit headers |
//! | [AV1](https://aomediacodec.github.io/av1-spec/), [AV1 in ISOBMFF](https://aomediacodec.github.io/av1-isobmff/) | OBUs, sequence header, `av1C` |
//! | [VP9](https://www.webmproject.org/vp9/) bitstream, [VP codec ISOBMFF binding](https://www.webmproject.org/vp9/mp4/) | key frame headers, `vpcC` |
//! | [ISO/IEC 14496-3:2019](https://www.iso.org/standard/76383.html) §1.6.2.1 | `AudioSpecificConfig` |
//! | ISO/IEC 11172-3, 13818-3 | MP3 frame headers |
//! | [RFC 6716](https://www.rfc-editor.org/rfc/rfc6716), [RFC 7845](https://www.rfc-editor.org/rfc/rfc7845), [Opus in ISOBMFF](https://opus-codec.org/docs/opus_in_isobmff.html) | packet durations, `OpusHead`, `dOps` |
//! | [RFC 9639](https://www.rfc-editor.org/rfc/rfc9639), [FLAC in ISOBMFF](https://github.com/xiph/flac/blob/master/doc/isoflac.txt) | `STREAMINFO`, frame headers, `dfLa` |
//! | [ETSI TS 102 366](https://www.etsi.org/deliver/etsi_ts/102300_102399/102366/) | syncframes, `dac3`, `dec3` |
//! | [ETSI TS 103 420](https://www.etsi.org/deliver/etsi_ts/103400_103499/103420/) | joint object coding in E-AC-3 |
//! | ATSC A/53 Part 4, CTA-608, CTA-708 | which captions a picture carries |
//! | [RFC 6381](https://www.rfc-editor.org/rfc/rfc6381) §3.3 | the codec's name in `CODECS` |
//!
//! Knows nothing of FLV, boxes or playlists.

pub mod aac;
pub mod ac3;
pub mod av1;
pub mod avc;
pub mod flac;
pub mod hevc;
pub mod mp3;
pub mod opus;
pub mod vp9;

mod bits;
mod captions;
mod frame;
mod nal;
mod picture;
mod sei;

use std::fmt;

pub use self::captions::{CaptionChannel, Captions};
pub use self::frame::Frame;
pub use self::picture::{Colour, ContentLightLevel, FrameRate, Light, MasteringDisplay, Picture, Range};

/// A decoder's configuration, as the publisher's sequence header gave it, or, where the codec has none, its frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Configuration {
    /// H.264.
    Avc(avc::Configuration),
    /// H.265.
    Hevc(hevc::Configuration),
    /// AV1.
    Av1(av1::Configuration),
    /// VP9.
    Vp9(vp9::Configuration),
    /// AAC and HE-AAC.
    Aac(aac::Configuration),
    /// MP3.
    Mp3(mp3::Configuration),
    /// Opus.
    Opus(opus::Configuration),
    /// FLAC.
    Flac(flac::Configuration),
    /// AC-3 and E-AC-3.
    Ac3(ac3::Configuration),
}

/// What comes out of an audio decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sound {
    /// Samples a second; never 0.
    pub sample_rate: u32,
    /// How many speakers it is for; never 0.
    pub channels: u8,
}

impl Configuration {
    /// Pictures; otherwise sound.
    pub fn is_video(&self) -> bool {
        self.picture().is_some()
    }

    /// The codec as `CODECS` names it (RFC 6381 §3.3, RFC 8216bis §4.4.6.2): `avc1.64001f`, `mp4a.40.2`.
    pub fn rfc6381(&self) -> String {
        match self {
            Self::Avc(avc) => avc.rfc6381(),
            Self::Hevc(hevc) => hevc.rfc6381(),
            Self::Av1(av1) => av1.rfc6381(),
            Self::Vp9(vp9) => vp9.rfc6381(),
            Self::Aac(aac) => aac.rfc6381(),
            Self::Mp3(_) => "mp4a.40.34".to_owned(),
            Self::Opus(_) => "opus".to_owned(),
            Self::Flac(_) => "fLaC".to_owned(),
            Self::Ac3(ac3) => ac3.rfc6381(),
        }
    }

    /// What the picture is like; `None` for sound.
    pub fn picture(&self) -> Option<&Picture> {
        match self {
            Self::Avc(avc) => Some(avc.picture()),
            Self::Hevc(hevc) => Some(hevc.picture()),
            Self::Av1(av1) => Some(av1.picture()),
            Self::Vp9(vp9) => Some(vp9.picture()),
            Self::Aac(_) | Self::Mp3(_) | Self::Opus(_) | Self::Flac(_) | Self::Ac3(_) => None,
        }
    }

    /// What comes out of the decoder; `None` for pictures.
    pub fn sound(&self) -> Option<Sound> {
        match self {
            Self::Avc(_) | Self::Hevc(_) | Self::Av1(_) | Self::Vp9(_) => None,
            Self::Aac(aac) => Some(aac.sound()),
            Self::Mp3(mp3) => Some(mp3.sound()),
            Self::Opus(opus) => Some(opus.sound()),
            Self::Flac(flac) => Some(flac.sound()),
            Self::Ac3(ac3) => Some(ac3.sound()),
        }
    }

    /// The same, with what the publisher says of light beside it where the codec itself says nothing.
    #[must_use]
    pub fn with_light(mut self, hint: Light) -> Self {
        let picture = match &mut self {
            Self::Avc(avc) => avc.picture_mut(),
            Self::Hevc(hevc) => hevc.picture_mut(),
            Self::Av1(av1) => av1.picture_mut(),
            Self::Vp9(vp9) => vp9.picture_mut(),
            Self::Aac(_) | Self::Mp3(_) | Self::Opus(_) | Self::Flac(_) | Self::Ac3(_) => return self,
        };
        picture.light = picture.light.or(hint);
        self
    }

    /// Objects of joint object coding (Dolby Atmos), where the sound has them.
    pub fn objects(&self) -> Option<u8> {
        match self {
            Self::Ac3(ac3) => ac3.objects(),
            _ => None,
        }
    }

    /// Width and height of the picture in pixels of the stream, cropping applied, pixel shape not.
    pub fn resolution(&self) -> Option<(u32, u32)> {
        self.picture().map(|picture| (picture.width.into(), picture.height.into()))
    }

    /// Audio samples a second, as decoded.
    pub fn sample_rate(&self) -> Option<u32> {
        self.sound().map(|sound| sound.sample_rate)
    }

    /// Audio channels, as decoded.
    pub fn channels(&self) -> Option<u8> {
        self.sound().map(|sound| sound.channels)
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

    /// ffmpeg 9, x265: 320x180; the SEI array behind the parameter sets left out.
    pub(crate) const FFMPEG_HEVC: &str = "\
        0101600000009000000000003cf000fcfdf8f800000f03200001001840010c01ffff01600000030090000003000003003c95\
        9409210001002b42010101600000030090000003000003003ca00a080b9f796565924caf016808000003000800000300c840\
        22000100074401c172b46240";
    /// ffmpeg 9, x265: 322x182, 4:3 pixels, 10 bits, BT.2020 with PQ, mastering display and content light in SEI.
    pub(crate) const HDR10_HEVC: &str = "\
        0102200000009000000000003cf000fcfdfafa00000f04200001001840010c01ffff02200000030090000003000003003c95\
        9809210001002f42010102200000030090000003000003003ca00a480b9c94d96566924caf0e6a1220120800000300080000\
        0300c84022000100074401c172b4624027000200094e01900403e8019080001e4e01891833c286c41d4c0bb884d03e803d13\
        404200989680000003000180";
    /// The SPS of it.
    pub(crate) const HDR10_SPS: &str = "\
        42010102200000030090000003000003003ca00a480b9c94d96566924caf0e6a12201208000003000800000300c840";
    /// ffmpeg 9, libaom: 320x180.
    pub(crate) const FFMPEG_AV1: &str = "81000c000a0b0200000521e7f66017c002";
    /// ffmpeg 9, libopus: stereo.
    pub(crate) const FFMPEG_OPUS: &str = "4f707573486561640102380180bb0000000000";
    /// ffmpeg 9: 48 kHz, stereo, 16 bits, without the head of its block.
    pub(crate) const FFMPEG_FLAC: &str = "040004000000000010980bb802f00000000000000000000000000000000000000000";

    /// Bytes written as hexadecimal digits, spaces between them ignored.
    pub(crate) fn hex(text: &str) -> Bytes {
        let digits: Vec<_> = text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).unwrap()).collect();
        digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
    }
}
