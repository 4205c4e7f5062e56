//! Cuts the tracks of a broadcast into segments that stay aligned.

mod events;
mod follow;

use std::collections::VecDeque;

use crate::media::{Cause, Epoch, Event, EventBody, Item, Sample, Track, TrackId, TrackKind};

use super::Output;
use super::cadence::{Cadence, Candidate};
use super::rendition::{Queued, Rendition};
use events::Events;

/// How much longer than ever before a track may lag behind the others before its segments become gaps, in microseconds.
const PATIENCE_US: u64 = 6_000_000;

/// The longest that any track is waited for, in microseconds.
const LONGEST_PATIENCE_US: u64 = 15_000_000;

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

/// Cuts tracks into segments: `handle_item` in, `poll_output` out.
#[derive(Debug)]
pub struct Segmenter {
    cadence: Cadence,
    /// The first is the leader.
    renditions: Vec<Rendition>,
    /// Where the leader was cut, the oldest that a follower has not passed first.
    cuts: VecDeque<Cut>,
    /// When something changes for all renditions, in microseconds; the leader cuts at its next sample.
    breaks: VecDeque<u64>,
    /// Until where the leader has decided on cuts, in microseconds.
    horizon_us: u64,
    /// The end of what was received of any track, in microseconds.
    front_us: u64,
    last_sync_us: u64,
    /// From the leader's decoding to its showing, in microseconds, as at its first sample since a break. It stays until
    /// the next one, so that the followers' segments are as long as the leader's.
    delay_us: i64,
    /// The next epoch starts on a clean slate.
    is_flushed: bool,
    /// What a track that joins starts with, where no other track says so.
    first: First,
    dropped_late: u64,
    longest_gop_us: u64,
    events: Events,
    outputs: VecDeque<Output>,
}

/// Numbers that the first track of this process starts with.
#[derive(Debug, Clone, Copy, Default)]
struct First {
    segment: u64,
    header: u32,
    discontinuities: u64,
}

/// The end of the leader's segment `number`.
#[derive(Debug, Clone, Copy)]
struct Cut {
    number: u64,
    /// When the leader's segment starts and ends as shown, in microseconds.
    since_us: u64,
    at_us: u64,
    /// From the leader's decoding to its showing, in microseconds.
    delay_us: i64,
    /// The segment behind it starts with a discontinuity.
    is_break: bool,
}

impl Cut {
    /// The same as decoded. That is where other pictures are cut, whose key frames have the leader's timestamps; sound is
    /// decoded when it is heard.
    fn decoded(self) -> Self {
        let decoded = |shown_us: u64| shown_us.saturating_add_signed(-self.delay_us);
        Self { since_us: decoded(self.since_us), at_us: decoded(self.at_us), ..self }
    }
}

impl Segmenter {
    /// A segmenter whose segments end as `cadence` says.
    pub fn new(cadence: Cadence) -> Self {
        Self {
            cadence,
            renditions: Vec::new(),
            cuts: VecDeque::new(),
            breaks: VecDeque::new(),
            horizon_us: 0,
            front_us: 0,
            last_sync_us: 0,
            delay_us: 0,
            is_flushed: false,
            first: First::default(),
            dropped_late: 0,
            longest_gop_us: 0,
            events: Events::default(),
            outputs: VecDeque::new(),
        }
    }

    /// A segmenter that goes on where a former process was stopped: `tracks` with the number of the header that each used
    /// last. The next segment has the number `next_segment`, the next header of any track `next_header`.
    pub fn resume(
        cadence: Cadence,
        tracks: impl IntoIterator<Item = (Track, u32)>,
        next_segment: u64,
        next_header: u32,
        discontinuities: u64,
    ) -> Self {
        let mut renditions: Vec<_> = tracks
            .into_iter()
            .map(|(track, header)| Rendition::resume(track, header, next_header, next_segment, discontinuities))
            .collect();
        renditions.sort_by_key(Rendition::id);
        let first = First { segment: next_segment, header: next_header, discontinuities: discontinuities + 1 };
        // As after an interruption: the next epoch begins with a discontinuity.
        Self { renditions, is_flushed: true, first, ..Self::new(cadence) }
    }

    /// Takes the remuxer's next item.
    pub fn handle_item(&mut self, item: Item) {
        match item {
            Item::Epoch(epoch) => self.handle_epoch(epoch),
            Item::Track(track) => self.handle_track(track),
            Item::Sample(id, sample) => self.handle_sample(id, sample),
            Item::Event(Event { time_us, body: EventBody::Id3(id3) }) => self.events.push(time_us, id3),
            // These stand in the playlists.
            Item::Captions(..) | Item::Event(Event { body: EventBody::CuePoint(_) | EventBody::Splice(_), .. }) => {}
        }
    }

    /// The next output; drain it after each input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// `EXT-X-TARGETDURATION` in seconds, once the first segment is known.
    pub fn target_duration_s(&self) -> Option<u64> {
        self.cadence.target_duration_s()
    }

    /// The longest time between two sync samples of the leader, in microseconds.
    pub fn longest_gop_us(&self) -> u64 {
        self.longest_gop_us
    }

    /// Samples that came when their segment had long been closed.
    pub fn dropped_late(&self) -> u64 {
        self.dropped_late
    }

    /// Timed metadata of which there was too much.
    pub fn dropped_events(&self) -> u64 {
        self.events.dropped()
    }

    /// Ends all open segments with what they hold. What comes next starts with a discontinuity.
    pub fn interrupt(&mut self) {
        self.flush(Haste::Interrupt);
    }

