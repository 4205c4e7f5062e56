//! Access units: one cheap walk over the headers of their NAL units.

use crate::codec::nal::Units;
use crate::codec::{Captions, Error, sei};

/// What an access unit's NAL unit headers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AccessUnit {
    /// It holds at least one slice: it is a picture.
    pub has_slice: bool,
    /// It holds an IDR slice: decoding can start here.
    pub has_idr: bool,
    /// `recovery_frame_cnt` of a recovery point SEI: decoding that starts here shows right pictures after so many frames
    /// (0 at the I picture of an open GOP, more with intra refresh).
    pub recovery_frame_count: Option<u32>,
    /// It holds a unit of no bytes (or padding at the end), which `normalise` takes out.
    pub has_empty_unit: bool,
    /// It holds an SPS or PPS, which an `avc1` track should have in its header only.
    pub has_parameter_set: bool,
    /// The captions in its SEI.
    pub captions: Captions,
}

impl AccessUnit {
    /// Decoding that starts here shows right pictures, if only after some ([`AccessUnit::recovery_frame_count`]).
    pub fn has_recovery_point(&self) -> bool {
        self.recovery_frame_count.is_some()
    }
}

/// Looks at the headers of an access unit's NAL units (H.264 §7.3.1). Slices are not read, nothing is allocated.
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
        match header & 0b1_1111 {
            IDR_SLICE => {
                found.has_slice = true;
                found.has_idr = true;
            }
            1..IDR_SLICE => found.has_slice = true,
            SEI => sei::messages(&unit[1..], |kind, payload| match kind {
                // §D.1.8
                RECOVERY_POINT => {
                    found.recovery_frame_count = found.recovery_frame_count.or_else(|| unsigned_exp_golomb(payload));
                }
                sei::ITU_T_T35 => found.captions |= Captions::of_itu_t_t35(payload),
                _ => {}
            }),
            SPS | PPS => found.has_parameter_set = true,
            _ => {}
        }
    }
    Ok(found)
}

/// `ue(v)` (H.264 §9.1) at the start of `bytes`.
pub(super) fn unsigned_exp_golomb(bytes: impl Iterator<Item = u8>) -> Option<u32> {
    let mut bits = bytes.flat_map(|byte| (0..8).rev().map(move |shift| u32::from(byte >> shift & 1)));
    let zeros = bits.by_ref().take(32).position(|bit| bit == 1)?;
    let mut value = 1_u32;
    for _ in 0..zeros {
        value = value << 1 | bits.next()?;
    }
    Some(value - 1)
}

const IDR_SLICE: u8 = 5;
const SEI: u8 = 6;
pub(super) const SPS: u8 = 7;
pub(super) const PPS: u8 = 8;

