//! Where the leader is cut: by its sync samples, by breaks, and by the followers' time if it is silent.

use super::{Cut, Queued, Rendition, Segmenter, patience_us};
use crate::cmaf::cadence::Candidate;
use crate::media::{Sample, TrackKind};

/// How far behind a cut the nearest boundary of audio frames may be, in microseconds: half a frame of HE-AAC at 16 kHz.
const NEAREST_BOUNDARY_US: u64 = 64_000;

/// The most samples that wait for the leading track; beyond it they go on without it.
const QUEUED_SAMPLES: usize = 4_096;

/// The longest time from decoding to showing that audio cuts take into account, in microseconds.
const LONGEST_DELAY_US: i64 = 1_000_000;

/// The most bytes that wait for the leading track, of all others together.
const QUEUED_BYTES: usize = 4 << 20;

/// What a waiting sample counts for beside its bytes.
const QUEUED_SAMPLE_BYTES: usize = 256;

impl Segmenter {
    /// Takes the leader's next sample: this is where cuts are decided.
    pub(super) fn lead(&mut self, sample: Sample) {
        let head_start_us = self.head_start_us();
        let is_continued = self.is_continued();
        let leader = &mut self.renditions[0];
        let time_us = leader.incoming_timescale.micros(sample.decode_time);
        if time_us < self.horizon_us && leader.has_begun && leader.is_empty() {
            // The leader was given up on for this time.
            self.dropped_late += 1;
            return;
        }
        self.events.release(time_us, &mut self.renditions[0]);
        let leader = &mut self.renditions[0];
        let shown_us = leader.incoming_timescale.micros(sample.presentation_time());
        let delay_us = (shown_us.cast_signed() - time_us.cast_signed()).clamp(0, LONGEST_DELAY_US);
        let gop_us = time_us.saturating_sub(self.last_sync_us);
        if sample.is_sync {
            if self.last_sync_us > 0 && leader.has_begun {
                self.longest_gop_us = self.longest_gop_us.max(gop_us);
            }
            self.last_sync_us = time_us;
        }
        let is_break_due = self.breaks.front().is_some_and(|at_us| *at_us <= time_us);
        let new_track = match leader.queue.pop_front() {
            Some(Queued::Track(track)) => Some(track),
            _ => None,
        };
        if is_break_due || new_track.is_some() {
            let break_us = match self.breaks.front() {
                Some(at_us) if is_break_due => *at_us,
                _ => time_us,
            };
            while self.breaks.pop_front_if(|at_us| *at_us <= time_us).is_some() {}
            self.break_off(break_us, delay_us);
            if let Some(track) = new_track {
                self.renditions[0].set_track(*track);
            }
        } else if !leader.is_empty() {
            let start = leader.start().unwrap_or(sample.decode_time);
            let candidate = Candidate {
                length_us: time_us.saturating_sub(leader.micros(start)),
                head_start_us,
                sample_us: leader.micros(u64::from(sample.duration)),
                gop_us,
                is_sync: sample.is_sync,
                bytes: leader.bytes(),
                samples: leader.samples(),
            };
            if candidate.length_us + head_start_us > self.cadence.limit_us() {
                self.bridge(sample.decode_time);
                self.cut(time_us, Some(sample.decode_time), false);
            } else if self.cadence.is_cut(candidate) {
                self.cut(time_us, Some(sample.decode_time), false);
            }
        } else if is_continued && time_us + head_start_us > leader.opens_at_us() + self.cadence.limit_us() {
            self.bridge(sample.decode_time);
            self.cut(time_us, Some(sample.decode_time), false);
        }
        if self.renditions[0].starts_anew() {
            self.delay_us = delay_us;
        }
        self.renditions[0].push(sample, &mut self.outputs);
        self.horizon_us = self.horizon_us.max(time_us);
    }

    /// Ends the leader's open segment at `end` ticks, or where its last sample nominally ends. What is decoded from
    /// `time_us` on belongs to the next.
    fn cut(&mut self, time_us: u64, end: Option<u64>, is_break: bool) {
        let at_us = time_us.saturating_add_signed(self.delay_us);
        let leader_end_us = end.map(|end| self.renditions[0].micros(end));
        if let Some(first_us) = self.longest_open_us(at_us, leader_end_us) {
            self.cadence.fix(first_us);
        }
        let leader = &mut self.renditions[0];
        let at_us = self.cuts.back().map_or(at_us, |before| at_us.max(before.at_us + 1));
        let since_us = leader.opens_at_us().saturating_add_signed(self.delay_us);
        self.cuts.push_back(Cut { number: leader.number, since_us, at_us, delay_us: self.delay_us, is_break });
        let end = end.or_else(|| leader.is_empty().then(|| leader.ticks(time_us)));
        leader.close(end, &mut self.outputs);
        self.events.begin_segment();
        if is_break {
            leader.break_off(leader.ticks(time_us));
            self.delay_us = 0;
        }
    }

