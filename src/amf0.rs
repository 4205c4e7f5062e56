//! AMF0: the values in RTMP commands and in `onMetaData`.
//!
//! | document | version |
//! |---|---|
//! | [Action Message Format, AMF 0](https://rtmp.veriskope.com/pdf/amf0-file-format-specification.pdf) | 2007 |
//!
//! Only decoding is here; replies are encoded by `rml_amf0`. What is decoded comes from strangers, so depth, values and
//! bytes are limited ([`Limits`]), a count in the input is never believed, text that is not UTF-8 is repaired, and an
//! object whose end marker is missing ends where the input ends. AMF3 (`avmplus-object-marker`) is not understood.

use std::fmt;

/// One AMF0 value. Properties keep the order in which they came.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// §2.2 Number, the only numeric type.
    Number(f64),
    /// §2.3 Boolean.
    Boolean(bool),
    /// §2.4 String and §2.14 Long String.
    String(String),
    /// §2.5 Object.
    Object(Vec<(String, Self)>),
    /// §2.7 null.
    Null,
    /// §2.8 undefined.
    Undefined,
    /// §2.9 Reference: the index of an object that came before. Left unresolved: references can only make things grow.
    Reference(u16),
    /// §2.10 ECMA Array, in practice an object.
    EcmaArray(Vec<(String, Self)>),
    /// §2.12 Strict Array.
    StrictArray(Vec<Self>),
    /// §2.13 Date, in milliseconds since 1970 (the time zone is reserved and not kept).
    Date(f64),
    /// §2.15 Unsupported: the sender had something that AMF0 cannot say.
    Unsupported,
    /// §2.17 XML Document.
    XmlDocument(String),
    /// §2.18 Typed Object.
    TypedObject {
        /// The class that the sender registered.
        class: String,
        /// Its properties.
        properties: Vec<(String, Self)>,
    },
}

impl Value {
    /// The text of a String.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value of a Number.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The value of a Boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Boolean(boolean) => Some(*boolean),
            _ => None,
        }
    }

    /// The properties of an Object, ECMA Array or Typed Object, in their order.
    pub fn properties(&self) -> Option<&[(String, Self)]> {
        match self {
            Self::Object(properties) | Self::EcmaArray(properties) | Self::TypedObject { properties, .. } => {
                Some(properties)
            }
            _ => None,
        }
    }

    /// The property called `name`; the last one if the sender gave it twice.
    pub fn property(&self, name: &str) -> Option<&Self> {
        self.properties()?.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The elements of a Strict Array.
    pub fn elements(&self) -> Option<&[Self]> {
        match self {
            Self::StrictArray(elements) => Some(elements),
            _ => None,
        }
    }
}

/// What one message may make us build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Objects and arrays within each other.
    pub depth: usize,
    /// Values in all.
    pub values: usize,
    /// Bytes of text in all, property names included.
    pub text_bytes: usize,
}

impl Limits {
    /// For a command: the largest `connect` seen in the field has 30 values.
    pub const COMMAND: Self = Self { depth: 16, values: 1_024, text_bytes: 64 * 1024 };
    /// For metadata: a key frame index of an eight-hour recording has 30,000 values.
    pub const METADATA: Self = Self { depth: 16, values: 65_536, text_bytes: 1024 * 1024 };
}

/// Decodes all values in `bytes`, within [`Limits::METADATA`].
///
/// # Errors
/// The first [`Error`]; use [`decode_lossy`] to have the values before it.
pub fn decode_all(bytes: &[u8]) -> Result<Vec<Value>, Error> {
    match decode_within(bytes, Limits::METADATA) {
        (values, None) => Ok(values),
        (_, Some(error)) => Err(error),
    }
}

/// Decodes the values in `bytes` up to the first error, if there is one, within [`Limits::METADATA`]. An object or array
/// that breaks off in the middle keeps what was read of it.
pub fn decode_lossy(bytes: &[u8]) -> (Vec<Value>, Option<Error>) {
    decode_within(bytes, Limits::METADATA)
}

/// As [`decode_lossy`], within other limits.
pub fn decode_within(bytes: &[u8], limits: Limits) -> (Vec<Value>, Option<Error>) {
    let mut decoder = Decoder { bytes, at: 0, values_left: limits.values, text_left: limits.text_bytes, error: None };
    let mut values = Vec::new();
    while decoder.at < bytes.len() && decoder.error.is_none() {
        values.extend(decoder.value(limits.depth));
    }
    (values, decoder.error)
}

