//! The vocabulary that flows from the remuxer to the packager: tracks, samples and what stands between them.
//!
//! All times are in the ticks of a track's [`Timescale`], on one output timeline shared by all tracks of a broadcast.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;

use crate::codec::{Captions, Configuration};
use crate::scte35::Section;

/// What a track carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TrackKind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
}

/// Names a track within a broadcast: its kind and the publisher's number for it (0 but for Enhanced RTMP multitrack).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrackId {
    /// What the track carries.
    pub kind: TrackKind,
    /// The publisher's number for the track, 0 to 255.
    pub index: u8,
}

impl TrackId {
    /// The first video track, the only one outside Enhanced RTMP multitrack.
    pub const VIDEO: Self = Self { kind: TrackKind::Video, index: 0 };
    /// The first audio track, the only one outside Enhanced RTMP multitrack.
    pub const AUDIO: Self = Self { kind: TrackKind::Audio, index: 0 };
}

impl fmt::Display for TrackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            TrackKind::Video => "video",
            TrackKind::Audio => "audio",
        };
        match self.index {
            0 => f.write_str(kind),
            index => write!(f, "{kind}{index}"),
        }
    }
}

/// Ticks a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timescale(NonZeroU32);

impl Timescale {
    /// 90 000 ticks a second, which every video track has.
    pub const VIDEO: Self = Self(NonZeroU32::new(90_000).unwrap());

    /// A timescale of `ticks_per_second`, or `None` for 0.
    pub const fn new(ticks_per_second: u32) -> Option<Self> {
        match NonZeroU32::new(ticks_per_second) {
            Some(ticks) => Some(Self(ticks)),
            None => None,
        }
    }

    /// Ticks a second.
    pub const fn ticks_per_second(self) -> u32 {
        self.0.get()
    }

    /// `ticks` of this timescale in microseconds, rounded to the nearest.
    pub fn micros(self, ticks: u64) -> u64 {
        rescale(ticks, self.ticks_per_second(), 1_000_000)
    }

    /// `micros` microseconds in ticks of this timescale, rounded to the nearest.
    pub fn ticks(self, micros: u64) -> u64 {
        rescale(micros, 1_000_000, self.ticks_per_second())
    }
}

/// `value` counted in `from` a second, counted in `to` a second, rounded to the nearest.
fn rescale(value: u64, from: u32, to: u32) -> u64 {
    let half = u64::from(from / 2);
    // A division of 128 bits takes several times as long, and is needed for times of centuries only.
    match value.checked_mul(to.into()).and_then(|product| product.checked_add(half)) {
        Some(product) => product / u64::from(from),
        None => {
            let product = u128::from(value) * u128::from(to) + u128::from(half);
            u64::try_from(product / u128::from(from)).unwrap_or(u64::MAX)
        }
    }
}

/// A track as the packager sees it: one codec configuration at one timescale. A new configuration is a new `Track`
/// with the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// Which track of the broadcast.
    pub id: TrackId,
    /// Ticks a second of its samples: 90 000 for video, the sample rate for audio.
    pub timescale: Timescale,
    /// The decoder's configuration.
    pub configuration: Configuration,
}

/// One coded picture or audio frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Decode time in ticks, on the broadcast's output timeline.
    pub decode_time: u64,
    /// Presentation time minus decode time, in ticks; may be negative.
    pub composition_offset: i32,
    /// Ticks to the next sample of the track; never 0.
    pub duration: u32,
    /// Decoding can start here.
    pub is_sync: bool,
    /// A sync sample of an open GOP: pictures that follow it may be shown before it and need earlier ones.
    pub is_open_gop: bool,
    /// The coded bytes, a slice of what was received.
    pub data: Bytes,
}

impl Sample {
    /// Presentation time in ticks.
    pub fn presentation_time(&self) -> u64 {
        self.decode_time.saturating_add_signed(i64::from(self.composition_offset))
    }

    /// Decode time of the sample after this one, in ticks.
    pub fn end_time(&self) -> u64 {
        self.decode_time + u64::from(self.duration)
    }
}

/// What the remuxer says, in the order of the publisher's messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The clock starts, or starts anew.
    Epoch(Epoch),
    /// A track's configuration, for its samples from here on. In a box, as it is several times as large as a sample.
    Track(Box<Track>),
    /// The next sample of a track. Its duration is nominal: the time of the track's next sample has the last word.
    Sample(TrackId, Sample),
    /// The pictures of a track carry captions; all channels that were seen so far.
    Captions(TrackId, Captions),
    /// Something that is to be known at a moment.
    Event(Event),
}

/// Timed metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When, in microseconds on the output timeline.
    pub time_us: u64,
    /// What.
    pub body: EventBody,
}

/// What is to be known at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventBody {
    /// An ID3 tag, which travels with the media.
    Id3(Bytes),
    /// A cue point, in JSON, which stands in the playlists.
    CuePoint(String),
    /// Where a programme is left or comes back, which stands in the playlists.
    Splice(Section),
}

/// A stretch of the output timeline on which the publisher's clocks run on. Between two of them lies a discontinuity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    /// Why the clock started anew.
    pub cause: Cause,
    /// Samples from this time on belong to it, in microseconds on the output timeline.
    pub start_us: u64,
    /// What is at `anchor_us` of the output timeline was received at this time, in microseconds since 1970.
    pub anchor_unix_us: u64,
    /// See `anchor_unix_us`.
    pub anchor_us: u64,
}

/// Why the clock started anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A publisher began, or came back.
    Publish,
    /// The publisher's timestamps jumped.
    Jump {
        /// From the track's last timestamp to this one, in milliseconds.
        by_ms: i64,
    },
}

/// When something was received, on both clocks. The core reads no clock; whoever hands it input says when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment {
    /// Since an arbitrary start, never going back: what waiting is measured by.
    pub monotonic: Duration,
    /// Since 1970-01-01T00:00:00Z, may jump: what people are told (`EXT-X-PROGRAM-DATE-TIME`).
    pub unix: Duration,
}