    /// Ends the leader's open segment, and lets what is decoded from `time_us` on, and shown `delay_us` later, start anew.
    pub(super) fn break_off(&mut self, time_us: u64, delay_us: i64) {
        // Behind the last of all there is nothing to fill.
        let filled_us = self.renditions.iter().map(|rendition| rendition.received_before_us(time_us)).max();
        self.bridge(self.renditions[0].ticks(filled_us.unwrap_or(0)));
        // The others' segments must not become too long by another delay.
        let most_us = self.renditions[0].opens_at_us() + self.limit_us();
        let time_us = time_us.min(most_us);
        self.delay_us = delay_us.min(self.delay_us + (most_us - time_us).cast_signed());
        self.cut(time_us, None, true);
    }

    /// Cuts what is too long for one segment up to `until` ticks into what the open one holds and gaps. The last piece
    /// stays open.
    fn bridge(&mut self, until: u64) {
        let step = self.renditions[0].ticks(self.cadence.wanted_us());
        loop {
            let leader = &self.renditions[0];
            let start = leader.opens_at();
            if until <= start + leader.ticks(self.limit_us()) {
                return;
            }
            let rest = until - start;
            let piece = if rest < 2 * step { rest / 2 } else { step };
            let next = (start + piece).max(leader.nominal_end().unwrap_or(0)).min(until);
            self.cut(leader.micros(next), Some(next), false);
        }
    }

    /// The leader's open segment starts where the one before it ended, or has begun for another rendition.
    fn is_continued(&self) -> bool {
        let number = self.renditions[0].number;
        let mut open = self.renditions.iter().filter(|rendition| rendition.number == number);
        open.any(|rendition| !rendition.starts_anew())
    }

    /// The longest that the leader's open segment may be, in microseconds.
    fn limit_us(&self) -> u64 {
        self.cadence.limit_us() - self.head_start_us()
    }

    /// How much earlier than the leader's open segment that of another rendition starts, in microseconds.
    pub(super) fn head_start_us(&self) -> u64 {
        let leader = &self.renditions[0];
        let head_starts =
            self.renditions[1..].iter().filter(|follower| follower.number == leader.number).map(|follower| {
                let since_us = leader.opens_at_us().saturating_add_signed(self.delay_until_cut_us(follower));
                let queued_us = if follower.starts_anew() { follower.queued_since_us() } else { None };
                since_us.saturating_sub(queued_us.unwrap_or_else(|| follower.opens_at_us()))
            });
        let most_us = self.cadence.most_head_start_us();
        head_starts.max().unwrap_or(0).min(most_us)
    }

    /// How much later than the leader's next sample is decoded a follower is cut, in microseconds.
    pub(super) fn delay_until_cut_us(&self, follower: &Rendition) -> i64 {
        match follower.id().kind {
            TrackKind::Video => 0,
            TrackKind::Audio => self.delay_us,
        }
    }

    /// Ends the leader's open segment by the followers' time, because the leader is silent.
    pub(super) fn cut_without_leader(&mut self) {
        let leader = &self.renditions[0];
        let open_us = leader.opens_at_us();
        let end_us = (open_us + self.cadence.wanted_us()).max(leader.nominal_end().map_or(0, |end| leader.micros(end)));
        let end = leader.ticks(end_us);
        match self.breaks.pop_front_if(|at_us| *at_us <= end_us) {
            Some(at_us) => {
                self.cut(at_us, None, true);
                self.horizon_us = self.horizon_us.max(at_us);
            }
            None => {
                self.cut(end_us, Some(end), false);
                self.horizon_us = self.horizon_us.max(end_us);
            }
        }
    }

    /// A follower has waited for the leader long enough.
    pub(super) fn is_leader_overdue(&self, position: usize) -> bool {
        let follower = &self.renditions[position];
        let leader = &self.renditions[0];
        let bytes = |queued: &Queued| match queued {
            Queued::Track(_) => 0,
            Queued::Sample(sample) => QUEUED_SAMPLE_BYTES + sample.data.len(),
        };
        !follower.queue.is_empty()
            && (follower.received_us > self.horizon_us + patience_us(leader)
                || follower.queue.len() > QUEUED_SAMPLES
                || self.renditions.iter().flat_map(|rendition| &rendition.queue).map(bytes).sum::<usize>()
                    > QUEUED_BYTES)
    }

    /// The longest open segment in microseconds, if the leader's ends at `leader_end_us` or with its last sample, the
    /// others' near `at_us`.
    fn longest_open_us(&self, at_us: u64, leader_end_us: Option<u64>) -> Option<u64> {
        let open = self.renditions.iter().filter(|rendition| rendition.number == self.renditions[0].number);
        let lengths = open.filter_map(|rendition| {
            let start = rendition.start().or_else(|| match rendition.queue.front() {
                Some(Queued::Sample(sample)) => Some(sample.decode_time),
                _ => None,
            })?;
            let is_leader = rendition.id() == self.renditions[0].id();
            let end_us = match leader_end_us {
                _ if !is_leader => at_us + NEAREST_BOUNDARY_US,
                Some(end_us) => end_us,
                None => rendition.micros(rendition.nominal_end()?),
            };
            Some(end_us.saturating_sub(rendition.micros(start)))
        });
        lengths.max()
    }
}
