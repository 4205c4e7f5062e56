//! ID3 tags: how HLS players are handed timed metadata.
//!
//! | document | what of it |
//! |---|---|
//! | [ID3 tag version 2.4.0](https://id3.org/id3v2.4.0-structure) §3.1, §4 | the header, frames |
//! | [ID3v2.4.0 native frames](https://id3.org/id3v2.4.0-frames) §4.2.6 | `TXXX` |

use bytes::{BufMut, Bytes, BytesMut};

/// A tag that holds one user-defined text: a `value` under a `name`. What is behind a NUL is left out, as a NUL ends either.
pub fn user_text(name: &str, value: &str) -> Bytes {
    let [name, value] = [name, value].map(|text| text.split('\0').next().unwrap_or_default());
    let text_bytes = 1 + name.len() + 1 + value.len();
    let mut tag = BytesMut::with_capacity(HEADER_BYTES + HEADER_BYTES + text_bytes);
    tag.put_slice(b"ID3\x04\0\0");
    tag.put_slice(&synchsafe(HEADER_BYTES + text_bytes));
    tag.put_slice(b"TXXX");
    tag.put_slice(&synchsafe(text_bytes));
    tag.put_slice(&[0, 0, UTF8]);
    tag.put_slice(name.as_bytes());
    tag.put_u8(0);
    tag.put_slice(value.as_bytes());
    tag.freeze()
}

/// §6.2: seven bits a byte.
fn synchsafe(size: usize) -> [u8; 4] {
    [21, 14, 7, 0].map(|shift| u8::try_from(size >> shift & 0x7f).expect("7 bits"))
}

/// Of a tag and of a frame alike.
const HEADER_BYTES: usize = 10;
/// The text's encoding.
const UTF8: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_a_frame_in_a_tag() {
        let tag = user_text("onTextData", "\"héllo\"");
        assert_eq!(&tag[..], b"ID3\x04\0\0\0\0\0\x1eTXXX\0\0\0\x14\0\0\x03onTextData\0\"h\xc3\xa9llo\"");
        assert_eq!(&user_text("a", &"b".repeat(200))[6..18], b"\0\0\x01\x55TXXX\0\0\x01\x4b");
        assert_eq!(&user_text("a\0b", "c\0")[20..], b"\x03a\0c");
    }
}
