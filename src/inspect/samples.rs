//! Inside samples: NAL units whose lengths add up, and sync samples that decoding can start at (ISO/IEC 14496-15).

use super::boxes::Fields;
use super::codec::SampleForm;
use super::finding::Rule;
use super::segment::length;

/// What is wrong with the bytes of a sample.
pub(super) fn judge(bytes: &[u8], form: SampleForm, is_sync: bool) -> Option<(Rule, String)> {
    let (length_bytes, is_random_access): (usize, fn(&[u8]) -> bool) = match form {
        SampleForm::H264(length_bytes) => (length_bytes, h264_random_access),
        SampleForm::H265(length_bytes) => (length_bytes, h265_random_access),
        SampleForm::Opaque => return None,
    };
    let mut fields = Fields(bytes);
    let mut can_start = false;
    while !fields.0.is_empty() {
        let nal_unit = length(&mut fields, length_bytes).and_then(|length| fields.take(length));
        match nal_unit {
            None => {
                return Some((Rule::Sample, format!("has {} bytes, its NAL units do not add up to that", bytes.len())));
            }
            Some([]) => return Some((Rule::Sample, "has an empty NAL unit".to_owned())),
            Some(nal_unit) => can_start |= is_random_access(nal_unit),
        }
    }
    if is_sync && !can_start {
        return Some((Rule::SyncSample, "is marked as sync, but has neither IDR nor recovery point".to_owned()));
    }
    None
}

/// An IDR slice, or an SEI message with a recovery point (ISO/IEC 14496-10 §7.4.1, §D.2.8).
fn h264_random_access(nal_unit: &[u8]) -> bool {
    match nal_unit[0] & 0x1f {
        5 => true,
        6 => has_recovery_point(&nal_unit[1..]),
        _ => false,
    }
}

/// An IRAP slice (ISO/IEC 23008-2 §7.4.2.2).
fn h265_random_access(nal_unit: &[u8]) -> bool {
    (16..=23).contains(&(nal_unit[0] >> 1 & 0x3f))
}

fn has_recovery_point(messages: &[u8]) -> bool {
    let mut fields = Fields(messages);
    loop {
        let (Some(kind), Some(size)) = (sei_number(&mut fields), sei_number(&mut fields)) else { return false };
        if kind == RECOVERY_POINT {
            return true;
        }
        if fields.take(size).is_none() {
            return false;
        }
    }
}

/// A number written as any count of 255 and a last byte below it.
fn sei_number(fields: &mut Fields<'_>) -> Option<usize> {
    let mut number = 0;
    loop {
        let byte = fields.u8()?;
        number += usize::from(byte);
        if byte != 0xff {
            return Some(number);
        }
    }
}

const RECOVERY_POINT: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nal_lengths_must_add_up() {
        let form = SampleForm::H264(4);
        assert_eq!(judge(b"\0\0\0\x02\x65\x80\0\0\0\x01\x41", form, true), None);
        assert_eq!(judge(b"\0\0\0\x02\x65", form, true).unwrap().0, Rule::Sample);
        assert_eq!(judge(b"\0\0\0\x02\x65\x80\0", form, true).unwrap().0, Rule::Sample);
        assert_eq!(judge(b"\0\0\0\0", form, false).unwrap().0, Rule::Sample);
        assert_eq!(judge(b"\0\x02\x41\x80", SampleForm::H264(2), false), None);
    }

    #[test]
    fn a_sync_sample_has_an_idr_slice_or_a_recovery_point() {
        let form = SampleForm::H264(1);
        assert_eq!(judge(b"\x02\x41\x80", form, true).unwrap().0, Rule::SyncSample);
        assert_eq!(judge(b"\x05\x06\x06\x01\xc4\x80\x02\x41\x80", form, true), None);
        assert_eq!(judge(b"\x06\x06\x01\x01\x00\x06\x00\x02\x41\x80", form, true), None);
    }
}
