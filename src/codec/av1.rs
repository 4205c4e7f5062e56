//! AV1: `av1C`, the sequence header, temporal units; metadata about light in `light`.

mod light;

use bytes::{BufMut, Bytes, BytesMut};

use super::bits::Bits;
use super::{Captions, Colour, Error, Light, Picture, check_length};

/// An `AV1CodecConfigurationRecord` (AV1-ISOBMFF §2.3.3) that has been parsed. Two are equal when their bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    record: Bytes,
    sequence: Sequence,
    picture: Picture,
}

impl Configuration {
    /// Parses the body of a sequence header.
    ///
    /// # Errors
    /// When it is cut short or of a kind that we do not know; [`Error::Missing`] when it does not hold an AV1 sequence header,
    /// which then stands in the first key frame: [`Configuration::of_temporal_unit`].
    pub fn parse(record: Bytes) -> Result<Self, Error> {
        check_length(&record, MOST_RECORD_BYTES)?;
        let Some((&[marker_and_version, ..], units)) = record.split_first_chunk::<FIXED_BYTES>() else {
            return Err(Error::CutShort("AV1 configuration record"));
        };
        if marker_and_version != MARKER_AND_VERSION {
            let value = marker_and_version.into();
            return Err(Error::Invalid { field: "marker and version of the AV1 configuration record", value });
        }
        let header = sequence_header(units)?.ok_or(Error::Missing(SEQUENCE_HEADER_NAME))?;
        let sequence = Sequence::read(header.payload)?;
        let mut picture = sequence.picture;
        for unit in Units::new(units).map_while(Result::ok).filter(|unit| unit.kind == METADATA) {
            picture.light = picture.light.or(light::light(unit.payload));
        }
        Ok(Self { picture, sequence, record })
    }

    /// The configuration that the sequence header in a temporal unit gives, when it has one.
    ///
    /// # Errors
    /// When the temporal unit is broken.
    pub fn of_temporal_unit(data: &[u8]) -> Result<Option<Self>, Error> {
        let Some(header) = sequence_header(data)? else { return Ok(None) };
        let sequence = Sequence::read(header.payload)?;
        let mut record = BytesMut::with_capacity(FIXED_BYTES + header.payload.len() + 6);
        record.put_slice(&sequence.record());
        record.put_u8(SEQUENCE_HEADER << 3 | HAS_SIZE);
        put_leb128(&mut record, header.payload.len());
        record.put_slice(header.payload);
        Ok(Some(Self { picture: sequence.picture, sequence, record: record.freeze() }))
    }

    /// The same sequence, whatever else stands in the records.
    pub fn is_same_sequence(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }

    /// The record for `av1C`, byte for byte as it came.
    pub fn record(&self) -> &Bytes {
        &self.record
    }

    /// The picture, as the sequence header describes it.
    pub fn picture(&self) -> &Picture {
        &self.picture
    }

    pub(super) fn picture_mut(&mut self) -> &mut Picture {
        &mut self.picture
    }

    /// `av01.P.LLT.DD` (AV1-ISOBMFF §5): profile, level, tier, bit depth.
    pub fn rfc6381(&self) -> String {
        let Sequence { profile, level, is_high_tier, bit_depth, .. } = self.sequence;
        format!("av01.{profile}.{level:02}{}.{bit_depth:02}", if is_high_tier { 'H' } else { 'M' })
    }
}

/// `sequence_header_obu()` (AV1 §5.5), as far as it concerns us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sequence {
    profile: u8,
    level: u8,
    is_high_tier: bool,
    bit_depth: u8,
    is_monochrome: bool,
    subsampling: (bool, bool),
    chroma_sample_position: u8,
    picture: Picture,
}

impl Sequence {
    fn read(payload: &[u8]) -> Result<Self, Error> {
        let mut bits = Bits::new(payload, SEQUENCE_HEADER_NAME);
        let profile = bits.read_u8(3)?;
        if profile > 2 {
            return Err(Error::Invalid { field: "AV1 profile", value: profile.into() });
        }
        let _still_picture = bits.flag()?;
        let is_reduced = bits.flag()?;
        let (level, is_high_tier) = if is_reduced { (bits.read_u8(5)?, false) } else { bits.operating_points()? };
        let [width_bits, height_bits] = [bits.read(4)? + 1, bits.read(4)? + 1];
        let [width, height] = [bits.read(width_bits)? + 1, bits.read(height_bits)? + 1];
        let pixels = |field, value: u32| match u16::try_from(value) {
            Ok(pixels) => Ok(pixels),
            Err(_) => Err(Error::Unsupported { field, value: value.into() }),
        };
        bits.tools(is_reduced)?;
        let mut sequence = Self {
            profile,
            level,
            is_high_tier,
            bit_depth: 8,
            is_monochrome: false,
            subsampling: (true, true),
            chroma_sample_position: 0,
            picture: Picture {
                width: pixels("picture width", width)?,
                height: pixels("picture height", height)?,
                ..Picture::default()
            },
        };
        sequence.read_colours(&mut bits)?;
        Ok(sequence)
    }

