//! NAL units, of H.264 and H.265 alike: their length-prefixed form, and the bytes within.

use bytes::{BufMut, Bytes, BytesMut};

use super::Error;

/// The access unit with 4-byte lengths and without empty units: the same slice when that is what it is already. Units from
/// a broken length on are left out; `inspect` refuses such an access unit.
pub fn normalise(data: &Bytes, nal_length_size: u8) -> Bytes {
    let is_filled = |unit: Result<&[u8], Error>| unit.is_ok_and(|unit| !unit.is_empty());
    if nal_length_size == 4 && Units::new(data, nal_length_size).all(is_filled) {
        return data.clone();
    }
    let units = || Units::new(data, nal_length_size).map_while(Result::ok).filter(|unit| !unit.is_empty());
    let mut normal = BytesMut::with_capacity(units().map(|unit| 4 + unit.len()).sum());
    for unit in units() {
        let length = u32::try_from(unit.len()).expect("a unit whose length was read from at most 4 bytes");
        normal.put_u32(length);
        normal.put_slice(unit);
    }
    normal.freeze()
}

/// A parameter set without the zero bytes that may follow its stop bit.
pub(super) fn trimmed(set: &[u8]) -> &[u8] {
    &set[..set.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)]
}

/// Puts the parameter sets of an access unit among `sets`, each in the place of the one with its kind and id if there is
/// one; `key` tells these. Whether that changes anything.
pub(super) fn merge_sets<'a>(
    sets: &mut Sets<'a>,
    units: Units<'a>,
    key: impl Fn(&[u8]) -> Option<(u8, u32)>,
) -> Result<bool, Error> {
    let mut is_changed = false;
    for unit in units {
        let unit = unit?;
        let Some(key) = key(unit) else { continue };
        match sets.iter_mut().find(|(other, _)| *other == key) {
            Some((_, known)) if trimmed(known) == trimmed(unit) => continue,
            Some((_, known)) => *known = unit,
            None => sets.push((key, unit)),
        }
        is_changed = true;
    }
    Ok(is_changed)
}

/// Appends a parameter set to a decoder configuration record.
pub(super) fn put_set(record: &mut BytesMut, set: &[u8]) -> Result<(), Error> {
    let length = u16::try_from(set.len());
    record.put_u16(length.map_err(|_| Error::Invalid { field: "parameter set length", value: set.len() as u64 })?);
    record.put_slice(set);
    Ok(())
}

/// Parameter sets by their kind and id.
pub(super) type Sets<'a> = Vec<((u8, u32), &'a [u8])>;

/// The NAL units of an access unit in the length-prefixed form of ISO/IEC 14496-15 §5.3.2. A run of fewer zero bytes than a
/// length has, at the very end, counts as an empty unit.
pub(super) struct Units<'a> {
    rest: &'a [u8],
    length_size: usize,
}

impl<'a> Units<'a> {
    pub(super) fn new(data: &'a [u8], nal_length_size: u8) -> Self {
        debug_assert!(matches!(nal_length_size, 1 | 2 | 4));
        Self { rest: data, length_size: nal_length_size.into() }
    }

    fn broken(&mut self) -> Option<Result<&'a [u8], Error>> {
        self.rest = &[];
        Some(Err(Error::CutShort("last NAL unit")))
    }
}

impl<'a> Iterator for Units<'a> {
    type Item = Result<&'a [u8], Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some((length, rest)) = self.rest.split_at_checked(self.length_size) else {
            if self.rest.iter().any(|&byte| byte != 0) {
                return self.broken();
            }
            self.rest = &[];
            return Some(Ok(&[]));
        };
        let length = length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
        let Some((unit, rest)) = rest.split_at_checked(length) else {
            return self.broken();
        };
        self.rest = rest;
        Some(Ok(unit))
    }
}

/// The bytes of an RBSP: those of a NAL unit without each `03` that follows two zeros (H.264 §7.3.1).
pub(super) struct WithoutEmulation<'a> {
    rest: &'a [u8],
    zeros: u8,
}

impl<'a> WithoutEmulation<'a> {
    pub(super) fn new(unit: &'a [u8]) -> Self {
        Self { rest: unit, zeros: 0 }
    }
}

impl Iterator for WithoutEmulation<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let mut byte = *self.rest.split_off_first()?;
        if self.zeros >= 2 && byte == 3 {
            self.zeros = 0;
            byte = *self.rest.split_off_first()?;
        }
        self.zeros = if byte == 0 { self.zeros.saturating_add(1) } else { 0 };
        Some(byte)
    }
}
