//! Parameter sets among the pictures. In an `avc1` track they have to stand in the header (ISO/IEC 14496-15 §5.3.2): those that
//! do not say what it says make another one. They also stay where they came, so that pictures are byte for byte what was sent.

use bytes::{BufMut, Bytes, BytesMut};

use super::access_unit::{PPS, SPS, unsigned_exp_golomb};
use super::{Configuration, Error, read_sps, take_sets};
use crate::codec::nal::{self, Sets, Units, WithoutEmulation};

impl Configuration {
    /// The configuration of the pictures from this access unit on, where its parameter sets make it another one.
    ///
    /// # Errors
    /// As [`Configuration::parse`].
    pub fn with_sets_of(&self, access_unit: &[u8]) -> Result<Option<Self>, Error> {
        let mut sets = self.sets();
        let is_changed = nal::merge_sets(&mut sets, Units::new(access_unit, self.nal_length_size), key)?;
        if !is_changed || sets.len() > MOST_SETS {
            return Ok(None);
        }
        Self::parse(self.record_of(&sets)?).map(Some)
    }

    fn sets(&self) -> Sets<'_> {
        let mut rest = &self.record[6..];
        let mut sets = Sets::new();
        let counted = take_sets(&mut rest, self.record[5] & 0b1_1111).into_iter().flatten();
        sets.extend(counted.filter_map(|set| Some((key(set)?, set))));
        if let Some(&count) = rest.split_off_first() {
            let counted = take_sets(&mut rest, count).into_iter().flatten();
            sets.extend(counted.filter_map(|set| Some((key(set)?, set))));
        }
        sets
    }

    /// ISO/IEC 14496-15 §5.3.3.1.
    fn record_of(&self, sets: &Sets<'_>) -> Result<Bytes, Error> {
        let of = |kind: u8| sets.iter().filter(move |((other, _), _)| *other == kind).map(|(_, set)| nal::trimmed(set));
        let first = of(SPS).next().ok_or(Error::Missing("SPS"))?;
        let &[_, profile, compatibility, level, ..] = first else { return Err(Error::CutShort("SPS")) };
        let mut record = BytesMut::new();
        record.put_slice(&[1, profile, compatibility, level, 0xfc | (self.nal_length_size - 1)]);
        for (kind, mark) in [(SPS, 0xe0), (PPS, 0)] {
            record.put_u8(mark | u8::try_from(of(kind).count()).expect("at most MOST_SETS"));
            for set in of(kind) {
                nal::put_set(&mut record, set)?;
            }
        }
        if matches!(profile, 100 | 110 | 122 | 144) {
            let chroma = read_sps(first)?.chroma_info;
            record.put_slice(&[
                0xfc | u8::try_from(chroma.chroma_format.to_u32()).unwrap_or(1),
                0xf8 | chroma.bit_depth_luma_minus8,
                0xf8 | chroma.bit_depth_chroma_minus8,
                0,
            ]);
        }
        Ok(record.freeze())
    }
}

/// Kind and id of a parameter set (H.264 §7.3.2.1.1, §7.3.2.2); `None` of other units.
fn key(unit: &[u8]) -> Option<(u8, u32)> {
    let (header, payload) = unit.split_first()?;
    let kind = header & 0b1_1111;
    // Profile, constraints and level stand before the id of an SPS.
    let before = match kind {
        SPS => 3,
        PPS => 0,
        _ => return None,
    };
    Some((kind, unsigned_exp_golomb(WithoutEmulation::new(payload).skip(before))?))
}

/// Some streams have dozens of PPS; a record holds 31 SPS.
const MOST_SETS: usize = 31;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::samples::{FFMPEG_AVC_5994, OBS_AVC, TWO_BYTE_LENGTHS_AVC, hex};

    /// The sets of a record as NAL units with 4-byte lengths.
    fn in_band(record: &str) -> Vec<u8> {
        let configuration = Configuration::parse(hex(record)).unwrap();
        let units = configuration.sets();
        units.iter().flat_map(|(_, set)| [&u32::try_from(set.len()).unwrap().to_be_bytes(), *set].concat()).collect()
    }

    #[test]
    fn sets_that_say_the_same_change_nothing() {
        let configuration = Configuration::parse(hex(OBS_AVC)).unwrap();
        // A delimiter before, a zero behind a set, the picture last.
        let sets = in_band(OBS_AVC);
        let unit: Bytes =
            [&hex("00000002 0910"), &sets[..], &hex("00000005 68efbcb000"), &hex("00000003 658884")].concat().into();
        assert_eq!(configuration.with_sets_of(&unit), Ok(None));
    }

    #[test]
    fn other_sets_make_another_record() {
        let configuration = Configuration::parse(hex(OBS_AVC)).unwrap();
        let unit: Bytes = [&in_band(FFMPEG_AVC_5994)[..], &hex("00000003 658884")].concat().into();
        let next = configuration.with_sets_of(&unit).unwrap().unwrap();
        // Byte for byte what ffmpeg writes.
        assert_eq!(next.record(), &hex(FFMPEG_AVC_5994));
        assert_eq!((next.picture().width, next.picture().height), (320, 180));
        assert_eq!(next.with_sets_of(&unit), Ok(None));
    }

    #[test]
    fn a_set_with_another_id_joins_the_others() {
        let configuration = Configuration::parse(hex(TWO_BYTE_LENGTHS_AVC)).unwrap();
        // pic_parameter_set_id 1: 010.
        let next = configuration.with_sets_of(&hex("0004 684efbc0")).unwrap().unwrap();
        assert_eq!(next.nal_length_size(), 2);
        assert_eq!(next.sets().len(), 3);
    }

    #[test]
    fn what_cannot_be_read_is_an_error_or_nothing() {
        let configuration = Configuration::parse(hex(OBS_AVC)).unwrap();
        assert!(configuration.with_sets_of(&hex("00000009 67")).is_err());
        assert!(configuration.with_sets_of(&hex("00000006 67640000 ff00")).is_err());
        assert_eq!(configuration.with_sets_of(&hex("00000001 67 00000001 68")), Ok(None));
    }
}
