//! Data tags: `onMetaData` (FLV 10.1 §E.5), which says in advance what the tracks will be like, and messages that belong to
//! a moment (§E.6 `onCuePoint`, `onTextData`, and others by any name).

use bytes::Bytes;

use super::{Error, Tag, TagBody, Tags};
use crate::amf0::{self, Value};

/// What the publisher says about its broadcast. Hints for people and for the first guess: encoders say wrong things here,
/// and the sequence headers know better.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metadata {
    /// Width of the picture in pixels.
    pub width: Option<u32>,
    /// Height of the picture in pixels.
    pub height: Option<u32>,
    /// Frames a second.
    pub frame_rate: Option<f64>,
    /// Video bits a second.
    pub video_bitrate: Option<u64>,
    /// Audio bits a second.
    pub audio_bitrate: Option<u64>,
    /// There will be video, or not; `None` when the publisher does not say.
    pub has_video: Option<bool>,
    /// There will be audio, or not; `None` when the publisher does not say.
    pub has_audio: Option<bool>,
    /// Name and version of the encoder, without control characters, at most 128 characters.
    pub encoder: Option<String>,
}

/// A data message that belongs to a moment of the broadcast.
#[derive(Debug, Clone, PartialEq)]
pub struct DataTag {
    /// What the publisher calls it: `onCuePoint`, `onTextData`, `onFI` … At most 64 bytes.
    pub name: String,
    /// What it says; never empty.
    pub arguments: Vec<Value>,
}

/// Parses the body of an AMF0 data message. No tag when it says nothing, is too long, or meant for a server of old.
///
/// # Errors
/// None so far: unreadable data are worth nothing, and no reason to complain about a broadcast.
pub fn parse_data(timestamp: u32, body: &Bytes) -> Result<Tags, Error> {
    let (mut values, _) = amf0::decode_lossy(body);
    // RTMP publishers wrap it for Flash Media Server (`@setDataFrame`); relays and files have it bare.
    if values.first().and_then(Value::as_str) == Some("@setDataFrame") {
        values.remove(0);
    }
    let [Value::String(name), first, ..] = &values[..] else {
        return Ok(Tags::default());
    };
    let body = match name.as_str() {
        "onMetaData" if first.properties().is_some() => TagBody::Metadata(Box::new(Metadata::of(first))),
        "onMetaData" => return Ok(Tags::default()),
        // `@clearDataFrame`, `|RtmpSampleAccess`
        _ if name.starts_with(['@', '|']) || name.is_empty() => return Ok(Tags::default()),
        _ if name.len() > LONGEST_NAME_BYTES || body.len() > LONGEST_DATA_BYTES => return Ok(Tags::default()),
        _ => TagBody::Data(DataTag { name: name.clone(), arguments: values.split_off(1) }),
    };
    Ok(Some(Tag { timestamp, body }).into())
}

impl Metadata {
    fn of(properties: &Value) -> Self {
        let is_given = |names: &[&str]| names.iter().any(|name| properties.property(name).is_some());
        let says_video = codec_is_given(properties, "videocodecid");
        let says_audio = codec_is_given(properties, "audiocodecid");
        // Who names one codec would name the other.
        let has_video = says_video.or_else(|| {
            let is_silent = !is_given(&["width", "height", "framerate", "videodatarate"]);
            (says_audio == Some(true) && is_silent).then_some(false)
        });
        let has_audio = says_audio.or_else(|| {
            let is_silent = !is_given(&["audiosamplerate", "audiodatarate", "audiochannels", "stereo"]);
            (says_video == Some(true) && is_silent).then_some(false)
        });
        Self {
            width: whole(properties, "width"),
            height: whole(properties, "height"),
            frame_rate: positive(properties, "framerate").or_else(|| positive(properties, "fps")),
            video_bitrate: bits_per_second(properties, "videodatarate"),
            audio_bitrate: bits_per_second(properties, "audiodatarate"),
            has_video,
            has_audio,
            encoder: properties.property("encoder").and_then(Value::as_str).and_then(printable),
        }
    }
}

/// Whether a codec is named: by number (0 is none for video, PCM for audio, and in fact nobody's codec) or by name.
fn codec_is_given(properties: &Value, name: &str) -> Option<bool> {
    match properties.property(name)? {
        Value::Number(number) => Some(*number > 0.0),
        Value::String(text) => Some(!matches!(text.trim(), "" | "0")),
        _ => None,
    }
}

