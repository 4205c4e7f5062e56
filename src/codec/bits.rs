//! Bits of records and headers, the highest of each byte first.

use super::Error;

/// Takes fields off the front of `bytes`.
#[derive(Debug)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// In bits.
    position: usize,
    /// What the fields belong to, for [`Error::CutShort`].
    part: &'static str,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8], part: &'static str) -> Self {
        Self { bytes, position: 0, part }
    }

    /// `count` is at most 32.
    pub(super) fn read(&mut self, count: u32) -> Result<u32, Error> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.position / 8).ok_or(Error::CutShort(self.part))?;
            value = value << 1 | u32::from(byte >> (7 - self.position % 8) & 1);
            self.position += 1;
        }
        Ok(value)
    }

    /// `count` is at most 8.
    pub(super) fn read_u8(&mut self, count: u32) -> Result<u8, Error> {
        Ok(u8::try_from(self.read(count)?).expect("8 bits fit 8 bits"))
    }

    pub(super) fn read_u16(&mut self) -> Result<u16, Error> {
        Ok(u16::try_from(self.read(16)?).expect("16 bits fit 16 bits"))
    }

    pub(super) fn flag(&mut self) -> Result<bool, Error> {
        Ok(self.read(1)? == 1)
    }

    pub(super) fn skip(&mut self, count: usize) -> Result<(), Error> {
        self.position += count;
        if self.position > self.bytes.len() * 8 { Err(Error::CutShort(self.part)) } else { Ok(()) }
    }

    /// Goes on at the next whole byte.
    pub(super) fn align(&mut self) {
        self.position = self.position.next_multiple_of(8);
    }

    /// `ue(v)`, H.264 §9.1 and H.265 §9.2.
    pub(super) fn unsigned_exp_golomb(&mut self) -> Result<u32, Error> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return Err(Error::Invalid { field: "Exp-Golomb code", value: zeros.into() });
            }
        }
        Ok((1_u32 << zeros) - 1 + self.read(zeros)?)
    }
}