    /// `color_config()`, §5.5.2.
    fn read_colours(&mut self, bits: &mut Bits<'_>) -> Result<(), Error> {
        let has_high_depth = bits.flag()?;
        self.bit_depth = match (has_high_depth, self.profile) {
            (true, 2) if bits.flag()? => 12,
            (true, _) => 10,
            (false, _) => 8,
        };
        self.is_monochrome = self.profile != 1 && bits.flag()?;
        let is_described = bits.flag()?;
        let [primaries, transfer, matrix] =
            if is_described { [bits.read_u8(8)?, bits.read_u8(8)?, bits.read_u8(8)?] } else { [UNSPECIFIED; 3] };
        let is_full_range;
        if self.is_monochrome {
            is_full_range = bits.flag()?;
        } else if [primaries, transfer, matrix] == SRGB {
            is_full_range = true;
            self.subsampling = (false, false);
        } else {
            is_full_range = bits.flag()?;
            self.subsampling = match self.profile {
                0 => (true, true),
                1 => (false, false),
                _ if self.bit_depth == 12 => {
                    let across = bits.flag()?;
                    (across, across && bits.flag()?)
                }
                _ => (true, false),
            };
            if self.subsampling == (true, true) {
                self.chroma_sample_position = bits.read_u8(2)?;
            }
        }
        let colour = Colour { primaries, transfer, matrix, is_full_range };
        self.picture.light = Light { colour: is_described.then_some(colour), ..Light::default() };
        Ok(())
    }

    /// The part of `av1C` before its OBUs.
    fn record(&self) -> [u8; FIXED_BYTES] {
        let flags = [
            self.is_high_tier,
            self.bit_depth > 8,
            self.bit_depth == 12,
            self.is_monochrome,
            self.subsampling.0,
            self.subsampling.1,
        ];
        let flags = flags.iter().fold(0, |byte, &flag| byte << 1 | u8::from(flag)) << 2;
        [MARKER_AND_VERSION, self.profile << 5 | self.level, flags | self.chroma_sample_position, 0]
    }
}

impl Bits<'_> {
    /// Level and tier of operating point 0: all layers.
    fn operating_points(&mut self) -> Result<(u8, bool), Error> {
        let mut decoder_model_delay_bits = None;
        if self.flag()? {
            // timing_info(), §5.5.3.
            self.skip(64)?;
            if self.flag()? {
                self.unsigned_exp_golomb()?;
            }
            if self.flag()? {
                decoder_model_delay_bits = Some(self.read(5)? as usize + 1);
                self.skip(32 + 5 + 5)?;
            }
        }
        let has_initial_display_delay = self.flag()?;
        let count = self.read(5)? + 1;
        let mut first = None;
        for _ in 0..count {
            self.skip(12)?;
            let level = self.read_u8(5)?;
            let is_high_tier = level > 7 && self.flag()?;
            if let Some(delay_bits) = decoder_model_delay_bits
                && self.flag()?
            {
                self.skip(2 * delay_bits + 1)?;
            }
            if has_initial_display_delay && self.flag()? {
                self.skip(4)?;
            }
            first = first.or(Some((level, is_high_tier)));
        }
        Ok(first.expect("the count is at least 1"))
    }

    /// What stands between the size and the colours.
    fn tools(&mut self, is_reduced: bool) -> Result<(), Error> {
        if !is_reduced && self.flag()? {
            // Frame ids.
            self.skip(4 + 3)?;
        }
        // Superblock size, intra tools.
        self.skip(3)?;
        if !is_reduced {
            // Inter tools.
            self.skip(4)?;
            let has_order_hint = self.flag()?;
            if has_order_hint {
                self.skip(2)?;
            }
            let chooses_screen_content = self.flag()?;
            let may_have_screen_content = chooses_screen_content || self.flag()?;
            if may_have_screen_content {
                let chooses_integer_motion = self.flag()?;
                if !chooses_integer_motion {
                    self.skip(1)?;
                }
            }
            if has_order_hint {
                self.skip(3)?;
            }
        }
        // Super resolution, directional enhancement, restoration.
        self.skip(3)
    }
}

/// What a temporal unit's OBUs tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TemporalUnit {
    /// It holds a frame.
    pub has_frame: bool,
    /// Its first frame is a key frame that is shown: decoding can start here.
    pub is_key: bool,
    /// The captions in its metadata.
    pub captions: Captions,
    /// The light in its metadata.
    pub light: Light,
}

