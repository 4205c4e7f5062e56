//! Parameter sets among the pictures. In an `hvc1` track they have to stand in the header (ISO/IEC 14496-15 §8.4.3): those that
//! do not say what it says make another one. They also stay where they came, so that pictures are byte for byte what was sent.

use bytes::{BufMut, Bytes, BytesMut};

use super::{ARRAY_COMPLETENESS, Configuration, FIXED_BYTES, PPS, RECORD, SPS, VPS, sps, take};
use crate::codec::Error;
use crate::codec::bits::Bits;
use crate::codec::nal::{self, Sets, Units, WithoutEmulation};

impl Configuration {
    /// The configuration of the pictures from this access unit on, where its parameter sets make it another one.
    ///
    /// # Errors
    /// As [`Configuration::parse`].
    pub fn with_sets_of(&self, access_unit: &[u8]) -> Result<Option<Self>, Error> {
        let (mut sets, others) = self.arrays()?;
        let is_changed = nal::merge_sets(&mut sets, Units::new(access_unit, self.nal_length_size), key)?;
        if !is_changed || sets.len() > MOST_SETS {
            return Ok(None);
        }
        Self::parse(self.record_of(&sets, &others)?).map(Some)
    }

    /// The parameter sets of the record, and its other arrays as they are.
    fn arrays(&self) -> Result<(Sets<'_>, Vec<&[u8]>), Error> {
        let mut rest = &self.record[FIXED_BYTES..];
        let (mut sets, mut others) = (Sets::new(), Vec::new());
        for _ in 0..self.record[FIXED_BYTES - 1] {
            let array = rest;
            let [kind, a, b] = take(&mut rest)?;
            for _ in 0..u16::from_be_bytes([a, b]) {
                let length = u16::from_be_bytes(take(&mut rest)?);
                let (unit, after) = rest.split_at_checked(length.into()).ok_or(Error::CutShort(RECORD))?;
                rest = after;
                sets.extend(key(unit).map(|key| (key, unit)));
            }
            if !(VPS..=PPS).contains(&(kind & 0b11_1111)) {
                others.push(&array[..array.len() - rest.len()]);
            }
        }
        Ok((sets, others))
    }

    /// ISO/IEC 14496-15 §8.3.3.1.
    fn record_of(&self, sets: &Sets<'_>, others: &[&[u8]]) -> Result<Bytes, Error> {
        let of = |kind: u8| sets.iter().filter(move |((other, _), _)| *other == kind).map(|(_, set)| nal::trimmed(set));
        let first = sps::read(of(SPS).next().ok_or(Error::Missing("SPS"))?)?;
        let mut record = BytesMut::from(&self.record[..FIXED_BYTES]);
        record[1..13].copy_from_slice(&first.general);
        record[16] = 0xfc | first.chroma_format;
        record[17] = 0xf8 | first.bit_depths[0];
        record[18] = 0xf8 | first.bit_depths[1];
        record[21] = record[21] & !0b11 | (self.nal_length_size - 1);
        let kinds = [VPS, SPS, PPS].map(|kind| (kind, of(kind).count())).into_iter().filter(|(_, count)| *count > 0);
        record[FIXED_BYTES - 1] = u8::try_from(kinds.clone().count() + others.len()).unwrap_or(u8::MAX);
        for (kind, count) in kinds {
            record.put_u8(ARRAY_COMPLETENESS | kind);
            record.put_u16(u16::try_from(count).expect("at most MOST_SETS"));
            for set in of(kind) {
                nal::put_set(&mut record, set)?;
            }
        }
        others.iter().for_each(|array| record.put_slice(array));
        Ok(record.freeze())
    }
}

/// Kind and id of a parameter set (H.265 §7.3.2.1 to §7.3.2.3); `None` of other units.
fn key(unit: &[u8]) -> Option<(u8, u32)> {
    let kind = unit.first()? >> 1 & 0b11_1111;
    let id = match kind {
        VPS => u32::from(unit.get(2)? >> 4),
        SPS => sps::read(unit).ok()?.id,
        PPS => {
            let rbsp: Vec<u8> = WithoutEmulation::new(unit.get(2..)?).take(8).collect();
            Bits::new(&rbsp, "PPS").unsigned_exp_golomb().ok()?
        }
        _ => return None,
    };
    Some((kind, id))
}

/// Far more than any stream has.
const MOST_SETS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::samples::{FFMPEG_HEVC, HDR10_HEVC, hex};

    /// The sets of a record as NAL units with 4-byte lengths.
    fn in_band(record: &str) -> Vec<u8> {
        let configuration = Configuration::parse(hex(record)).unwrap();
        let (units, _) = configuration.arrays().unwrap();
        units.iter().flat_map(|(_, set)| [&u32::try_from(set.len()).unwrap().to_be_bytes(), *set].concat()).collect()
    }

    #[test]
    fn sets_that_say_the_same_change_nothing() {
        let configuration = Configuration::parse(hex(FFMPEG_HEVC)).unwrap();
        assert_eq!(configuration.with_sets_of(&in_band(FFMPEG_HEVC)), Ok(None));
        assert_eq!(configuration.with_sets_of(&hex("00000003 2801af")), Ok(None));
    }

    #[test]
    fn other_sets_make_another_record() {
        let configuration = Configuration::parse(hex(FFMPEG_HEVC)).unwrap();
        let next = configuration.with_sets_of(&in_band(HDR10_HEVC)).unwrap().unwrap();
        let expected = Configuration::parse(hex(HDR10_HEVC)).unwrap();
        assert_eq!((next.picture().width, next.picture().height), (322, 182));
        assert_eq!(next.rfc6381(), expected.rfc6381());
        assert_eq!(next.picture().light.colour, expected.picture().light.colour);
        // Profile, chroma format and bit depths are those of ffmpeg's own record.
        assert_eq!(next.record()[..FIXED_BYTES - 1], expected.record()[..FIXED_BYTES - 1]);
        assert_eq!(next.with_sets_of(&in_band(HDR10_HEVC)), Ok(None));
    }

    #[test]
    fn other_arrays_stay() {
        let configuration = Configuration::parse(hex(HDR10_HEVC)).unwrap();
        let next = configuration.with_sets_of(&in_band(FFMPEG_HEVC)).unwrap().unwrap();
        assert_eq!(next.picture().light.mastering_display, configuration.picture().light.mastering_display);
        assert!(next.picture().light.mastering_display.is_some());
    }
}