/// Why decoding stopped: the peer sent nonsense, or more than we take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Where, in bytes from the start of the input.
    pub at: usize,
    /// What was wrong.
    pub kind: ErrorKind,
}

/// What was wrong with AMF0 input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The input ends within a value.
    Truncated,
    /// A marker that AMF0 does not have, or one where no value can start.
    UnknownMarker(u8),
    /// A type that is reserved (`MovieClip`, `RecordSet`) or AMF3.
    UnsupportedMarker(u8),
    /// Objects and arrays lie too deep within each other.
    TooDeep,
    /// There are too many values.
    TooManyValues,
    /// There is too much text.
    TooMuchText,
}

impl ErrorKind {
    /// A limit of ours was passed; no honest encoder does that.
    pub fn is_limit(self) -> bool {
        matches!(self, Self::TooDeep | Self::TooManyValues | Self::TooMuchText)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ErrorKind::Truncated => f.write_str("AMF0 value cut short")?,
            ErrorKind::UnknownMarker(marker) => write!(f, "unknown AMF0 marker 0x{marker:02x}")?,
            ErrorKind::UnsupportedMarker(marker) => write!(f, "unsupported AMF0 marker 0x{marker:02x}")?,
            ErrorKind::TooDeep => f.write_str("AMF0 objects nested too deep")?,
            ErrorKind::TooManyValues => f.write_str("too many AMF0 values")?,
            ErrorKind::TooMuchText => f.write_str("too much text in AMF0 values")?,
        }
        write!(f, " at byte {}", self.at)
    }
}

impl std::error::Error for Error {}

/// Reads values and remembers the first error; containers keep what they have when it occurs.
struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    values_left: usize,
    text_left: usize,
    error: Option<Error>,
}

impl<'a> Decoder<'a> {
    /// The next value, or `None` with `error` set.
    fn value(&mut self, depth_left: usize) -> Option<Value> {
        let start = self.at;
        let Some(left) = self.values_left.checked_sub(1) else {
            return self.fail(start, ErrorKind::TooManyValues);
        };
        self.values_left = left;
        let marker = self.u8()?;
        let is_container =
            matches!(marker, marker::OBJECT | marker::ECMA_ARRAY | marker::STRICT_ARRAY | marker::TYPED_OBJECT);
        if is_container && depth_left == 0 {
            return self.fail(start, ErrorKind::TooDeep);
        }
        Some(match marker {
            marker::NUMBER => Value::Number(self.f64()?),
            marker::BOOLEAN => Value::Boolean(self.u8()? != 0),
            marker::STRING => Value::String(self.short_text()?),
            marker::LONG_STRING => Value::String(self.long_text()?),
            marker::XML_DOCUMENT => Value::XmlDocument(self.long_text()?),
            marker::OBJECT => Value::Object(self.pairs(depth_left - 1)),
            marker::ECMA_ARRAY => {
                // §2.10: the count is a hint; what ends the array is the end marker.
                self.u32()?;
                Value::EcmaArray(self.pairs(depth_left - 1))
            }
            marker::TYPED_OBJECT => {
                let class = self.short_text()?;
                Value::TypedObject { class, properties: self.pairs(depth_left - 1) }
            }
            marker::STRICT_ARRAY => {
                let count = self.u32()?;
                Value::StrictArray(self.array(count, depth_left - 1))
            }
            marker::NULL => Value::Null,
            marker::UNDEFINED => Value::Undefined,
            marker::REFERENCE => Value::Reference(self.u16()?),
            marker::DATE => {
                let unix_ms = self.f64()?;
                self.u16()?;
                Value::Date(unix_ms)
            }
            marker::UNSUPPORTED => Value::Unsupported,
            marker::MOVIE_CLIP | marker::RECORD_SET | marker::AVM_PLUS => {
                return self.fail(start, ErrorKind::UnsupportedMarker(marker));
            }
            _ => return self.fail(start, ErrorKind::UnknownMarker(marker)),
        })
    }

    /// §2.5: name and value, until an empty name and the end marker, or until the input ends.
    fn pairs(&mut self, depth_left: usize) -> Vec<(String, Value)> {
        let mut pairs = Vec::new();
        while self.at < self.bytes.len() && self.error.is_none() {
            let rest = &self.bytes[self.at..];
            if rest.starts_with(&OBJECT_END) {
                self.at += OBJECT_END.len();
                break;
            }
            // An end marker of which the last bytes were lost.
            if OBJECT_END.starts_with(rest) {
                self.at = self.bytes.len();
                break;
            }
            let Some(name) = self.short_text() else { break };
            if self.at == self.bytes.len() {
                self.fail::<()>(self.at, ErrorKind::Truncated);
                break;
            }
            let Some(value) = self.value(depth_left) else { break };
            pairs.push((name, value));
        }
        pairs
    }

