//! SCTE 35 splice information: where programmes may be left for advertisements.
//!
//! | document | what of it |
//! |---|---|
//! | [ANSI/SCTE 35 2023r1](https://www.scte.org/standards/library/catalog/scte-35-digital-program-insertion-cueing-message/) §9 | `splice_info_section`, `splice_insert`, `time_signal`, `segmentation_descriptor` |
//!
//! Of a section only that is read which an HLS playlist has to say (RFC 8216bis §4.4.5.1.1); the section itself goes there as
//! it came, in hexadecimal digits.

use std::fmt;

use bytes::Bytes;

/// A `splice_info_section` (§9.6) whose length and checksum are right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    bytes: Bytes,
    event_id: u32,
    splice: Splice,
}

/// What a section says of the programme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Splice {
    /// The programme is left.
    Out {
        /// For how long, where it is said, in microseconds.
        duration_us: Option<u64>,
    },
    /// The programme is back.
    In,
    /// Neither: a heartbeat, the bounds of a programme, what is encrypted.
    Other,
}

impl Section {
    /// Reads a section; `None` when it is none, or its checksum is wrong.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let &[TABLE_ID, a, b, _, flags, ..] = bytes else { return None };
        let length = usize::from(u16::from_be_bytes([a, b]) & 0xfff) + 3;
        if length != bytes.len() || !(SHORTEST..=LONGEST).contains(&length) || crc32(bytes) != 0 {
            return None;
        }
        let is_encrypted = flags & 0x80 != 0;
        let (event_id, splice) =
            if is_encrypted { None } else { command(&bytes[11..length - 4]) }.unwrap_or((0, Splice::Other));
        Some(Self { bytes: Bytes::copy_from_slice(bytes), event_id, splice })
    }

    /// Reads a section from what a text holds: Base64, or hexadecimal digits with or without `0x`.
    pub fn parse_text(text: &str) -> Option<Self> {
        let text = text.trim().as_bytes();
        if text.len() > 2 * LONGEST + 2 {
            return None;
        }
        let digits = text.strip_prefix(b"0x").or_else(|| text.strip_prefix(b"0X")).unwrap_or(text);
        Self::parse(&from_hex(digits).or_else(|| from_base64(text))?)
    }

    /// All of it.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// `splice_event_id`, or `segmentation_event_id`: the same for the way out and the way back. 0 where there is none.
    pub fn event_id(&self) -> u32 {
        self.event_id
    }

    /// What it says.
    pub fn splice(&self) -> Splice {
        self.splice
    }
}

impl fmt::LowerHex for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes.fmt(f)
    }
}

/// From `splice_command_length` on, without the checksum.
fn command(bytes: &[u8]) -> Option<(u32, Splice)> {
    let &[a, b, kind, ref rest @ ..] = bytes else { return None };
    match kind {
        SPLICE_INSERT => splice_insert(rest),
        TIME_SIGNAL => {
            // 0xfff: not said.
            let length = match u16::from_be_bytes([a, b]) & 0xfff {
                0xfff => splice_time(rest)?,
                length => length.into(),
            };
            descriptors(rest.get(length..)?)
        }
        _ => None,
    }
}

/// §9.7.3.
fn splice_insert(bytes: &[u8]) -> Option<(u32, Splice)> {
    let (event_id, rest) = bytes.split_first_chunk()?;
    let event_id = u32::from_be_bytes(*event_id);
    let &[cancel, flags, ref rest @ ..] = rest else { return None };
    if cancel & 0x80 != 0 {
        return Some((event_id, Splice::Other));
    }
    let [is_out, is_whole, has_duration, is_immediate] = [0x80, 0x40, 0x20, 0x10].map(|bit| flags & bit != 0);
    if !is_out {
        return Some((event_id, Splice::In));
    }
    let mut rest = rest;
    if is_whole && !is_immediate {
        rest = rest.get(splice_time(rest)?..)?;
    }
    if !is_whole {
        for _ in 0..*rest.split_off_first()? {
            rest = rest.get(1..)?;
            if !is_immediate {
                rest = rest.get(splice_time(rest)?..)?;
            }
        }
    }
    let duration_us =
        if has_duration { rest.first_chunk().map(|&[a, b, c, d, e]| micros([a & 1, b, c, d, e])) } else { None };
    Some((event_id, Splice::Out { duration_us }))
}

/// The size of a `splice_time()` (§9.8.1), in bytes.
fn splice_time(bytes: &[u8]) -> Option<usize> {
    Some(if bytes.first()? & 0x80 == 0 { 1 } else { 5 })
}

/// §9.6, the descriptor loop: the first `segmentation_descriptor` (§10.3.3) that leaves or comes back.
fn descriptors(bytes: &[u8]) -> Option<(u32, Splice)> {
    let (length, rest) = bytes.split_first_chunk()?;
    let mut rest = rest.get(..usize::from(u16::from_be_bytes(*length)))?;
    let mut first = None;
    while let &[tag, length, ref after @ ..] = rest {
        let (descriptor, after) = after.split_at_checked(length.into())?;
        rest = after;
        if tag == SEGMENTATION_DESCRIPTOR
            && let Some((event_id, splice)) = segmentation(descriptor)
        {
            if splice != Splice::Other {
                return Some((event_id, splice));
            }
            first = first.or(Some((event_id, splice)));
        }
    }
    first
}

