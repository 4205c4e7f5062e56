//! Data tags: `onMetaData` (FLV 10.1 §E.5), which says in advance what the tracks will be like.

use bytes::Bytes;

use super::{Error, Tag, TagBody};
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

/// Parses the body of an AMF0 data message. `None` when it is not `onMetaData` with properties: cue points, text, what
/// cannot be read.
///
/// # Errors
/// None so far: unreadable metadata are worth nothing, and no reason to complain about a broadcast.
pub fn parse_data(timestamp: u32, body: &Bytes) -> Result<Option<Tag>, Error> {
    let (values, _) = amf0::decode_lossy(body);
    // RTMP publishers wrap it for Flash Media Server (`@setDataFrame`); relays and files have it bare.
    let values = match values.first().and_then(Value::as_str) {
        Some("@setDataFrame") => &values[1..],
        _ => &values[..],
    };
    let [name, properties, ..] = values else {
        return Ok(None);
    };
    if name.as_str() != Some("onMetaData") || properties.properties().is_none() {
        return Ok(None);
    }
    Ok(Some(Tag { timestamp, body: TagBody::Metadata(Metadata::of(properties)) }))
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

/// Numbers above it are nonsense for everything that metadata count.
const LARGEST_NUMBER: f64 = 1e9;
/// Enough for "obs-output module (libobs version 29.0.2-1+deb12u1)".
const LONGEST_ENCODER_CHARACTERS: usize = 128;
