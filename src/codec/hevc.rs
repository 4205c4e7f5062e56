//! H.265: the decoder configuration record and access units here, the sequence parameter set in `sps`,
//! what stands beside it in `sei`.

mod parameter_sets;
mod sei;
mod sps;

use bytes::{Bytes, BytesMut};

use super::nal::Units;
use super::{Captions, Error, FrameRate, Light, Picture, check_length};

/// An `HEVCDecoderConfigurationRecord` (ISO/IEC 14496-15 §8.3.3.1) that has been parsed. Two are equal when their bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    record: Bytes,
    nal_length_size: u8,
    picture: Picture,
}

impl Configuration {
    /// Parses the body of a legacy or enhanced sequence header.
    ///
    /// # Errors
    /// When the record is cut short or without a readable SPS, when it has no PPS, or has 3-byte NAL unit lengths.
    pub fn parse(record: Bytes) -> Result<Self, Error> {
        check_length(&record, MOST_RECORD_BYTES)?;
        let Some((&fixed, arrays)) = record.split_first_chunk::<FIXED_BYTES>() else {
            return Err(Error::CutShort(RECORD));
        };
        // Some encoders before Enhanced RTMP wrote version 0.
        if fixed[0] > 1 {
            return Err(Error::Invalid {
                field: "version of the decoder configuration record",
                value: fixed[0].into(),
            });
        }
        let nal_length_size = (fixed[21] & 0b11) + 1;
        if nal_length_size == 3 {
            return Err(Error::Invalid { field: "NAL unit length size", value: 3 });
        }
        let mut normal = BytesMut::from(&record[..]);
        normal[0] = 1;
        normal[21] |= 0b11;
        let (mut sps, mut has_pps, mut light) = (None, false, Light::default());
        let mut rest = arrays;
        for _ in 0..fixed[22] {
            let place = record.len() - rest.len();
            let [kind, a, b] = take(&mut rest)?;
            let kind = kind & 0b11_1111;
            // `hvc1` means that all parameter sets stand here and none in the samples.
            if (VPS..=PPS).contains(&kind) {
                normal[place] |= ARRAY_COMPLETENESS;
            }
            for _ in 0..u16::from_be_bytes([a, b]) {
                let length = u16::from_be_bytes(take(&mut rest)?);
                let (unit, after) = rest.split_at_checked(length.into()).ok_or(Error::CutShort(RECORD))?;
                rest = after;
                match kind {
                    SPS if !unit.is_empty() => sps = sps.or(Some(unit)),
                    PPS if !unit.is_empty() => has_pps = true,
                    PREFIX_SEI => light = light.or(sei::read(unit).0),
                    _ => {}
                }
            }
        }
        let mut picture = sps::read(sps.ok_or(Error::Missing("SPS"))?)?.picture;
        if !has_pps {
            return Err(Error::Missing("PPS"));
        }
        picture.light = picture.light.or(light);
        picture.frame_rate = constant_frame_rate(&fixed);
        Ok(Self { record: normal.freeze(), nal_length_size, picture })
    }

    /// The record for `hvcC`: as it came, but that NAL unit lengths are the 4 bytes that `normalise` writes, and that its
    /// parameter sets are said to be complete, as `hvc1` asks.
    pub fn record(&self) -> &Bytes {
        &self.record
    }

    /// Bytes of a NAL unit's length in what the publisher sends: 1, 2 or 4.
    pub fn nal_length_size(&self) -> u8 {
        self.nal_length_size
    }

    /// The picture, as the SPS describes it; the frame rate where the record says that it is constant.
    pub fn picture(&self) -> &Picture {
        &self.picture
    }

    pub(super) fn picture_mut(&mut self) -> &mut Picture {
        &mut self.picture
    }