fn segmentation(descriptor: &[u8]) -> Option<(u32, Splice)> {
    let (event_id, rest) = descriptor.strip_prefix(b"CUEI")?.split_first_chunk()?;
    let event_id = u32::from_be_bytes(*event_id);
    let &[cancel, flags, ref rest @ ..] = rest else { return None };
    if cancel & 0x80 != 0 {
        return Some((event_id, Splice::Other));
    }
    let [is_whole, has_duration] = [0x80, 0x40].map(|bit| flags & bit != 0);
    let mut rest = rest;
    if !is_whole {
        let components = usize::from(*rest.split_off_first()?);
        rest = rest.get(6 * components..)?;
    }
    let mut duration_us = None;
    if has_duration {
        let (duration, after) = rest.split_first_chunk()?;
        duration_us = Some(micros(*duration));
        rest = after;
    }
    let &[_upid_type, upid_length, ref rest @ ..] = rest else { return None };
    let kind = *rest.get(usize::from(upid_length))?;
    let is_break = matches!(kind, 0x22 | 0x23 | 0x30..=0x3f | 0x44..=0x47);
    Some((
        event_id,
        match kind & 1 {
            _ if !is_break => Splice::Other,
            0 => Splice::Out { duration_us },
            _ => Splice::In,
        },
    ))
}

/// Ticks of 90 kHz in microseconds.
fn micros([a, b, c, d, e]: [u8; 5]) -> u64 {
    u64::from_be_bytes([0, 0, 0, a, b, c, d, e]) * 100 / 9
}

/// CRC-32/MPEG-2; 0 over a section with its checksum.
fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte) << 24, |crc, _| crc << 1 ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 })
    })
}

fn from_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = digits.chunks_exact(2);
    let is_even = pairs.remainder().is_empty();
    pairs.map(|pair| Some(digit(&pair[0])? << 4 | digit(&pair[1])?)).collect::<Option<_>>().filter(|_| is_even)
}

/// RFC 4648 §4, with or without padding.
fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut held, mut bits) = (0_u32, 0);
    for &letter in text {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        held = held << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).expect("8 bits"));
        }
    }
    Some(bytes)
}

const TABLE_ID: u8 = 0xfc;
/// A section with a command of no bytes and no descriptors.
const SHORTEST: usize = 20;
/// Longer ones are legal and nobody's; a playlist holds twice as many digits.
const LONGEST: usize = 1024;
const SPLICE_INSERT: u8 = 0x05;
const TIME_SIGNAL: u8 = 0x06;
const SEGMENTATION_DESCRIPTOR: u8 = 0x02;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// SCTE 35 §14.2: a splice_insert, out for 60.3 s.
    const INSERT: &str = "/DAvAAAAAAAA///wFAVIAACPf+/+c2nALv4AUsz1AAAAAAAKAAhDVUVJAAABNWLbowo=";
    /// SCTE 35 §14.1: a time_signal, placement opportunity start.
    const SIGNAL: &str = "/DA0AAAAAAAA///wBQb+cr0AUAAeAhxDVUVJSAAAjn/PAAGlmbAICAAAAAAsoKGKNAIAmsnRfg==";

    #[test]
    fn the_examples_of_the_standard_are_understood() {
        let insert = Section::parse_text(INSERT).unwrap();
        assert_eq!((insert.event_id(), insert.splice()), (0x4800_008f, Splice::Out { duration_us: Some(60_293_566) }));
        assert!(format!("{insert:x}").starts_with("fc302f0000"));
        let signal = Section::parse_text(SIGNAL).unwrap();
        assert_eq!((signal.event_id(), signal.splice()), (0x4800_008e, Splice::Out { duration_us: Some(307_000_000) }));
        // In hexadecimal digits they are the same.
        for section in [insert, signal] {
            assert_eq!(Section::parse_text(&format!("0x{section:X}", section = Hex(&section))), Some(section));
        }
    }

    struct Hex<'a>(&'a Section);

    impl fmt::UpperHex for Hex<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}", format!("{:x}", self.0).to_uppercase())
        }
    }

    #[test]
    fn the_way_back_has_the_same_number() {
        let mut bytes = from_base64(INSERT.as_bytes()).unwrap();
        // out_of_network_indicator
        bytes[19] &= 0x7f;
        let end = bytes.len() - 4;
        let checksum = crc32(&bytes[..end]).to_be_bytes();
        bytes[end..].copy_from_slice(&checksum);
        let back = Section::parse(&bytes).unwrap();
        assert_eq!((back.event_id(), back.splice()), (0x4800_008f, Splice::In));
    }

    #[test]
    fn what_is_no_section_is_refused() {
        for text in
            ["", "0x", "hello", "/D", "0xfc", &INSERT[..40], &INSERT.replace("AVIAACP", "AVIAACQ"), &"f".repeat(9999)]
        {
            assert_eq!(Section::parse_text(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(
            sample in prop::sample::select(vec![INSERT, SIGNAL]),
            damage in prop::collection::vec((4_usize..40, any::<u8>()), 0..6),
        ) {
            let mut bytes = from_base64(sample.as_bytes()).unwrap();
            for (at, byte) in damage {
                bytes[at] = byte;
            }
            let end = bytes.len() - 4;
            let checksum = crc32(&bytes[..end]).to_be_bytes();
            bytes[end..].copy_from_slice(&checksum);
            prop_assert!(Section::parse(&bytes).is_some());
        }
    }
}
