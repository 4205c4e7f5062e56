//! A walk over ISO/IEC 14496-12 boxes that trusts no size.
//!
//! It comes before any other reader sees the bytes: of the crates that read MP4 one can loop for ever on a box that
//! says it is smaller than its own head.

use std::fmt;

/// A box in a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mp4Box<'a> {
    /// Its type.
    pub(super) kind: [u8; 4],
    /// Where it begins, in bytes from the start of the file.
    pub(super) start: usize,
    /// The whole box, with its head.
    pub(super) whole: &'a [u8],
    /// What follows the head.
    pub(super) body: &'a [u8],
}

impl<'a> Mp4Box<'a> {
    /// The boxes in its body, from `skip` bytes on.
    pub(super) fn children(&self, skip: usize) -> Result<Vec<Self>, BadBox> {
        let body_start = self.start + (self.whole.len() - self.body.len());
        let inner = self.body.get(skip..).ok_or(BadBox { kind: self.kind, at: self.start, size: 0, left: 0 })?;
        boxes(inner, body_start + skip)
    }

    /// The fields of a full box: version, flags, and the rest.
    pub(super) fn full(&self) -> Option<(u8, u32, Fields<'a>)> {
        let mut fields = Fields(self.body);
        let word = fields.u32()?;
        let [version, ..] = word.to_be_bytes();
        Some((version, word & 0x00ff_ffff, fields))
    }
}

/// The boxes that `bytes` are made of, `bytes` starting `base` bytes into the file.
pub(super) fn boxes(bytes: &[u8], base: usize) -> Result<Vec<Mp4Box<'_>>, BadBox> {
    let mut found = Vec::new();
    let mut position = 0;
    while position < bytes.len() {
        let left = &bytes[position..];
        let mut fields = Fields(left);
        let (Some(short), Some(kind)) = (fields.u32(), fields.array()) else {
            return Err(BadBox { kind: *b"????", at: base + position, size: 8, left: left.len() });
        };
        let (head, size) = match short {
            1 => (16, fields.u64().unwrap_or(0)),
            size => (8, u64::from(size)),
        };
        let bad = BadBox { kind, at: base + position, size, left: left.len() };
        let size = usize::try_from(size).map_err(|_| bad)?;
        if size < head || size > left.len() {
            return Err(bad);
        }
        found.push(Mp4Box { kind, start: base + position, whole: &left[..size], body: &left[head..size] });
        position += size;
    }
    Ok(found)
}

/// The first box of a type.
pub(super) fn find<'a>(boxes: &[Mp4Box<'a>], kind: &[u8; 4]) -> Option<Mp4Box<'a>> {
    boxes.iter().find(|found| found.kind == *kind).copied()
}

/// The box at the end of a path of types, each the first of its type.
pub(super) fn descend<'a>(from: &Mp4Box<'a>, path: &[&[u8; 4]]) -> Result<Option<Mp4Box<'a>>, BadBox> {
    let mut here = *from;
    for kind in path {
        match find(&here.children(0)?, kind) {
            Some(next) => here = next,
            None => return Ok(None),
        }
    }
    Ok(Some(here))
}

/// Walks everything below a box that holds boxes; `Ok(true)` when the foreign readers are known to come to an end on it.
pub(super) fn check_tree(from: &Mp4Box<'_>) -> Result<bool, BadBox> {
    // A 64-bit size, and what hides in `udta` and `meta`, are read by others in their own ways.
    let mut is_plain = from.whole.len() - from.body.len() == 8;
    let skip = match &from.kind {
        b"moov" | b"trak" | b"mdia" | b"minf" | b"dinf" | b"stbl" | b"mvex" | b"moof" | b"traf" | b"edts" => 0,
        b"dref" | b"stsd" => 8,
        b"avc1" | b"avc3" | b"hvc1" | b"hev1" | b"av01" | b"vp09" => VISUAL_ENTRY,
        b"mp4a" | b"Opus" | b"fLaC" | b"ac-3" | b"ec-3" => AUDIO_ENTRY,
        b"udta" | b"meta" => return Ok(false),
        _ => return Ok(is_plain),
    };
    for child in from.children(skip)? {
        is_plain &= check_tree(&child)?;
    }
    Ok(is_plain)
}

/// Bytes of a `VisualSampleEntry` before its boxes (ISO/IEC 14496-12 §12.1.3).
pub(super) const VISUAL_ENTRY: usize = 78;
/// Bytes of an `AudioSampleEntry` before its boxes (ISO/IEC 14496-12 §12.2.3).
pub(super) const AUDIO_ENTRY: usize = 28;

/// A box that cannot be where it says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadBox {
    kind: [u8; 4],
    at: usize,
    size: u64,
    left: usize,
}

impl fmt::Display for BadBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, at, size, left } = self;
        write!(f, "box '{}' at byte {at} says {size} bytes, {left} are left", kind.escape_ascii())
    }
}

/// Big-endian numbers, one after the other; `None` when the bytes run out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(*head)
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A number of 32 bits in version 0 of a box and of 64 in version 1.
    pub(super) fn sized(&mut self, version: u8) -> Option<u64> {
        if version == 0 { self.u32().map(u64::from) } else { self.u64() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_found_one_after_the_other() {
        let bytes = b"\0\0\0\x0cfreeabcd\0\0\0\x08mdat";
        let found = boxes(bytes, 100).unwrap();
        assert_eq!(found.iter().map(|b| (b.kind, b.start)).collect::<Vec<_>>(), [(*b"free", 100), (*b"mdat", 112)]);
        assert_eq!(found[0].body, b"abcd");
    }

    #[test]
    fn a_box_smaller_than_its_head_or_larger_than_the_rest_is_refused() {
        for bytes in [
            &b"\0\0\0\0free"[..],
            b"\0\0\0\x07free",
            b"\0\0\0\x09free",
            b"\0\0\0\x01free",
            b"\0\0\0\x01free\0\0\0\0\0\0\0\x0f",
            b"\0\0\0\x01free\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\0\0\0",
        ] {
            assert!(boxes(bytes, 0).is_err(), "{bytes:?}");
        }
    }
}