    /// `hvc1.PROFILE.COMPATIBILITY.TIER-LEVEL.CONSTRAINTS` (ISO/IEC 14496-15 Annex E): `hvc1.1.6.L93.90`.
    pub fn rfc6381(&self) -> String {
        let profile = self.record[1];
        let space = ["", "A", "B", "C"][usize::from(profile >> 6)];
        let tier = if profile & 0b10_0000 == 0 { 'L' } else { 'H' };
        let compatibility = u32::from_be_bytes(*self.record[2..].first_chunk().expect("longer than its fixed part"));
        let constraints = &self.record[6..12];
        let filled = constraints.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let mut name =
            format!("hvc1.{space}{}.{:X}.{tier}{}", profile & 0b1_1111, compatibility.reverse_bits(), self.record[12]);
        for byte in &constraints[..filled] {
            name.push_str(&format!(".{byte:X}"));
        }
        name
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Error> {
    let (&taken, after) = rest.split_first_chunk().ok_or(Error::CutShort(RECORD))?;
    *rest = after;
    Ok(taken)
}

/// `avgFrameRate` counts frames in 256 seconds; `constantFrameRate` makes it a promise.
fn constant_frame_rate(fixed: &[u8; FIXED_BYTES]) -> Option<FrameRate> {
    let average = u16::from_be_bytes([fixed[19], fixed[20]]);
    let is_constant = fixed[21] >> 6 == 1 && average > 0;
    is_constant.then(|| FrameRate { frames: average.into(), seconds: 256 })
}

/// What an access unit's NAL unit headers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AccessUnit {
    /// It holds at least one slice: it is a picture.
    pub has_slice: bool,
    /// An IDR or BLA picture: whatever follows can be decoded, or says itself that it cannot.
    pub has_clean_start: bool,
    /// A CRA picture: decoding can start here, but pictures that follow it may be shown before it and need earlier ones.
    pub has_cra: bool,
    /// It holds a unit of no bytes (or padding at the end), which `normalise` takes out.
    pub has_empty_unit: bool,
    /// It holds a VPS, SPS or PPS, which an `hvc1` track has in its header.
    pub has_parameter_set: bool,
    /// The captions in its SEI.
    pub captions: Captions,
    /// The light in its SEI.
    pub light: Light,
}

/// Looks at the headers of an access unit's NAL units (H.265 §7.3.1.2). Slices are not read, nothing is allocated.
///
/// # Errors
/// [`Error::CutShort`] when a length runs past the end: the tag is broken and should be skipped and counted.
pub fn inspect(data: &[u8], nal_length_size: u8) -> Result<AccessUnit, Error> {
    let mut found = AccessUnit::default();
    for unit in Units::new(data, nal_length_size) {
        let unit = unit?;
        let Some(&header) = unit.first() else {
            found.has_empty_unit = true;
            continue;
        };
        match header >> 1 & 0b11_1111 {
            BLA_W_LP..=IDR_N_LP => {
                found.has_slice = true;
                found.has_clean_start = true;
            }
            CRA => {
                found.has_slice = true;
                found.has_cra = true;
            }
            0..VPS => found.has_slice = true,
            VPS..=PPS => found.has_parameter_set = true,
            PREFIX_SEI => {
                let (light, captions) = sei::read(unit);
                found.light = found.light.or(light);
                found.captions |= captions;
            }
            _ => {}
        }
    }
    Ok(found)
}

const BLA_W_LP: u8 = 16;
const IDR_N_LP: u8 = 20;
const CRA: u8 = 21;
const VPS: u8 = 32;
const SPS: u8 = 33;
const PPS: u8 = 34;
const PREFIX_SEI: u8 = 39;

const ARRAY_COMPLETENESS: u8 = 0x80;

/// Up to and including `numOfArrays`.
const FIXED_BYTES: usize = 23;

const RECORD: &str = "decoder configuration record";

/// Bytes of a record that we believe. x265 writes its settings in words behind the parameter sets.
const MOST_RECORD_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::samples::{FFMPEG_HEVC, HDR10_HEVC, hex};

    #[test]
    fn a_record_of_x265_is_understood() {
        let found = Configuration::parse(hex(FFMPEG_HEVC)).unwrap();
        assert_eq!(found.rfc6381(), "hvc1.1.6.L60.90");
        assert_eq!((found.picture().width, found.picture().height), (320, 180));
        assert_eq!(found.nal_length_size(), 4);
        assert_eq!(found.picture().frame_rate, None);
        // Its parameter sets are said to be complete; all else is as it came.
        let (sent, kept) = (hex(FFMPEG_HEVC), found.record());
        let changed: Vec<_> = (0..sent.len()).filter(|&at| sent[at] != kept[at]).collect();
        assert_eq!(changed, [23, 52, 100]);
        assert_eq!((kept[23], kept[52], kept[100]), (0xa0, 0xa1, 0xa2));
    }

