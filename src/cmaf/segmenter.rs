//! Cuts the tracks of a broadcast into segments that stay aligned.

use std::collections::VecDeque;

use crate::media::{Cause, Epoch, Item, Sample, Track, TrackId, TrackKind};

use super::Output;
use super::cadence::{Cadence, Candidate};
use super::rendition::{Queued, Rendition};

/// How much longer than ever before a track may lag behind the others before its segments become gaps, in microseconds.
const PATIENCE_US: u64 = 6_000_000;

/// The longest that any track is waited for, in microseconds.
const LONGEST_PATIENCE_US: u64 = 15_000_000;

/// The shortest gap, in microseconds: where a rendition has nothing for the last, short segment of the others.
const SHORTEST_GAP_US: u64 = 1_000;

/// The most samples that wait for the leading track; beyond it they go on without it.
const QUEUED_SAMPLES: usize = 4_096;

/// The most bytes that wait for the leading track, of all others together.
const QUEUED_BYTES: usize = 4 << 20;

/// What a waiting sample counts for beside its bytes: itself, and the block that it may be cut from.
const QUEUED_SAMPLE_BYTES: usize = 1 << 10;

/// Pictures smaller than this are copied when they wait, so that they do not keep a large block alive.
const COPIED_BYTES: usize = 16 << 10;

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
    /// The next epoch starts on a clean slate.
    is_flushed: bool,
    dropped_late: u64,
    longest_gop_us: u64,
    outputs: VecDeque<Output>,
}

/// The end of the leader's segment `number`.
#[derive(Debug, Clone, Copy)]
struct Cut {
    number: u64,
    at_us: u64,
    /// The segment behind it starts with a discontinuity.
    is_break: bool,
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
            is_flushed: false,
            dropped_late: 0,
            longest_gop_us: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Takes the remuxer's next item.
    pub fn handle_item(&mut self, item: Item) {
        match item {
            Item::Epoch(epoch) => self.handle_epoch(epoch),
            Item::Track(track) => self.handle_track(track),
            Item::Sample(id, sample) => self.handle_sample(id, sample),
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
        let limit_us = self.cadence.limit_us();
        while let Some(waiting_us) = self.renditions[1..].iter().map(|follower| follower.received_us).max()
            && waiting_us > self.open_since_us() + limit_us
            && self.renditions[1..].iter().any(|follower| !follower.queue.is_empty())
        {
            self.cut_without_leader();
        }
        for position in 1..self.renditions.len() {
            self.follow(position, haste);
        }
        if let Some(first_us) = self.longest_open_us(None) {
            self.cadence.fix(first_us);
        }
        let number = self.renditions[0].number;
        let end_us = self.renditions.iter().filter_map(|r| Some(r.micros(r.nominal_end()?))).max().unwrap_or(0);
        let is_open = self.renditions.iter().any(|rendition| !rendition.is_empty());
        for rendition in &mut self.renditions {
            let is_gap = rendition.is_empty();
            if is_gap && is_open && haste == Haste::Interrupt {
                let end =
                    rendition.ticks(end_us).max(rendition.start().unwrap_or(0) + rendition.ticks(SHORTEST_GAP_US));
                rendition.close(Some(end), &mut self.outputs);
            } else if !is_gap {
                rendition.close(None, &mut self.outputs);
            }
            rendition.number = number + u64::from(is_open);
        }
        self.cuts.clear();
        self.breaks.clear();
    }

    fn handle_epoch(&mut self, epoch: Epoch) {
        match epoch.cause {
            Cause::Jump => self.breaks.push_back(epoch.start_us),
            Cause::Publish => {
                self.interrupt();
                if self.is_flushed {
                    for rendition in &mut self.renditions {
                        rendition.break_off(rendition.ticks(epoch.start_us));
                        rendition.received_us = epoch.start_us;
                    }
                }
                self.is_flushed = false;
                self.horizon_us = epoch.start_us;
                self.front_us = epoch.start_us;
            }
        }
    }

    fn handle_track(&mut self, track: Track) {
        if let Some(position) = self.renditions.iter().position(|rendition| rendition.id() == track.id) {
            let rendition = &mut self.renditions[position];
            if rendition.is_empty() && rendition.queue.is_empty() {
                rendition.set_track(track);
            } else {
                rendition.queue.push_back(Queued::Track(track));
            }
            return;
        }
        let leads = match self.renditions.first() {
            None => true,
            Some(leader) => track.id.kind == TrackKind::Video && leader.id().kind == TrackKind::Audio,
        };
        let mut joining = Rendition::new(track);
        // Pictures that join a broadcast which sound has led lead from here on: sound is cut where they begin.
        let is_break = leads && self.renditions.first().is_some_and(|leader| !leader.is_empty());
        if is_break {
            self.cut(self.front_us, None, true);
        }
        if let Some(leader) = self.renditions.first() {
            joining.number = leader.number;
            joining.discontinuities = leader.discontinuities;
        }
        if is_break {
            joining.mark_discontinuous();
        }
        let position = if leads { 0 } else { self.renditions.len() };
        self.renditions.insert(position, joining);
    }

    fn handle_sample(&mut self, id: TrackId, sample: Sample) {
        let Some(position) = self.renditions.iter().position(|rendition| rendition.id() == id) else { return };
        let rendition = &mut self.renditions[position];
        let end_us = rendition.micros(sample.end_time());
        rendition.received_us = rendition.received_us.max(end_us);
        self.front_us = self.front_us.max(end_us);
        rendition.lag_us = rendition.lag_us.max(self.front_us - end_us);
        if position == 0 {
            self.lead(sample);
            self.follow_all();
        } else {
            let is_small_picture = id.kind == TrackKind::Video && sample.data.len() < COPIED_BYTES;
            let data = if is_small_picture { sample.data.to_vec().into() } else { sample.data };
            rendition.queue.push_back(Queued::Sample(Sample { data, ..sample }));
            self.follow(position, Haste::Wait);
            while self.is_leader_overdue(position) {
                self.cut_without_leader();
                self.follow_all();
            }
        }
    }

    /// Takes the leader's next sample: this is where cuts are decided.
    fn lead(&mut self, sample: Sample) {
        let limit_us = self.cadence.limit_us();
        let leader = &mut self.renditions[0];
        let time_us = leader.micros(sample.decode_time);
        let shown_us = leader.micros(sample.presentation_time());
        if time_us < self.horizon_us && leader.has_begun && leader.is_empty() {
            // The leader was given up on for this time.
            self.dropped_late += 1;
            return;
        }
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
            let at_us = match self.breaks.front() {
                Some(at_us) if is_break_due => *at_us,
                _ => shown_us,
            };
            while self.breaks.pop_front_if(|at_us| *at_us <= time_us).is_some() {}
            self.cut(at_us, None, true);
            if let Some(track) = new_track {
                self.renditions[0].set_track(track);
            }
        } else if !leader.is_empty() {
            let start = leader.start().unwrap_or(sample.decode_time);
            let candidate = Candidate {
                length_us: time_us.saturating_sub(leader.micros(start)),
                sample_us: leader.micros(u64::from(sample.duration)),
                gop_us,
                is_sync: sample.is_sync,
                bytes: leader.bytes(),
                samples: leader.samples(),
            };
            if candidate.length_us > limit_us {
                self.bridge(sample.decode_time, shown_us);
            } else if self.cadence.is_cut(candidate) {
                self.cut(shown_us, Some(sample.decode_time), false);
            }
        } else if let Some(start) = leader.start()
            && time_us > leader.micros(start) + limit_us
        {
            self.bridge(sample.decode_time, shown_us);
        }
        self.renditions[0].push(sample, &mut self.outputs);
        self.horizon_us = self.horizon_us.max(time_us);
    }

