//! Data tags: `onMetaData` (FLV 10.1 §E.5), which says in advance what the tracks will be like.

use bytes::Bytes;

use super::{Error, Tag};

/// What the publisher says about its broadcast. Hints for people and for the first guess; the sequence headers know better.
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
    /// Name and version of the encoder, without control characters.
    pub encoder: Option<String>,
}

/// Parses the body of an AMF0 data message. `None` when it is not `onMetaData`.
///
/// # Errors
/// None so far.
pub fn parse_data(timestamp: u32, body: &Bytes) -> Result<Option<Tag>, Error> {
    let _ = (timestamp, body);
    Ok(None)
}