/// The recovery point message's payload type.
const RECOVERY_POINT: usize = 6;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::codec::nal::normalise;
    use crate::codec::samples::hex;

    #[test]
    fn an_idr_slice_behind_a_delimiter_and_parameter_sets_is_found() {
        let unit = hex("00000002 0910 00000002 6764 00000001 68 00000003 658884");
        let expected = AccessUnit { has_slice: true, has_idr: true, has_parameter_set: true, ..AccessUnit::default() };
        assert_eq!(inspect(&unit, 4), Ok(expected));
    }

    #[test]
    fn sei_alone_is_no_picture() {
        assert_eq!(inspect(&hex("00000004 06050180"), 4), Ok(AccessUnit::default()));
        assert_eq!(inspect(&[], 4), Ok(AccessUnit::default()));
    }

    #[test]
    fn a_recovery_point_is_found_behind_other_messages_and_emulation_prevention() {
        for (sei, count) in [
            ("06 06 01 c4 80", Some(0)),
            ("06 06 01 60 80", Some(2)),
            // Buffering period and picture timing first; then the payload of 3 bytes is 00 00 01.
            ("06 00 03 00000301 01 02 1212 06 01 c4 80", Some(0)),
            ("06 05 ff 00", None),
            ("06 ff", None),
            ("06", None),
            ("06 06 00 80", None),
            ("06 06 05 0000030000 00 80", None),
        ] {
            let sei = hex(sei);
            let unit = [&u32::try_from(sei.len()).unwrap().to_be_bytes()[..], &sei, &[0, 0, 0, 1, 0x41]].concat();
            let found = inspect(&unit, 4).unwrap();
            assert_eq!(found.recovery_frame_count, count, "{sei:02x?}");
            assert_eq!(found.has_recovery_point(), count.is_some());
            assert!(found.has_slice && !found.has_idr);
        }
    }

    #[test]
    fn captions_are_found_behind_other_messages_and_emulation_prevention() {
        // A recovery point; then two invalid pairs before the control code, whose three zeros are kept apart.
        let sei = hex("06 06 01 c4 04 13 b5 00 31 47413934 03 43 ff f80000 03 004141 fc9420 80");
        let unit = [&u32::try_from(sei.len()).unwrap().to_be_bytes()[..], &sei].concat();
        let found = inspect(&unit, 4).unwrap();
        assert_eq!(format!("{:?}", found.captions), "[Cc(1)]");
        assert_eq!(found.recovery_frame_count, Some(0));
    }

    #[test]
    fn empty_units_and_padding_are_told_and_taken_out() {
        let unit = hex("00000000 00000002 4101 00000000 000000");
        assert!(inspect(&unit, 4).unwrap().has_empty_unit);
        assert_eq!(normalise(&unit, 4), hex("00000002 4101"));
        assert_eq!(normalise(&hex("00000000"), 4), Bytes::new());
    }

    #[test]
    fn what_is_normal_already_is_not_copied() {
        let unit = hex("00000002 4101 00000001 06");
        assert_eq!(normalise(&unit, 4).as_ptr(), unit.as_ptr());
    }

    #[test]
    fn short_lengths_become_four_bytes() {
        assert_eq!(normalise(&hex("0002 4101 0000 0001 06"), 2), hex("00000002 4101 00000001 06"));
        assert_eq!(normalise(&hex("02 4101 01 06 00"), 1), hex("00000002 4101 00000001 06"));
    }

    #[test]
    fn a_length_past_the_end_is_refused() {
        for unit in ["00000003 4101", "ffffffff 41", "00000002 4101 0001", "00000001 41 00000100"] {
            assert_eq!(inspect(&hex(unit), 4), Err(Error::CutShort("last NAL unit")), "{unit}");
        }
        assert_eq!(normalise(&hex("00000002 4101 00000009 41"), 4), hex("00000002 4101"));
    }

    fn length_size() -> impl Strategy<Value = u8> {
        prop::sample::select(vec![1, 2, 4])
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(data in prop::collection::vec(any::<u8>(), 0..64), length_size in length_size()) {
            let data = Bytes::from(data);
            let found = inspect(&data, length_size);
            let normal = normalise(&data, length_size);
            let again = inspect(&normal, 4).unwrap();
            prop_assert_eq!(normalise(&normal, 4), &normal);
            if let Ok(found) = found {
                prop_assert_eq!(again, AccessUnit { has_empty_unit: false, ..found });
            }
        }

        #[test]
        fn normalising_changes_lengths_only(
            units in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8),
            length_size in length_size(),
        ) {
            let written = |units: &[Vec<u8>], length_size: usize| {
                let lengths = units.iter().map(|unit| unit.len().to_be_bytes()[8 - length_size..].to_vec());
                Bytes::from(lengths.zip(units).flat_map(|(length, unit)| [length, unit.clone()].concat()).collect::<Vec<_>>())
            };
            let filled: Vec<_> = units.iter().filter(|unit| !unit.is_empty()).cloned().collect();
            let normal = normalise(&written(&units, length_size.into()), length_size);
            prop_assert_eq!(normal, written(&filled, 4));
        }
    }
}
