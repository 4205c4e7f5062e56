//! Where the leading track's segments end.
//!
//! Segments end before the first sync sample at or after the wanted length. No segment is longer than the target duration,
//! which is fixed when the first segment is known: a longer GOP is cut in its middle.

use std::time::Duration;

/// How long the first segment may become while no sync sample comes, in seconds, if the wanted length is not longer.
/// OBS's default is a key frame every 250 frames, 8.3 s.
const LONGEST_FIRST_SEGMENT_S: u64 = 10;

/// By how much a leader's segment may exceed the target duration, in microseconds. RFC 8216bis 4.4.3.1 rounds to the
/// nearest second; the rest of the half second is for the audio frames that end nearest to the cut.
const ROUNDING_US: u64 = 400_000;

/// By which part of the wanted length a segment may be shorter where key frames are rare.
const TOLERANCE: u64 = 10;

/// Which part of the wanted length a segment is at least, where another GOP would not fit.
const EARLIEST: u64 = 4;

/// The most bytes of a segment, whatever its timestamps say.
const SEGMENT_BYTES: u64 = 64 << 20;

/// The most samples of a segment, whatever their timestamps say.
const SEGMENT_SAMPLES: u32 = 20_000;

/// Decides where segments end.
#[derive(Debug, Clone)]
pub struct Cadence {
    wanted_us: u64,
    target_duration_s: Option<u64>,
    longest_gop_us: u64,
    /// The shortest segment that a sync sample ended so far.
    shortest_us: Option<u64>,
}

/// An open segment and the sample that may end it, in microseconds on the output timeline.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    /// The segment's length if it ends before the sample.
    pub(super) length_us: u64,
    /// How much longer another rendition's segment will be.
    pub(super) head_start_us: u64,
    /// How long the sample lasts, as far as is known.
    pub(super) sample_us: u64,
    /// From the last sync sample to this one.
    pub(super) gop_us: u64,
    pub(super) is_sync: bool,
    pub(super) bytes: u64,
    pub(super) samples: u32,
}

impl Cadence {
    /// A cadence of segments of `wanted` each.
    pub fn new(wanted: Duration) -> Self {
        let wanted_us = u64::try_from(wanted.as_micros()).unwrap_or(u64::MAX);
        Self { wanted_us, target_duration_s: None, longest_gop_us: 0, shortest_us: None }
    }

    /// The same for a broadcast whose target duration was fixed by a former process.
    #[must_use]
    pub fn with_target_duration(self, target_duration_s: u64) -> Self {
        let wanted_us = self.wanted_us.min(target_duration_s.max(1) * 1_000_000);
        Self { wanted_us, target_duration_s: Some(target_duration_s), ..self }
    }

    /// The wanted length, in microseconds.
    pub fn wanted_us(&self) -> u64 {
        self.wanted_us
    }

    /// The least that a leader's segment is long, as far as can be foreseen by those before, in microseconds.
    pub(super) fn least_us(&self) -> u64 {
        let tolerated_us = self.wanted_us - self.wanted_us / TOLERANCE;
        match self.shortest_us {
            // One ended where another GOP would not have fit: others may.
            Some(shortest_us) if shortest_us < tolerated_us => self.wanted_us / EARLIEST,
            Some(shortest_us) => shortest_us,
            None => tolerated_us,
        }
    }

    /// `EXT-X-TARGETDURATION` in seconds, once the first segment is known.
    pub fn target_duration_s(&self) -> Option<u64> {
        self.target_duration_s
    }

    /// The longest that a leader's segment may be, in microseconds.
    pub(super) fn limit_us(&self) -> u64 {
        let seconds =
            self.target_duration_s.unwrap_or_else(|| self.wanted_us.div_ceil(1_000_000).max(LONGEST_FIRST_SEGMENT_S));
        seconds * 1_000_000 + ROUNDING_US
    }

    /// By how much another rendition's segment may be longer than the leader's of the wanted length, in microseconds.
    pub(super) fn most_head_start_us(&self) -> u64 {
        self.limit_us().saturating_sub(self.wanted_us)
    }

    /// Fixes the target duration by the first segment's duration. It never changes again (RFC 8216bis 6.2.1).
    pub(super) fn fix(&mut self, first_us: u64) {
        let rounded_s = (first_us + 500_000) / 1_000_000;
        let wanted_s = self.wanted_us.div_ceil(1_000_000);
        self.target_duration_s = self.target_duration_s.or_else(|| Some(rounded_s.max(wanted_s)));
    }

    /// Whether the segment ends before the sample.
    pub(super) fn is_cut(&mut self, candidate: Candidate) -> bool {
        let Candidate { length_us, head_start_us, sample_us, gop_us, is_sync, bytes, samples } = candidate;
        if bytes > SEGMENT_BYTES || samples > SEGMENT_SAMPLES {
            return true;
        }
        if !is_sync {
            return length_us + head_start_us + sample_us > self.limit_us();
        }
        self.longest_gop_us = self.longest_gop_us.max(gop_us);
        let is_cut = self.is_cut_at_sync(candidate);
        if is_cut {
            self.shortest_us = Some(self.shortest_us.map_or(length_us, |shortest_us| shortest_us.min(length_us)));
        }
        is_cut
    }

