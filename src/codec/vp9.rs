//! VP9: `vpcC` and the uncompressed header of frames. Neither alone says everything: level and colours stand in the first,
//! the size in each key frame.

use bytes::{BufMut, Bytes, BytesMut};

use super::bits::Bits;
use super::{Colour, Error, Light, Picture};

/// A `VPCodecConfigurationRecord` (VP9 in ISOBMFF §2.2) with the size of the pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    record: Record,
    picture: Picture,
}

/// What the publisher's sequence header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    profile: u8,
    /// Ten times the level; 0 unknown.
    level: u8,
    bit_depth: u8,
    /// 0 and 1 are 4:2:0, 2 is 4:2:2, 3 is 4:4:4.
    chroma_subsampling: u8,
    colour: Colour,
}

impl Record {
    /// Parses the body of a sequence header: `vpcC` with its version and flags, or, as some send it, without.
    ///
    /// # Errors
    /// When it is cut short, or has a profile or bit depth that VP9 has not.
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        super::check_length(body, MOST_RECORD_BYTES)?;
        // As a bit depth of 0 does not exist, nothing else begins like that.
        let has_version = body.len() >= FULL_BYTES && body[0] <= 1 && body[1..4] == [0; 3];
        let record = if has_version { &body[4..] } else { body };
        let Some(&[profile, level, depths, primaries, transfer, matrix, ..]) = record.first_chunk::<8>() else {
            return Err(Error::CutShort("VP9 configuration record"));
        };
        if profile > 3 {
            return Err(Error::Invalid { field: "VP9 profile", value: profile.into() });
        }
        let bit_depth = depths >> 4;
        if !matches!(bit_depth, 8 | 10 | 12) {
            return Err(Error::Invalid { field: "VP9 bit depth", value: bit_depth.into() });
        }
        let colour = Colour { primaries, transfer, matrix, is_full_range: depths & 1 == 1 };
        Ok(Self { profile, level, bit_depth, chroma_subsampling: depths >> 1 & 0b111, colour })
    }
}

impl Configuration {
    /// The configuration that a key frame and the sequence header before it, if there was one, give; `None` when the frame is
    /// no key frame.
    ///
    /// # Errors
    /// When the frame's header is broken.
    pub fn of_frame(record: Option<Record>, data: &[u8]) -> Result<Option<Self>, Error> {
        let Some(key) = KeyFrame::read(data)? else { return Ok(None) };
        let level = record.map_or(0, |record| record.level);
        let colour = record.map_or(UNSPECIFIED, |record| record.colour);
        let record = Record {
            profile: key.profile,
            level: if level > 0 { level } else { least_level(key.width, key.height) },
            bit_depth: key.bit_depth,
            chroma_subsampling: key.chroma_subsampling,
            colour: Colour { is_full_range: key.is_full_range, ..colour },
        };
        let picture = Picture {
            width: key.width,
            height: key.height,
            light: Light { colour: Some(record.colour).filter(|colour| *colour != UNSPECIFIED), ..Light::default() },
            ..Picture::default()
        };
        Ok(Some(Self { record, picture }))
    }

    /// The body of `vpcC`, version and flags among it.
    pub fn record(&self) -> Bytes {
        let Record { profile, level, bit_depth, chroma_subsampling, colour } = self.record;
        let mut record = BytesMut::with_capacity(FULL_BYTES);
        record.put_u32(VERSION_1);
        record.put_slice(&[profile, level]);
        record.put_u8(bit_depth << 4 | chroma_subsampling << 1 | u8::from(colour.is_full_range));
        record.put_slice(&[colour.primaries, colour.transfer, colour.matrix]);
        let codec_initialization_bytes = 0;
        record.put_u16(codec_initialization_bytes);
        record.freeze()
    }

    /// The picture, as the key frame describes it.
    pub fn picture(&self) -> &Picture {
        &self.picture
    }

    pub(super) fn picture_mut(&mut self) -> &mut Picture {
        &mut self.picture
    }

    /// `vp09.PP.LL.DD` (VP9 in ISOBMFF §3): profile, level, bit depth.
    pub fn rfc6381(&self) -> String {
        let Record { profile, level, bit_depth, .. } = self.record;
        format!("vp09.{profile:02}.{level:02}.{bit_depth:02}")
    }
}

/// Whether decoding can start with a frame.
///
/// # Errors
/// When its header is cut short or none of VP9's.
pub fn is_key(data: &[u8]) -> Result<bool, Error> {
    Ok(start(data)?.is_some())
}

/// The uncompressed header of a key frame (VP9 bitstream specification §6.2).
struct KeyFrame {
    profile: u8,
    bit_depth: u8,
    chroma_subsampling: u8,
    is_full_range: bool,
    width: u16,
    height: u16,
}

impl KeyFrame {
    fn read(data: &[u8]) -> Result<Option<Self>, Error> {
        let Some((profile, mut bits)) = start(data)? else { return Ok(None) };
        let _show_frame_and_error_resilience = bits.read(2)?;
        if bits.read(24)? != SYNC_CODE {
            return Err(Error::Missing("VP9 sync code"));
        }
        let bit_depth = match profile >= 2 {
            true if bits.flag()? => 12,
            true => 10,
            false => 8,
        };
        let is_rgb = bits.read(3)? == RGB;
        let has_more_formats = profile == 1 || profile == 3;
        let (is_full_range, chroma_subsampling) = if is_rgb {
            if has_more_formats {
                bits.skip(1)?;
            }
            (true, CHROMA_444)
        } else {
            let is_full_range = bits.flag()?;
            let subsampling = if has_more_formats {
                let across_and_down = bits.read(2)?;
                bits.skip(1)?;
                if across_and_down == 0b10 { CHROMA_422 } else { CHROMA_444 }
            } else {
                CHROMA_420
            };
            (is_full_range, subsampling)
        };
        let [width, height] = [bits.size()?, bits.size()?];
        Ok(Some(Self { profile, bit_depth, chroma_subsampling, is_full_range, width, height }))
    }
}