    /// Ends the leader's open segment at `end` ticks, or where its last sample nominally ends.
    fn cut(&mut self, at_us: u64, end: Option<u64>, is_break: bool) {
        if let Some(first_us) = self.longest_open_us(Some(at_us)) {
            self.cadence.fix(first_us);
        }
        let leader = &mut self.renditions[0];
        let at_us = self.cuts.back().map_or(at_us, |before| at_us.max(before.at_us + 1));
        self.cuts.push_back(Cut { number: leader.number, at_us, is_break });
        let end = end.or_else(|| leader.is_empty().then(|| leader.ticks(at_us)));
        leader.close(end, &mut self.outputs);
        if is_break {
            leader.break_off(leader.ticks(at_us));
        }
    }

    /// Fills the time up to `until` ticks, which is too long for one segment, with what the open one holds and gaps.
    fn bridge(&mut self, until: u64, until_us: u64) {
        let limit = self.renditions[0].ticks(self.cadence.limit_us());
        let step = self.renditions[0].ticks(self.cadence.wanted_us());
        let delay_us = until_us.saturating_sub(self.renditions[0].micros(until));
        while let Some(start) = self.renditions[0].start()
            && until > start + limit
        {
            let leader = &self.renditions[0];
            let rest = until - start;
            let piece = if rest < 2 * step { rest / 2 } else { step };
            let next = (start + piece).max(leader.nominal_end().unwrap_or(0)).min(until);
            self.cut(leader.micros(next) + delay_us, Some(next), false);
        }
        self.cut(until_us, Some(until), false);
    }

    /// Ends the leader's open segment by the followers' time, because the leader is silent.
    fn cut_without_leader(&mut self) {
        let open_us = self.open_since_us();
        let leader = &self.renditions[0];
        let end_us = (open_us + self.cadence.wanted_us()).max(leader.nominal_end().map_or(0, |end| leader.micros(end)));
        let end = leader.ticks(end_us);
        match self.breaks.pop_front_if(|at_us| *at_us <= end_us) {
            Some(at_us) => self.cut(at_us, None, true),
            None => self.cut(end_us, Some(end), false),
        }
        self.horizon_us = self.horizon_us.max(end_us);
    }

