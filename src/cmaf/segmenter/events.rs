//! Timed metadata on its way into the leader's segments.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Rendition;

/// The most timed metadata that a segment carries, in bytes.
const SEGMENT_BYTES: usize = 64 << 10;

/// The longest piece of timed metadata, in bytes.
const LONGEST_BYTES: usize = 16 << 10;

/// What a piece of timed metadata costs beside its bytes.
const OVERHEAD_BYTES: usize = 128;

/// ID3 tags that wait for the leader to come to their time.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// With their times in microseconds, in their order.
    waiting: VecDeque<(u64, Bytes)>,
    /// Of these and of those in the leader's open segment.
    bytes: usize,
    dropped: u64,
}

impl Events {
    /// Takes an ID3 tag, unless the open segment has enough of them.
    pub(super) fn push(&mut self, time_us: u64, id3: Bytes) {
        let bytes = OVERHEAD_BYTES + id3.len();
        if id3.len() > LONGEST_BYTES || self.bytes + bytes > SEGMENT_BYTES {
            self.dropped += 1;
            return;
        }
        self.bytes += bytes;
        let position = self.waiting.partition_point(|(other_us, _)| *other_us <= time_us);
        self.waiting.insert(position, (time_us, id3));
    }

    /// Moves what is to be known before `time_us` into the leader's open segment.
    pub(super) fn release(&mut self, time_us: u64, leader: &mut Rendition) {
        while let Some((at_us, id3)) = self.waiting.pop_front_if(|(at_us, _)| *at_us < time_us) {
            leader.push_event(at_us, id3);
        }
    }

    /// What was released was for a segment that has ended.
    pub(super) fn begin_segment(&mut self) {
        self.bytes = self.waiting.iter().map(|(_, id3)| OVERHEAD_BYTES + id3.len()).sum();
    }

    /// How many there was no room for.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}