/// Looks at the headers of a temporal unit's OBUs and of its first frame.
///
/// # Errors
/// [`Error::CutShort`] when an OBU runs past the end.
pub fn inspect(data: &[u8]) -> Result<TemporalUnit, Error> {
    let mut found = TemporalUnit::default();
    for unit in Units::new(data) {
        let unit = unit?;
        if matches!(unit.kind, FRAME_HEADER | FRAME) && !found.has_frame {
            found.has_frame = true;
            let first = *unit.payload.first().ok_or(Error::CutShort("AV1 frame header"))?;
            // show_existing_frame 0, frame_type KEY_FRAME, show_frame 1 (§5.9.2).
            found.is_key = first >> 4 == 0b0001;
        }
        if unit.kind == METADATA {
            match unit.payload.split_first() {
                Some((&ITU_T_T35, payload)) => found.captions |= Captions::of_itu_t_t35(payload.iter().copied()),
                _ => found.light = found.light.or(light::light(unit.payload)),
            }
        }
    }
    Ok(found)
}

/// The temporal unit without temporal delimiters, which AV1-ISOBMFF §2.4 does not want: as a rule the same slice, or one
/// that begins behind the first.
pub fn normalise(data: &Bytes) -> Bytes {
    let is_kept = |unit: &Unit<'_>| unit.kind != TEMPORAL_DELIMITER;
    let units = || Units::new(data).map_while(Result::ok);
    let Some(first) = units().find(is_kept) else { return Bytes::new() };
    if units().skip_while(|unit| !is_kept(unit)).all(|unit| is_kept(&unit)) {
        return data.slice(first.place..);
    }
    let kept = units().filter(is_kept).flat_map(|unit| unit.whole);
    kept.copied().collect()
}

fn sequence_header(data: &[u8]) -> Result<Option<Unit<'_>>, Error> {
    for unit in Units::new(data) {
        let unit = unit?;
        if unit.kind == SEQUENCE_HEADER {
            return Ok(Some(unit));
        }
    }
    Ok(None)
}

/// An open bitstream unit (AV1 §5.3).
struct Unit<'a> {
    kind: u8,
    payload: &'a [u8],
    whole: &'a [u8],
    /// Where in the data it begins.
    place: usize,
}

/// The OBUs of a temporal unit in the low-overhead format; the last may lack its size.
struct Units<'a> {
    data: &'a [u8],
    place: usize,
}

impl<'a> Units<'a> {
    fn new(data: &'a [u8]) -> Self {
        Self { data, place: 0 }
    }

    fn read(&mut self) -> Result<Unit<'a>, Error> {
        let whole = &self.data[self.place..];
        let broken = Error::CutShort("last OBU");
        let mut rest = whole;
        let header = *rest.split_off_first().ok_or(broken)?;
        if header & FORBIDDEN != 0 {
            return Err(Error::Invalid { field: "OBU header", value: header.into() });
        }
        if header & HAS_EXTENSION != 0 {
            rest.split_off_first().ok_or(broken)?;
        }
        let size = if header & HAS_SIZE == 0 { rest.len() } else { leb128(&mut rest).ok_or(broken)? };
        let (payload, after) = rest.split_at_checked(size).ok_or(broken)?;
        let whole = &whole[..whole.len() - after.len()];
        let place = self.place;
        self.place += whole.len();
        Ok(Unit { kind: header >> 3 & 0b1111, payload, whole, place })
    }
}

impl<'a> Iterator for Units<'a> {
    type Item = Result<Unit<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.place >= self.data.len() {
            return None;
        }
        let unit = self.read();
        if unit.is_err() {
            self.place = self.data.len();
        }
        Some(unit)
    }
}