    fn is_cut_at_sync(&self, candidate: Candidate) -> bool {
        let Candidate { length_us, head_start_us, sample_us, gop_us, .. } = candidate;
        // OBS's key frames land at 1999, 3999 … ms: half a frame of tolerance. When key frames are rare, one that is a
        // little early is nearer to the wanted length than the next one.
        let tolerance_us = if gop_us >= self.wanted_us / 2 { self.wanted_us / TOLERANCE } else { 0 };
        if length_us + tolerance_us.max(sample_us / 2) >= self.wanted_us {
            return true;
        }
        if length_us + head_start_us + sample_us > self.limit_us() {
            return true;
        }
        // Another GOP would not fit: better a short segment here than a cut in the middle of the next GOP.
        self.target_duration_s.is_some()
            && length_us >= self.wanted_us / EARLIEST
            && length_us + self.longest_gop_us > self.limit_us()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME_US: u64 = 40_000;

    /// Segment lengths in milliseconds for frames of which those at `keys_ms` are sync samples.
    fn lengths(cadence: &mut Cadence, keys_ms: &[u64], end_ms: u64) -> Vec<u64> {
        let (mut start_us, mut key_us, mut lengths) = (0, 0, Vec::new());
        let mut keys = keys_ms.iter().map(|ms| ms * 1000).peekable();
        keys.next_if_eq(&0);
        let mut time_us = FRAME_US;
        while time_us < end_ms * 1000 {
            let is_sync = keys.next_if(|key| *key <= time_us).is_some();
            let candidate = Candidate {
                length_us: time_us - start_us,
                head_start_us: 0,
                sample_us: FRAME_US,
                gop_us: time_us - key_us,
                is_sync,
                bytes: 0,
                samples: 0,
            };
            if cadence.is_cut(candidate) {
                cadence.fix(time_us - start_us);
                lengths.push((time_us - start_us) / 1000);
                start_us = time_us;
            }
            if is_sync {
                key_us = time_us;
            }
            time_us += FRAME_US;
        }
        lengths
    }

    #[test]
    fn segments_end_at_the_first_sync_sample_at_or_after_the_wanted_length() {
        let mut cadence = Cadence::new(Duration::from_secs(2));
        assert_eq!(lengths(&mut cadence, &[0, 1000, 2000, 3000, 4000, 5000, 6000], 6500), [2000, 2000, 2000]);
        assert_eq!(cadence.target_duration_s(), Some(2));
    }

    #[test]
    fn a_key_frame_half_a_frame_early_ends_its_segment() {
        let mut cadence = Cadence::new(Duration::from_millis(2015));
        assert_eq!(lengths(&mut cadence, &[0, 2000, 4000], 4500), [2000, 2000]);
    }

    #[test]
    fn a_rare_key_frame_that_is_a_little_early_ends_its_segment() {
        let mut cadence = Cadence::new(Duration::from_secs(2));
        assert_eq!(lengths(&mut cadence, &[0, 1920, 3840, 5760], 6_000), [1920, 1920, 1920]);
        assert_eq!(cadence.target_duration_s(), Some(2));
    }

    #[test]
    fn a_long_first_gop_sets_the_target_duration_and_later_ones_are_cut() {
        let mut cadence = Cadence::new(Duration::from_secs(2));
        assert_eq!(lengths(&mut cadence, &[0, 4000, 8000], 20_000), [4000, 4000, 4400, 4400]);
        assert_eq!(cadence.target_duration_s(), Some(4));
    }

    #[test]
    fn without_key_frames_the_first_segment_ends_after_ten_seconds() {
        let mut cadence = Cadence::new(Duration::from_secs(2));
        assert_eq!(lengths(&mut cadence, &[0], 22_000), [10_400, 10_400]);
        assert_eq!(cadence.target_duration_s(), Some(10));
    }

    #[test]
    fn a_scene_cut_does_not_push_the_next_cut_into_a_gop() {
        let mut cadence = Cadence::new(Duration::from_secs(2));
        let lengths = lengths(&mut cadence, &[0, 2000, 3520, 5520, 7520], 8_000);
        assert_eq!(lengths, [2000, 1520, 2000, 2000]);
    }

    #[test]
    fn a_key_frame_every_frame_makes_no_more_segments() {
        let keys: Vec<u64> = (0..600).map(|n| n * 40).collect();
        let lengths = lengths(&mut Cadence::new(Duration::from_secs(2)), &keys, 20_000);
        assert_eq!(lengths, [2000; 9]);
    }
}
