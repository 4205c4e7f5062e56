//! A coded frame with the times that its publisher gave it.

use bytes::Bytes;

use crate::codec::Frame;
use crate::media::{Moment, TrackId};

/// A coded frame before it has a place on the timeline.
#[derive(Debug)]
pub(super) struct PlaceableFrame {
    pub(super) track: TrackId,
    pub(super) timestamp: u32,
    pub(super) composition_ms: i32,
    /// What the publisher adds to it, in nanoseconds.
    pub(super) offset_ns: u32,
    pub(super) is_sync: bool,
    pub(super) is_open_gop: bool,
    /// Of sound.
    pub(super) samples: Option<u32>,
    pub(super) data: Bytes,
    pub(super) received_at: Moment,
}

impl PlaceableFrame {
    /// A frame of a track with its times.
    pub(super) fn new(frame: Frame, track: TrackId, timestamp: u32, composition_ms: i32, received_at: Moment) -> Self {
        let Frame { is_sync, is_open_gop, samples, data, .. } = frame;
        Self { track, timestamp, composition_ms, offset_ns: 0, is_sync, is_open_gop, samples, data, received_at }
    }
}