    /// Ends all open segments with what they hold. A rendition that ended before the others ends there.
    pub fn finish(&mut self) {
        self.flush(Haste::Finish);
    }

    fn flush(&mut self, haste: Haste) {
        if self.renditions.is_empty() || self.is_flushed {
            return;
        }
        self.is_flushed = true;
        self.events.release(u64::MAX, &mut self.renditions[0]);
        let head_start_us = self.head_start_us();
        let received_us = self.renditions.iter().map(|rendition| rendition.received_us).max().unwrap_or(0);
        let first_us = (received_us + head_start_us).saturating_sub(self.renditions[0].opens_at_us());
        self.cadence.fix(first_us.min(self.cadence.limit_us()));
        self.follow_hastily(haste);
        let number = self.renditions[0].number;
        let end_us = self.renditions.iter().filter_map(|r| Some(r.micros(r.nominal_end()?))).max().unwrap_or(0);
        let open = self.renditions.iter().filter(|rendition| !rendition.is_empty());
        let since_us = open.map(Rendition::opens_at_us).min();
        for rendition in &mut self.renditions {
            let is_gap = rendition.is_empty();
            if is_gap
                && let Some(since_us) = since_us
                && haste == Haste::Interrupt
            {
                rendition.start_at(since_us);
                rendition.close(Some(rendition.ticks(end_us)), &mut self.outputs);
            } else if !is_gap {
                rendition.close(None, &mut self.outputs);
            }
            rendition.number = number + u64::from(since_us.is_some());
        }
        self.cuts.clear();
        self.breaks.clear();
    }

    fn handle_epoch(&mut self, epoch: Epoch) {
        match epoch.cause {
            Cause::Jump { .. } => {
                let position = self.breaks.partition_point(|other| *other < epoch.start_us);
                self.breaks.insert(position, epoch.start_us);
            }
            Cause::Publish => {
                self.interrupt();
                if self.is_flushed {
                    for rendition in &mut self.renditions {
                        rendition.break_off(rendition.ticks(epoch.start_us));
                        rendition.received_us = epoch.start_us;
                    }
                }
                self.is_flushed = false;
                self.delay_us = 0;
                self.horizon_us = epoch.start_us;
                self.front_us = epoch.start_us;
            }
        }
    }

    fn handle_track(&mut self, track: Track) {
        if let Some(rendition) = self.renditions.iter_mut().find(|rendition| rendition.id() == track.id) {
            rendition.announce(track);
            return;
        }
        let leads = match self.renditions.first() {
            None => true,
            Some(leader) => track.id.kind == TrackKind::Video && leader.id().kind == TrackKind::Audio,
        };
        // Pictures that join a broadcast which sound has led lead from here on: sound is cut where they begin.
        if leads && self.renditions.first().is_some_and(|leader| !leader.is_empty()) {
            self.break_off(self.front_us, 0);
        }
        let joining = match self.renditions.first() {
            Some(leader) => Rendition::beside(leader, track, self.first.header),
            None => {
                let First { segment, header, discontinuities } = self.first;
                Rendition::first_of_process(track, self.horizon_us, header, segment, discontinuities)
            }
        };
        let position = if leads { 0 } else { self.renditions.len() };
        self.renditions.insert(position, joining);
    }

    fn handle_sample(&mut self, id: TrackId, sample: Sample) {
        let Some(position) = self.renditions.iter().position(|rendition| rendition.id() == id) else { return };
        let rendition = &mut self.renditions[position];
        let end_us = rendition.incoming_timescale.micros(sample.end_time());
        rendition.received_us = rendition.received_us.max(end_us);
        self.front_us = self.front_us.max(end_us);
        rendition.lag_us = rendition.lag_us.max(self.front_us - end_us);
        if position == 0 {
            self.lead(sample);
            self.follow_all();
        } else {
            rendition.queue.push_back(Queued::Sample(sample));
            self.follow(position, Haste::Wait);
            while self.is_leader_overdue(position) {
                self.cut_without_leader();
                self.follow_all();
            }
        }
    }

    /// Takes the leader's next sample: this is where cuts are decided.
    fn lead(&mut self, sample: Sample) {
        let head_start_us = self.head_start_us();
        let limit_us = self.limit_us();
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
                self.renditions[0].set_track(track);
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
            if candidate.length_us > limit_us {
                self.bridge(sample.decode_time);
                self.cut(time_us, Some(sample.decode_time), false);
            } else if self.cadence.is_cut(candidate) {
                self.cut(time_us, Some(sample.decode_time), false);
            }
        } else if is_continued && time_us > leader.opens_at_us() + limit_us {
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
    fn break_off(&mut self, time_us: u64, delay_us: i64) {
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
    fn head_start_us(&self) -> u64 {
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
    fn delay_until_cut_us(&self, follower: &Rendition) -> i64 {
        match follower.id().kind {
            TrackKind::Video => 0,
            TrackKind::Audio => self.delay_us,
        }
    }

    /// Ends the leader's open segment by the followers' time, because the leader is silent.
    fn cut_without_leader(&mut self) {
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
    fn is_leader_overdue(&self, position: usize) -> bool {
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

/// Whether a follower waits for what it does not know yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Haste {
    Wait,
    /// It takes what there is; what it lacks becomes gaps.
    Interrupt,
    /// It takes what there is, and ends.
    Finish,
}

/// How long a track is waited for, in microseconds.
fn patience_us(rendition: &Rendition) -> u64 {
    (rendition.lag_us + PATIENCE_US).min(LONGEST_PATIENCE_US)
}