    /// When the leader's open segment starts, in microseconds.
    fn open_since_us(&self) -> u64 {
        let leader = &self.renditions[0];
        leader.start().map_or(self.horizon_us, |start| leader.micros(start))
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

    fn follow_all(&mut self) {
        for position in 1..self.renditions.len() {
            self.follow(position, Haste::Wait);
        }
        let slowest = self.renditions[1..].iter().map(|follower| follower.number).min().unwrap_or(u64::MAX);
        while self.cuts.pop_front_if(|cut| cut.number < slowest).is_some() {}
    }

    /// Moves a follower's samples into its segments as far as the leader's cuts are known.
    fn follow(&mut self, position: usize, haste: Haste) {
        let limit_us = self.cadence.limit_us();
        let Self { renditions, cuts, breaks, outputs, .. } = self;
        let patience_us = patience_us(&renditions[position]);
        let follower = &mut renditions[position];
        loop {
            let cut = cuts.iter().find(|cut| cut.number == follower.number).copied();
            match (follower.queue.front(), cut) {
                (Some(Queued::Track(_)), _) if follower.is_empty() => {
                    if let Some(Queued::Track(track)) = follower.queue.pop_front() {
                        follower.set_track(track);
                    }
                }
                (Some(Queued::Track(_)), Some(cut)) if cut.is_break => end_follower(follower, cut, None, outputs),
                (Some(Queued::Track(_)), cut) => {
                    // A new configuration needs a break of all renditions; the leader cuts at its next sample.
                    let at_us = follower.nominal_end().map_or(0, |end| follower.micros(end));
                    match cut {
                        Some(cut) if at_us + 1 >= cut.at_us || haste != Haste::Wait => {
                            end_follower(follower, cut, None, outputs);
                        }
                        Some(cut) => end_follower(follower, Cut { is_break: true, ..cut }, None, outputs),
                        None if haste != Haste::Wait => {
                            follower.queue.pop_front();
                        }
                        None => {
                            if !breaks.contains(&at_us) {
                                breaks.push_back(at_us);
                            }
                            return;
                        }
                    }
                }
                (Some(Queued::Sample(sample)), Some(cut)) => {
                    let middle_us = follower.micros(sample.decode_time + u64::from(sample.duration / 2));
                    if middle_us < cut.at_us {
                        take(follower, outputs, &mut self.dropped_late);
                        continue;
                    }
                    let end = sample.decode_time;
                    let start = follower.start().unwrap_or(end);
                    let length_us = follower.micros(end).saturating_sub(follower.micros(start));
                    // A hole that is too long for one segment is cut where the leader was cut.
                    let end = if length_us <= limit_us { end } else { follower.ticks(cut.at_us) };
                    end_follower(follower, cut, Some(end), outputs);
                }
                (Some(Queued::Sample(sample)), None) => {
                    let is_behind = follower.micros(sample.decode_time) < self.horizon_us;
                    if haste == Haste::Wait && !is_behind {
                        return;
                    }
                    take(follower, outputs, &mut self.dropped_late);
                }
                (None, Some(cut)) => {
                    let is_given_up = self.front_us > cut.at_us + patience_us;
                    if haste == Haste::Wait && !is_given_up {
                        return;
                    }
                    if haste == Haste::Finish {
                        return;
                    }
                    let end = follower.ticks(cut.at_us);
                    end_follower(follower, cut, Some(end), outputs);
                }
                (None, None) => return,
            }
        }
    }

    /// The longest open segment in microseconds, if it ends at `at_us` or with its last sample.
    fn longest_open_us(&self, at_us: Option<u64>) -> Option<u64> {
        let open = self.renditions.iter().filter(|rendition| rendition.number == self.renditions[0].number);
        let lengths = open.filter_map(|rendition| {
            let start = rendition.start().or_else(|| match rendition.queue.front() {
                Some(Queued::Sample(sample)) => Some(sample.decode_time),
                _ => None,
            })?;
            let is_leader = rendition.id() == self.renditions[0].id();
            let end_us = match at_us {
                Some(at_us) if !is_leader => at_us,
                _ => rendition.micros(rendition.nominal_end()?),
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

/// Moves the follower's first queued sample into its open segment.
fn take(follower: &mut Rendition, outputs: &mut VecDeque<Output>, dropped_late: &mut u64) {
    let Some(Queued::Sample(sample)) = follower.queue.pop_front() else { return };
    let half = u64::from(sample.duration / 2);
    let is_late = follower.is_empty() && follower.start().is_some_and(|start| sample.decode_time + half < start);
    if is_late {
        *dropped_late += 1;
    } else {
        follower.push(sample, outputs);
    }
}

/// Ends the follower's open segment at a cut of the leader.
fn end_follower(follower: &mut Rendition, cut: Cut, end: Option<u64>, outputs: &mut VecDeque<Output>) {
    let end = if cut.is_break && !follower.is_empty() { None } else { end.or_else(|| Some(follower.ticks(cut.at_us))) };
    follower.close(end, outputs);
    if cut.is_break {
        follower.break_off(follower.ticks(cut.at_us));
    }
}