    fn array(&mut self, count: u32, depth_left: usize) -> Vec<Value> {
        let mut elements = Vec::new();
        for _ in 0..count {
            let Some(element) = self.value(depth_left) else { break };
            elements.push(element);
            if self.error.is_some() {
                break;
            }
        }
        elements
    }

    fn short_text(&mut self) -> Option<String> {
        let length = self.u16()?;
        self.text(usize::from(length))
    }

    fn long_text(&mut self) -> Option<String> {
        let length = self.u32()?;
        self.text(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn text(&mut self, length: usize) -> Option<String> {
        let start = self.at;
        let raw = self.take(length)?;
        let text = String::from_utf8_lossy(raw);
        match self.text_left.checked_sub(text.len()) {
            Some(left) => self.text_left = left,
            None => return self.fail(start, ErrorKind::TooMuchText),
        }
        Some(text.into_owned())
    }

    fn u8(&mut self) -> Option<u8> {
        self.array_of::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array_of().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array_of().map(u32::from_be_bytes)
    }

    fn f64(&mut self) -> Option<f64> {
        self.array_of().map(f64::from_be_bytes)
    }

    fn array_of<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N).and_then(|raw| raw.try_into().ok())
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        match self.bytes[self.at..].get(..length) {
            Some(raw) => {
                self.at += length;
                Some(raw)
            }
            None => self.fail(self.bytes.len(), ErrorKind::Truncated),
        }
    }

    fn fail<T>(&mut self, at: usize, kind: ErrorKind) -> Option<T> {
        self.error.get_or_insert(Error { at, kind });
        None
    }
}

/// §2.1 Types Overview.
mod marker {
    pub(super) const NUMBER: u8 = 0x00;
    pub(super) const BOOLEAN: u8 = 0x01;
    pub(super) const STRING: u8 = 0x02;
    pub(super) const OBJECT: u8 = 0x03;
    pub(super) const MOVIE_CLIP: u8 = 0x04;
    pub(super) const NULL: u8 = 0x05;
    pub(super) const UNDEFINED: u8 = 0x06;
    pub(super) const REFERENCE: u8 = 0x07;
    pub(super) const ECMA_ARRAY: u8 = 0x08;
    pub(super) const OBJECT_END: u8 = 0x09;
    pub(super) const STRICT_ARRAY: u8 = 0x0a;
    pub(super) const DATE: u8 = 0x0b;
    pub(super) const LONG_STRING: u8 = 0x0c;
    pub(super) const UNSUPPORTED: u8 = 0x0d;
    pub(super) const RECORD_SET: u8 = 0x0e;
    pub(super) const XML_DOCUMENT: u8 = 0x0f;
    pub(super) const TYPED_OBJECT: u8 = 0x10;
    pub(super) const AVM_PLUS: u8 = 0x11;
}

