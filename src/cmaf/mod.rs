//! CMAF: headers, chunks and segments of one track each.
//!
//! | Document | Version |
//! |---|---|
//! | ISO/IEC 23000-19, Common media application format (CMAF) | 2020 |
//! | draft-pantos-hls-rfc8216bis, for where segments end | 22 |
//!
//! The [`Segmenter`] decides where segments end. One track leads (the first video track, else the first audio track):
//! it is cut at its sync samples. The others follow: their segments end at the sample boundary nearest to the leader's cut,
//! so that segment numbers and discontinuities of all renditions stay aligned.
//!
//! ```text
//! video  │ I P P P P P P P │ I P P P P P P P │      the leader: cut before a sync sample
//! audio  │a a a a a a a a a│a a a a a a a a a│      followers: the nearest sample boundary
//!        0                 1                 2      segment numbers
//! ```

mod cadence;
mod rendition;
mod segmenter;

use bytes::Bytes;

use crate::media::{Track, TrackId};

pub use cadence::Cadence;
pub use segmenter::Segmenter;

/// What the segmenter says, in the order in which it must be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A CMAF header, before the first chunk that needs it.
    Header(Box<Header>),
    /// More bytes of the track's open segment.
    Chunk(Chunk),
    /// The track's open segment is complete.
    Segment(Segment),
}

/// A CMAF header (ISO/IEC 23000-19 §7.3.1): what `EXT-X-MAP` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The track that it describes.
    pub track: Track,
    /// Counts the headers of the track, from 0.
    pub number: u32,
    /// `ftyp` and `moov`.
    pub body: Bytes,
}

/// A CMAF chunk (ISO/IEC 23000-19 §7.3.2.3): one `moof` and one `mdat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The track that it belongs to.
    pub track: TrackId,
    /// The segment that it belongs to.
    pub segment: u64,
    /// `moof` and `mdat` header, then the samples' data.
    pub body: Vec<Bytes>,
}

/// A complete CMAF segment, or a gap where one should have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The track that it belongs to.
    pub track: TrackId,
    /// Its number in the broadcast, the same in all renditions: the media sequence number.
    pub number: u64,
    /// The number of the header that it needs.
    pub header: u32,
    /// When its first sample is shown, in microseconds on the output timeline.
    pub start_us: u64,
    /// The sum of its samples' durations, in microseconds.
    pub duration_us: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its samples.
    pub samples: u32,
    /// The median of its samples' durations, in microseconds.
    pub usual_sample_us: u64,
    /// Something changed or jumped before it: `EXT-X-DISCONTINUITY`.
    pub is_discontinuous: bool,
    /// Discontinuities of the broadcast up to and before it: the same for a number in all renditions.
    pub discontinuities: u64,
    /// Each of its samples can be decoded without an earlier segment.
    pub is_independent: bool,
    /// There is no media: `EXT-X-GAP`.
    pub is_gap: bool,
}