/// §4.10.5.
fn leb128(rest: &mut &[u8]) -> Option<usize> {
    let mut value = 0;
    for shift in (0..32).step_by(7) {
        let byte = *rest.split_off_first()?;
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn put_leb128(out: &mut BytesMut, mut value: usize) {
    loop {
        let low = u8::try_from(value & 0x7f).expect("7 bits");
        value >>= 7;
        out.put_u8(if value == 0 { low } else { low | 0x80 });
        if value == 0 {
            return;
        }
    }
}

const SEQUENCE_HEADER: u8 = 1;
const TEMPORAL_DELIMITER: u8 = 2;
const METADATA: u8 = 5;
/// A metadata type (§6.7.1).
const ITU_T_T35: u8 = 4;
const FRAME_HEADER: u8 = 3;
const FRAME: u8 = 6;

const FORBIDDEN: u8 = 0x80;
const HAS_EXTENSION: u8 = 0b100;
const HAS_SIZE: u8 = 0b10;

const SEQUENCE_HEADER_NAME: &str = "AV1 sequence header";

const MARKER_AND_VERSION: u8 = 0x81;
/// Before the OBUs.
const FIXED_BYTES: usize = 4;
/// A sequence header and some metadata.
const MOST_RECORD_BYTES: usize = 16 << 10;

const UNSPECIFIED: u8 = 2;
/// Primaries of BT.709, transfer of sRGB, no matrix.
const SRGB: [u8; 3] = [1, 13, 0];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::samples::{FFMPEG_AV1, hex};

    /// libaom's first temporal unit, its frame cut short.
    const KEY: &str = "0a0b0200000521e7f66257c802 3204 10009020";

    fn unit(has_frame: bool, is_key: bool) -> TemporalUnit {
        TemporalUnit { has_frame, is_key, ..TemporalUnit::default() }
    }

    #[test]
    fn captions_stand_in_metadata() {
        let found = inspect(&hex("1200 2a0e 04 b5 00 31 47413934 03 41 ff fc9420 3204 30009020")).unwrap();
        assert!(found.has_frame);
        assert_eq!(format!("{:?}", found.captions), "[Cc(1)]");
    }

    #[test]
    fn a_record_of_libaom_is_understood() {
        let found = Configuration::parse(hex(FFMPEG_AV1)).unwrap();
        assert_eq!(found.record(), &hex(FFMPEG_AV1));
        assert_eq!(found.rfc6381(), "av01.0.00M.08");
        assert_eq!((found.picture().width, found.picture().height), (320, 180));
        assert_eq!(found.picture().light.colour, None);
    }

    #[test]
    fn a_record_can_be_made_from_the_first_temporal_unit() {
        assert_eq!(Configuration::parse(hex("81000c00")), Err(Error::Missing("AV1 sequence header")));
        let made = Configuration::of_temporal_unit(&hex(KEY)).unwrap().unwrap();
        assert_eq!(made.record(), &hex("81000c00 0a0b0200000521e7f66257c802"));
        assert_eq!(made.rfc6381(), "av01.0.00M.08");
        assert_eq!(Configuration::of_temporal_unit(&hex("3204 30009020")), Ok(None));
    }

    #[test]
    fn key_frames_are_told_by_their_headers() {
        assert_eq!(inspect(&hex(KEY)), Ok(unit(true, true)));
        assert_eq!(inspect(&hex("1200 3204 30009020")), Ok(unit(true, false)));
        // A key frame that is not shown; an existing frame that is; a delimiter alone; an OBU without a size.
        assert_eq!(inspect(&hex("3202 0000")), Ok(unit(true, false)));
        assert_eq!(inspect(&hex("1a01 80")), Ok(unit(true, false)));
        assert_eq!(inspect(&hex("1200")), Ok(TemporalUnit::default()));
        assert_eq!(inspect(&hex("1200 30 1000")), Ok(unit(true, true)));
        for broken in ["3205 1000", "32", "36", "32ffffffffff", "3200"] {
            assert!(matches!(inspect(&hex(broken)), Err(Error::CutShort(_))), "{broken}");
        }
        assert!(inspect(&hex("8000")).is_err());
    }

    #[test]
    fn temporal_delimiters_are_taken_out_without_a_copy_where_they_are_wont_to_be() {
        let unit = hex("1200 3204 30009020");
        assert_eq!(normalise(&unit).as_ptr(), unit[2..].as_ptr());
        let unit = hex("3202 3000");
        assert_eq!(normalise(&unit).as_ptr(), unit.as_ptr());
        assert_eq!(normalise(&hex("1200 3202 3000 1200 3a01 11")), hex("3202 3000 3a01 11"));
        assert_eq!(normalise(&hex("1200")), Bytes::new());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn no_bytes_make_it_panic(
            start in prop::sample::select(vec!["", FFMPEG_AV1, KEY, "81000c000a", "0a0f"]),
            rest in prop::collection::vec(any::<u8>(), 0..40),
            damaged in any::<prop::sample::Index>(),
            damage: u8,
        ) {
            let mut data = [&hex(start)[..], &rest].concat();
            if !data.is_empty() {
                let at = damaged.index(data.len());
                data[at] ^= damage;
            }
            let data = Bytes::from(data);
            let _ = (Configuration::parse(data.clone()), inspect(&data), normalise(&data));
            if let Ok(Some(found)) = Configuration::of_temporal_unit(&data) {
                prop_assert!(found.picture().width > 0);
                prop_assert!(Configuration::parse(found.record().clone()).unwrap().is_same_sequence(&found));
            }
        }
    }
}