/// §2.11: an empty name, then the end marker.
const OBJECT_END: [u8; 3] = [0, 0, marker::OBJECT_END];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rml_amf0::Amf0Value;

    use super::*;

    fn text(value: &str) -> Value {
        Value::String(value.into())
    }

    #[test]
    fn what_another_encoder_writes_is_read() {
        let properties = [("width".to_owned(), Amf0Value::Number(640.0))].into_iter().collect();
        let bytes = rml_amf0::serialize(&vec![
            Amf0Value::Utf8String("onMetaData".into()),
            Amf0Value::Object(properties),
            Amf0Value::StrictArray(vec![Amf0Value::Boolean(true), Amf0Value::Null]),
            Amf0Value::Undefined,
        ])
        .unwrap();
        assert_eq!(
            decode_all(&bytes).unwrap(),
            [
                text("onMetaData"),
                Value::Object(vec![("width".into(), Value::Number(640.0))]),
                Value::StrictArray(vec![Value::Boolean(true), Value::Null]),
                Value::Undefined,
            ]
        );
    }

    #[test]
    fn every_marker_of_the_specification_has_an_answer() {
        let cases: [(&[u8], Value); 9] = [
            (&[0x07, 0, 3], Value::Reference(3)),
            (
                &[0x08, 0xff, 0xff, 0xff, 0xff, 0, 1, b'a', 0x05, 0, 0, 9],
                Value::EcmaArray(vec![("a".into(), Value::Null)]),
            ),
            (&[0x0b, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0], Value::Date(2.0)),
            (&[0x0c, 0, 0, 0, 2, b'h', b'i'], text("hi")),
            (&[0x0d], Value::Unsupported),
            (&[0x0f, 0, 0, 0, 1, b'x'], Value::XmlDocument("x".into())),
            (
                &[0x10, 0, 1, b'C', 0, 1, b'a', 0x01, 1, 0, 0, 9],
                Value::TypedObject { class: "C".into(), properties: vec![("a".into(), Value::Boolean(true))] },
            ),
            (&[0x03, 0, 0, 9], Value::Object(vec![])),
            (&[0x0a, 0, 0, 0, 0], Value::StrictArray(vec![])),
        ];
        for (bytes, value) in cases {
            assert_eq!(decode_all(bytes), Ok(vec![value]), "{bytes:02x?}");
        }
        for marker in [0x04, 0x0e, 0x11] {
            assert_eq!(decode_all(&[marker]), Err(Error { at: 0, kind: ErrorKind::UnsupportedMarker(marker) }));
        }
        for marker in [0x09, 0x12, 0xff] {
            assert_eq!(decode_all(&[marker]), Err(Error { at: 0, kind: ErrorKind::UnknownMarker(marker) }));
        }
    }

    #[test]
    fn an_object_may_lack_its_end() {
        let whole = [0x03, 0, 1, b'a', 0x05, 0, 0, 9];
        for length in 5..=whole.len() {
            assert_eq!(decode_all(&whole[..length]), Ok(vec![Value::Object(vec![("a".into(), Value::Null)])]));
        }
    }

    #[test]
    fn what_came_before_an_error_is_kept() {
        let bytes = [0x05, 0x03, 0, 1, b'a', 0x01, 1, 0, 1, b'b', 0x00, 1, 2];
        let (values, error) = decode_lossy(&bytes);
        assert_eq!(values, [Value::Null, Value::Object(vec![("a".into(), Value::Boolean(true))])]);
        assert_eq!(error, Some(Error { at: bytes.len(), kind: ErrorKind::Truncated }));
    }

    #[test]
    fn bad_utf8_is_repaired() {
        assert_eq!(decode_all(&[2, 0, 3, b'a', 0xff, b'b']).unwrap(), [text("a\u{fffd}b")]);
    }

    #[test]
    fn nesting_ends_at_the_limit_and_not_in_the_stack() {
        let nested = |count: usize| [0x0a, 0, 0, 0, 1].repeat(count);
        assert_eq!(decode_all(&nested(17)), Err(Error { at: 16 * 5, kind: ErrorKind::TooDeep }));
        assert_eq!(decode_all(&nested(1_000_000)).unwrap_err().kind, ErrorKind::TooDeep);
        let objects = [0x03, 0, 1, b'a'].repeat(1_000_000);
        assert_eq!(decode_all(&objects).unwrap_err().kind, ErrorKind::TooDeep);
    }

    #[test]
    fn counts_are_not_believed_and_values_are_counted() {
        assert_eq!(decode_all(&[0x0a, 0xff, 0xff, 0xff, 0xff]).unwrap_err().kind, ErrorKind::Truncated);
        assert_eq!(decode_all(&[0x0c, 0xff, 0xff, 0xff, 0xff]).unwrap_err().kind, ErrorKind::Truncated);
        assert_eq!(decode_all(&vec![0x05; 65_537]).unwrap_err().kind, ErrorKind::TooManyValues);
        assert!(decode_all(&vec![0x05; 65_536]).is_ok());
        let (_, error) = decode_within(&[2, 0, 3, b'a', b'b', b'c'], Limits { text_bytes: 2, ..Limits::COMMAND });
        assert_eq!(error.unwrap().kind, ErrorKind::TooMuchText);
    }

    #[test]
    fn properties_are_found_by_name() {
        let value = Value::EcmaArray(vec![("a".into(), Value::Number(1.0)), ("a".into(), text("2"))]);
        assert_eq!(value.property("a").and_then(Value::as_str), Some("2"));
        assert_eq!(value.property("b"), None);
        assert_eq!(Value::Null.property("a"), None);
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in prop::collection::vec(prop_oneof![0u8..0x12, any::<u8>()], 0..400)) {
            let (values, error) = decode_lossy(&bytes);
            prop_assert_eq!(decode_all(&bytes).ok(), error.is_none().then_some(values));
        }
    }
}