/// A number above 0 and not beyond reason, given as such or as text.
fn positive(properties: &Value, name: &str) -> Option<f64> {
    let number = match properties.property(name)? {
        Value::Number(number) => *number,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    (number > 0.0 && number <= LARGEST_NUMBER).then_some(number)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive() is within 0 and 10^9")]
fn whole(properties: &Value, name: &str) -> Option<u32> {
    match positive(properties, name)?.round() as u32 {
        0 => None,
        whole => Some(whole),
    }
}

/// Data rates are given in kilobits a second.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive() is within 0 and 10^9")]
fn bits_per_second(properties: &Value, name: &str) -> Option<u64> {
    Some((positive(properties, name)? * 1000.0).round() as u64)
}

/// Text that may go into a log line.
fn printable(text: &str) -> Option<String> {
    let text: String = text.chars().filter(|c| !c.is_control()).take(LONGEST_ENCODER_CHARACTERS).collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The longest name of a data message that is carried.
const LONGEST_NAME_BYTES: usize = 64;
/// The longest data message about a moment that is carried.
const LONGEST_DATA_BYTES: usize = 8 << 10;
/// Numbers above it are nonsense for everything that metadata count.
const LARGEST_NUMBER: f64 = 1e9;
/// Enough for "obs-output module (libobs version 29.0.2-1+deb12u1)".
const LONGEST_ENCODER_CHARACTERS: usize = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rml_amf0::Amf0Value::{self, Null, Number, Utf8String};

    use super::*;

    fn text(text: &str) -> Amf0Value {
        Utf8String(text.to_owned())
    }

    fn object<const N: usize>(properties: [(&str, Amf0Value); N]) -> Amf0Value {
        Amf0Value::Object(properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    fn metadata(values: Vec<Amf0Value>) -> Option<Metadata> {
        let body = rml_amf0::serialize(&values).unwrap().into();
        parse_data(7, &body).unwrap().next().map(|tag| match tag {
            Tag { timestamp: 7, body: TagBody::Metadata(metadata) } => *metadata,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn what_obs_says_is_understood() {
        let said = object([
            ("duration", Number(0.0)),
            ("width", Number(640.0)),
            ("height", Number(360.0)),
            ("videocodecid", Number(7.0)),
            ("videodatarate", Number(350.0)),
            ("framerate", Number(30.0)),
            ("audiocodecid", Number(10.0)),
            ("audiodatarate", Number(64.5)),
            ("encoder", text("obs-output module (libobs version 29.0.2.1-1+b1)")),
        ]);
        let expected = Metadata {
            width: Some(640),
            height: Some(360),
            frame_rate: Some(30.0),
            video_bitrate: Some(350_000),
            audio_bitrate: Some(64_500),
            has_video: Some(true),
            has_audio: Some(true),
            encoder: Some("obs-output module (libobs version 29.0.2.1-1+b1)".to_owned()),
        };
        assert_eq!(metadata(vec![text("@setDataFrame"), text("onMetaData"), said.clone()]).as_ref(), Some(&expected));
        // As relays and files have it.
        assert_eq!(metadata(vec![text("onMetaData"), said]), Some(expected));
    }

    #[test]
    fn an_ecma_array_without_an_end_marker_is_understood() {
        let mut body = b"\x02\0\x0aonMetaData\x08\0\0\x27\x10".to_vec();
        body.extend_from_slice(b"\0\x05width\0\x40\x84\0\0\0\0\0\0");
        let Some(Tag { body: TagBody::Metadata(metadata), .. }) = parse_data(0, &body.into()).unwrap().next() else {
            panic!()
        };
        assert_eq!(*metadata, Metadata { width: Some(640), ..Metadata::default() });
    }

    #[test]
    fn nonsense_is_no_hint() {
        let said = object([
            ("width", Number(f64::NAN)),
            ("height", text(" 1080 ")),
            ("framerate", Number(f64::INFINITY)),
            ("fps", text("29.97")),
            ("videodatarate", Number(-1.0)),
            ("audiodatarate", Number(1e300)),
            ("videocodecid", text("hvc1")),
            ("audiocodecid", Null),
            ("encoder", text("\0\u{7}\n")),
        ]);
        let expected =
            Metadata { height: Some(1080), frame_rate: Some(29.97), has_video: Some(true), ..Metadata::default() };
        // What was said about audio is no codec, but it was said.
        assert_eq!(metadata(vec![text("onMetaData"), said]), Some(expected));
    }

    #[test]
    fn who_names_one_codec_only_has_one_track() {
        let audio_only = object([("audiocodecid", Number(10.0)), ("audiodatarate", Number(0.0))]);
        let found = metadata(vec![text("onMetaData"), audio_only]).unwrap();
        assert_eq!((found.has_video, found.has_audio), (Some(false), Some(true)));

        let no_audio = object([("videocodecid", Number(7.0)), ("audiocodecid", Number(0.0))]);
        let found = metadata(vec![text("onMetaData"), no_audio]).unwrap();
        assert_eq!((found.has_video, found.has_audio), (Some(true), Some(false)));

        let found = metadata(vec![text("onMetaData"), object([("width", Number(640.0))])]).unwrap();
        assert_eq!((found.has_video, found.has_audio), (None, None));
    }

    #[test]
    fn messages_about_a_moment_keep_their_name_and_what_they_say() {
        let data = |values: Vec<Amf0Value>| {
            let body = rml_amf0::serialize(&values).unwrap().into();
            parse_data(7, &body).unwrap().next().map(|tag| tag.body)
        };
        let said = object([("text", text("hello"))]);
        let expected = TagBody::Data(DataTag {
            name: "onTextData".to_owned(),
            arguments: vec![Value::Object(vec![("text".to_owned(), Value::String("hello".to_owned()))])],
        });
        assert_eq!(data(vec![text("onTextData"), said.clone()]).as_ref(), Some(&expected));
        assert_eq!(data(vec![text("@setDataFrame"), text("onTextData"), said]), Some(expected));
        for values in [
            vec![],
            vec![text("@setDataFrame")],
            vec![text("onMetaData")],
            vec![text("onTextData")],
            vec![text("@clearDataFrame"), text("onMetaData")],
            vec![text("|RtmpSampleAccess"), Amf0Value::Boolean(true)],
            vec![text(&"a".repeat(65)), Null],
            vec![text("onTextData"), text(&"a".repeat(8200))],
            vec![text("onMetaData"), Null],
            vec![Number(1.0), object([])],
        ] {
            assert_eq!(data(values.clone()), None, "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(rest in prop::collection::vec(any::<u8>(), 0..60)) {
            let start = b"\x02\0\x0aonMetaData\x08\0\0\0\x01\0\x05width";
            parse_data(0, &[start, &rest[..]].concat().into()).unwrap();
            parse_data(0, &rest.into()).unwrap();
        }
    }
}