    #[test]
    fn light_is_found_beside_the_parameter_sets() {
        let light = Configuration::parse(hex(HDR10_HEVC)).unwrap().picture().light;
        assert_eq!(light.colour.unwrap().transfer, 16);
        assert_eq!(light.mastering_display.unwrap().most_luminance, 10_000_000);
        assert_eq!(light.content_light_level.unwrap().most, 1000);
    }

    #[test]
    fn names_have_tier_space_and_constraints() {
        let mut record = hex(FFMPEG_HEVC).to_vec();
        record[1] = 0b0110_0010;
        record[2..6].copy_from_slice(&[0x20, 0, 0, 0]);
        record[6..12].copy_from_slice(&[0xb0, 0, 0, 0, 0, 0]);
        record[12] = 153;
        assert_eq!(Configuration::parse(record.clone().into()).unwrap().rfc6381(), "hvc1.A2.4.H153.B0");
        record[6] = 0;
        assert_eq!(Configuration::parse(record.into()).unwrap().rfc6381(), "hvc1.A2.4.H153");
    }

    #[test]
    fn pictures_are_told_by_their_units() {
        let picture = AccessUnit { has_slice: true, ..AccessUnit::default() };
        // A delimiter and a trailing picture; IDR_W_RADL behind parameter sets; CRA; BLA_N_LP; an SEI alone.
        assert_eq!(inspect(&hex("00000002 4601 00000003 0201d0"), 4), Ok(picture));
        let idr = AccessUnit { has_clean_start: true, ..picture };
        assert_eq!(
            inspect(&hex("00000002 4001 00000002 4201 00000002 4401 00000003 2801af"), 4),
            Ok(AccessUnit { has_parameter_set: true, ..idr })
        );
        assert_eq!(inspect(&hex("00000003 2a01af"), 4), Ok(AccessUnit { has_cra: true, ..picture }));
        assert_eq!(inspect(&hex("0003 2401af 0000"), 2), Ok(AccessUnit { has_empty_unit: true, ..idr }));
        assert_eq!(inspect(&hex("00000003 4e0105"), 4), Ok(AccessUnit::default()));
        assert_eq!(inspect(&hex("00000004 4e0105"), 4), Err(Error::CutShort("last NAL unit")));
    }

    #[test]
    fn what_is_no_record_is_refused_in_words() {
        let of = |change: fn(&mut Vec<u8>)| {
            let mut record = hex(FFMPEG_HEVC).to_vec();
            change(&mut record);
            Configuration::parse(record.into()).unwrap_err().to_string()
        };
        assert_eq!(of(Vec::clear), "the record is empty");
        assert_eq!(of(|record| record.truncate(22)), "the bytes end within the decoder configuration record");
        assert_eq!(of(|record| record[0] = 2), "2 is no version of the decoder configuration record");
        assert_eq!(of(|record| record[21] = 0x0e), "3 is no NAL unit length size");
        assert_eq!(of(|record| record[22] = 1), "there is no SPS");
        assert_eq!(of(|record| record[22] = 2), "there is no PPS");
        assert_eq!(of(|record| record[54] = 2), "the bytes end within the decoder configuration record");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn no_damage_to_a_record_makes_the_parser_panic(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            end in any::<prop::sample::Index>(),
            is_cut: bool,
        ) {
            let mut record = hex(FFMPEG_HEVC).to_vec();
            for (index, byte) in damage {
                // Most of what is behind the parameter sets is text.
                let at = index.index(110);
                record[at] = byte;
            }
            if is_cut {
                record.truncate(end.index(record.len()));
            }
            if let Ok(found) = Configuration::parse(record.into()) {
                prop_assert!(found.picture().width > 0 && found.picture().height > 0);
                let _ = (found.rfc6381(), found.picture().display_size());
            }
        }
    }
}
