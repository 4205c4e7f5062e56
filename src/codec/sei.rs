//! Supplemental enhancement information, the same in H.264 (§7.3.2.3) and H.265 (§7.3.5).

use std::iter::Take;

use super::nal::WithoutEmulation;

/// Hands `each` the messages of an SEI NAL unit: their types, and their payloads without emulation prevention. `payload` is
/// what is behind the unit's header. What is cut short counts as far as it goes.
pub(super) fn messages<'a>(payload: &'a [u8], mut each: impl FnMut(usize, &mut Take<&mut WithoutEmulation<'a>>)) {
    let mut bytes = WithoutEmulation::new(payload);
    while let Some((kind, size)) = ff_coded(&mut bytes).zip(ff_coded(&mut bytes)) {
        let mut message = bytes.by_ref().take(size);
        each(kind, &mut message);
        message.for_each(drop);
    }
}

/// A payload type or size: as many 255s as fit, and the remainder.
fn ff_coded(bytes: &mut impl Iterator<Item = u8>) -> Option<usize> {
    let mut value = 0_usize;
    loop {
        let byte = bytes.next()?;
        value = value.saturating_add(byte.into());
        if byte != 0xff {
            return Some(value);
        }
    }
}

/// `user_data_registered_itu_t_t35`.
pub(super) const ITU_T_T35: usize = 4;