/// The profile and the bits behind `frame_type`, if the first frame is a key frame.
fn start(data: &[u8]) -> Result<Option<(u8, Bits<'_>)>, Error> {
    let mut bits = Bits::new(data, "VP9 frame header");
    match bits.read(2)? {
        FRAME_MARKER => {}
        other => return Err(Error::Invalid { field: "VP9 frame marker", value: other.into() }),
    }
    let profile = bits.read_u8(1)? | bits.read_u8(1)? << 1;
    if profile == 3 {
        bits.skip(1)?;
    }
    let shows_existing_frame = bits.flag()?;
    let is_key = !shows_existing_frame && !bits.flag()?;
    Ok(is_key.then_some((profile, bits)))
}

impl Bits<'_> {
    /// One less is written.
    fn size(&mut self) -> Result<u16, Error> {
        match self.read_u16()?.checked_add(1) {
            Some(size) => Ok(size),
            None => Err(Error::Unsupported { field: "picture size", value: 65_536 }),
        }
    }
}

/// The lowest level whose picture is large enough (VP9 levels); how many pictures a second there are nobody says.
fn least_level(width: u16, height: u16) -> u8 {
    let pixels = u32::from(width) * u32::from(height);
    LEVELS.iter().find(|(most, _)| pixels <= *most).map_or(HIGHEST_LEVEL, |(_, level)| *level)
}

/// Pixels and level, the one of each size that allows the most pictures.
const LEVELS: [(u32, u8); 8] = [
    (36_864, 10),
    (73_728, 11),
    (122_880, 20),
    (245_760, 21),
    (552_960, 30),
    (983_040, 31),
    (2_228_224, 41),
    (8_912_896, 52),
];
const HIGHEST_LEVEL: u8 = 62;

const UNSPECIFIED: Colour = Colour { primaries: 2, transfer: 2, matrix: 2, is_full_range: false };
const CHROMA_420: u8 = 1;
const CHROMA_422: u8 = 2;
const CHROMA_444: u8 = 3;

const FRAME_MARKER: u32 = 2;
const SYNC_CODE: u32 = 0x49_8342;
const RGB: u32 = 7;

const VERSION_1: u32 = 1 << 24;
/// Version and flags, 6 bytes of fields, 2 for the size of what VP9 does not have.
const FULL_BYTES: usize = 12;
const MOST_RECORD_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::samples::hex;

    /// libvpx: 320x180, cut short.
    const KEY: &str = "824983420013f00b360638241c184a";

    #[test]
    fn record_and_key_frame_together_make_a_configuration() {
        // As ffmpeg 9 sends it; with a version that is none; without version and flags.
        let sent = Record::parse(&hex("01000000 000b82020202 0000")).unwrap();
        assert_eq!(Record::parse(&hex("00000000 000b82020202 0000")), Ok(sent));
        assert_eq!(Record::parse(&hex("000b82020202 0000")), Ok(sent));
        let found = Configuration::of_frame(Some(sent), &hex(KEY)).unwrap().unwrap();
        assert_eq!((found.picture().width, found.picture().height), (320, 180));
        assert_eq!(found.rfc6381(), "vp09.00.11.08");
        assert_eq!(found.record(), hex("01000000 000b82020202 0000"));
        assert_eq!(found.picture().light.colour, None);
        // The level is told by the size when nothing else tells it.
        assert_eq!(Configuration::of_frame(None, &hex(KEY)).unwrap().unwrap().rfc6381(), "vp09.00.11.08");
    }

    #[test]
    fn key_frames_are_told_by_their_headers() {
        assert_eq!(is_key(&hex(KEY)), Ok(true));
        // An inter frame, an existing frame shown again, and what is none.
        assert_eq!(is_key(&hex("86004092")), Ok(false));
        assert_eq!(is_key(&hex("88")), Ok(false));
        assert_eq!(is_key(&hex("41")), Err(Error::Invalid { field: "VP9 frame marker", value: 1 }));
        assert_eq!(Configuration::of_frame(None, &hex("86004092")), Ok(None));
        assert_eq!(Configuration::of_frame(None, &hex("82498343")), Err(Error::Missing("VP9 sync code")));
        assert_eq!(Configuration::of_frame(None, &hex("824983420013")), Err(Error::CutShort("VP9 frame header")));
    }

    #[test]
    fn what_is_no_record_is_refused_in_words() {
        for (record, words) in [
            ("", "the record is empty"),
            ("000b82", "the bytes end within the VP9 configuration record"),
            ("01000000 040b82020202 0000", "4 is no VP9 profile"),
            ("01000000 000b72020202 0000", "7 is no VP9 bit depth"),
        ] {
            assert_eq!(Record::parse(&hex(record)).unwrap_err().to_string(), words, "{record}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            start in prop::sample::select(vec!["", "82498342", "a2498342", "b2498342"]),
            rest in prop::collection::vec(any::<u8>(), 0..24),
        ) {
            let data = [&hex(start)[..], &rest].concat();
            let _ = (Record::parse(&data), is_key(&data));
            if let Ok(Some(found)) = Configuration::of_frame(None, &data) {
                prop_assert!(Record::parse(&found.record()).is_ok());
            }
        }
    }
}
