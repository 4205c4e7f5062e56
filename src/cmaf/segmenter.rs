//! Cuts the tracks of a broadcast into segments that stay aligned.

mod events;
mod follow;
mod lead;

use std::collections::VecDeque;

use crate::media::{Cause, Epoch, Event, EventBody, Item, Sample, Track, TrackId, TrackKind};

use super::Output;
use super::cadence::Cadence;
use super::rendition::{Queued, Rendition};
use events::Events;

/// How much longer than ever before a track may lag behind the others before its segments become gaps, in microseconds.
const PATIENCE_US: u64 = 6_000_000;

/// The longest that any track is waited for, in microseconds.
const LONGEST_PATIENCE_US: u64 = 15_000_000;

/// The sample that ends a segment lasts as long as the one before it, but where the frame rate varies it may be shorter: so
/// much of it is counted on at most, in microseconds.
const SURE_SAMPLE_US: u64 = 40_000;

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

    /// The end of what was received of any track, in microseconds on the output timeline.
    pub fn front_us(&self) -> u64 {
        self.front_us
    }

    /// Which media, by their end, can end an open segment at the earliest, as far as can be foreseen, in microseconds on the
    /// output timeline; `None` if that may be any. What nobody can foresee, such as another configuration, may end them before.
    pub fn foreseen_end_us(&self) -> Option<u64> {
        let (leader, followers) = self.renditions.split_first()?;
        if !self.breaks.is_empty() || !leader.has_begun {
            return None;
        }
        let sample_us = leader.micros(leader.last_duration()?.into()).min(SURE_SAMPLE_US);
        let own_us = leader.opens_at_us() + self.cadence.least_us() + sample_us;
        // Who is behind ends its segment where the leader was cut.
        let cuts = followers.iter().filter(|follower| follower.number < leader.number);
        cuts.map(|follower| cut_of(follower, &self.cuts)).try_fold(own_us, |end_us, cut| Some(end_us.min(cut?.at_us)))
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

    fn handle_track(&mut self, track: Box<Track>) {
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
            Some(leader) => Rendition::beside(leader, *track, self.first.header),
            None => {
                let First { segment, header, discontinuities } = self.first;
                Rendition::first_of_process(*track, self.horizon_us, header, segment, discontinuities)
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
}

/// Where a follower's open segment ends, if that is among `cuts`.
fn cut_of(follower: &Rendition, cuts: &VecDeque<Cut>) -> Option<Cut> {
    let cut = *cuts.iter().find(|cut| cut.number == follower.number)?;
    Some(if follower.id().kind == TrackKind::Video { cut.decoded() } else { cut })
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
