//! Boxes in words, for tests to compare whole.

use std::fmt::Write;

/// One line a box: its size, its type, and for those that hold no boxes their bytes, zeros at the end counted only.
/// An empty line first, so that the text expected can stand on lines of its own.
pub(super) fn listing(bytes: &[u8]) -> String {
    let mut text = String::from("\n");
    list(bytes, 0, &mut text);
    text
}

fn list(mut bytes: &[u8], depth: usize, text: &mut String) {
    while let Some((&[a, b, c, d, ref kind @ ..], _)) = bytes.split_first_chunk::<8>() {
        let size = u32::from_be_bytes([a, b, c, d]) as usize;
        write!(text, "{:indent$}{} {size}", "", kind.escape_ascii(), indent = depth * 2).unwrap();
        if size > bytes.len() {
            assert_eq!(kind, b"mdat", "only the box that is not written whole may be cut short");
            text.push('\n');
            return;
        }
        let (this, rest) = bytes.split_at(size);
        bytes = rest;
        match kind {
            b"moov" | b"trak" | b"mdia" | b"minf" | b"dinf" | b"stbl" | b"mvex" | b"moof" | b"traf" => {
                text.push('\n');
                list(&this[8..], depth + 1, text);
            }
            b"dref" | b"stsd" => open(this, 8, depth, text),
            b"avc1" | b"hvc1" | b"av01" | b"vp09" => open(this, 78, depth, text),
            b"mp4a" | b"Opus" | b"fLaC" | b"ac-3" | b"ec-3" => open(this, 28, depth, text),
            _ => {
                hex(&this[8..], text);
                text.push('\n');
            }
        }
    }
    assert!(bytes.is_empty(), "{} bytes behind the last box", bytes.len());
}

/// A box that has `fields` bytes of its own before the boxes in it.
fn open(this: &[u8], fields: usize, depth: usize, text: &mut String) {
    hex(&this[8..8 + fields], text);
    text.push('\n');
    list(&this[8 + fields..], depth + 1, text);
}

fn hex(bytes: &[u8], text: &mut String) {
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1).next_multiple_of(4).min(bytes.len());
    for (at, byte) in bytes[..end].iter().enumerate() {
        let space = if at % 4 == 0 { " " } else { "" };
        write!(text, "{space}{byte:02x}").unwrap();
    }
    if end < bytes.len() {
        write!(text, " +{}", bytes.len() - end).unwrap();
    }
}
