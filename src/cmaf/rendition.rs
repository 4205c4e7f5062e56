//! One track's open segment: samples become chunks, chunks a segment.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::isobmff::{self, EventMessage, MovieFragment};
use crate::media::{Sample, Timescale, Track, TrackId};

use super::{Chunk, Header, Output, Segment};

/// A chunk is written once it holds this many bytes: what a broadcast keeps in memory is bounded by this and not by
/// its segments' length.
const CHUNK_BYTES: usize = 32 << 10;

/// The shortest gap, in microseconds: where a rendition has nothing for a very short segment of the others.
const SHORTEST_GAP_US: u64 = 1_000;

/// Room for the boxes of several chunks, in bytes.
const BOXES_BYTES: usize = 2 << 10;

/// What waits for its segment.
#[derive(Debug)]
pub(super) enum Queued {
    /// The configuration of the samples behind it.
    Track(Box<Track>),
    Sample(Sample),
}

/// A track's way into segments.
#[derive(Debug)]
pub(super) struct Rendition {
    track: Track,
    /// The timescale of what comes next; `track`'s unless another track is queued.
    pub(super) incoming_timescale: Timescale,
    /// The header in use, once one was needed.
    header: Option<u32>,
    next_header: u32,
    /// `track` is not yet the header's.
    header_is_due: bool,
    /// Followers: what lies beyond the leader's cuts so far.
    pub(super) queue: VecDeque<Queued>,
    /// The end of what was received, in microseconds on the output timeline.
    pub(super) received_us: u64,
    /// How far the track was behind the others at most, in microseconds.
    pub(super) lag_us: u64,
    /// Something was ever written.
    pub(super) has_begun: bool,

    /// The number of the open segment.
    pub(super) number: u64,
    /// Where the open segment starts in ticks; none while the next sample decides.
    start: Option<u64>,
    /// Where it starts in ticks if no sample comes to decide.
    earliest: u64,
    /// Where the segment before it ended, in ticks: nothing is decoded earlier.
    floor: u64,
    is_discontinuous: bool,
    /// Discontinuities of the broadcast up to and before the open segment.
    pub(super) discontinuities: u64,
    is_independent: bool,
    /// The durations of its written samples.
    durations: Vec<u32>,
    bytes: u64,
    samples: u32,
    duration: u64,
    /// Samples of the chunk to come. The last one's duration is not final.
    pending: Vec<Sample>,
    pending_bytes: usize,
    /// ID3 tags of the chunk to come, with their times in ticks.
    events: Vec<(u64, Bytes)>,
    next_event: u32,
    fragments: u32,
    boxes: BytesMut,
    /// Presentation time minus decode time of the sync sample that the open segment, or one before it, started with, in
    /// ticks.
    presentation_delay: i32,
    /// The open segment starts with a sync sample.
    starts_with_sync: bool,
    /// When the first of its written samples to be shown is shown, in ticks.
    first_shown: Option<u64>,
}

impl Rendition {
    /// A rendition that joins a broadcast: its first segment is beside the other's open one, its first header has the number
    /// `next_header`.
    pub(super) fn beside(other: &Self, track: Track, next_header: u32) -> Self {
        let Self { number, is_discontinuous, discontinuities, .. } = *other;
        Self { number, is_discontinuous, discontinuities, ..Self::new(track, other.opens_at_us(), next_header) }
    }

    /// A broadcast's first rendition. Its first segment starts at or after `earliest_us`, its first header has the number
    /// `next_header`.
    pub(super) fn new(track: Track, earliest_us: u64, next_header: u32) -> Self {
        let earliest = track.timescale.ticks(earliest_us);
        Self {
            incoming_timescale: track.timescale,
            track,
            header: None,
            next_header,
            header_is_due: true,
            queue: VecDeque::new(),
            received_us: 0,
            lag_us: 0,
            has_begun: false,
            number: 0,
            start: None,
            earliest,
            floor: 0,
            is_discontinuous: false,
            discontinuities: 0,
            is_independent: true,
            durations: Vec::new(),
            bytes: 0,
            samples: 0,
            duration: 0,
            pending: Vec::new(),
            pending_bytes: 0,
            events: Vec::new(),
            next_event: 0,
            fragments: 0,
            boxes: BytesMut::new(),
            presentation_delay: 0,
            starts_with_sync: true,
            first_shown: None,
        }
    }

    /// A track whose segments before `number` were written by a former process, with the header `header` at last.
    pub(super) fn resume(track: Track, header: u32, next_header: u32, number: u64, discontinuities: u64) -> Self {
        Self { header: Some(header), has_begun: true, number, discontinuities, ..Self::new(track, 0, next_header) }
    }

    /// The first track of a process that goes on with a broadcast from the segment `number` on, behind a discontinuity.
    pub(super) fn first_of_process(
        track: Track,
        earliest_us: u64,
        next_header: u32,
        number: u64,
        discontinuities: u64,
    ) -> Self {
        Self { number, discontinuities, is_discontinuous: number > 0, ..Self::new(track, earliest_us, next_header) }
    }

    pub(super) fn id(&self) -> TrackId {
        self.track.id
    }

    /// `ticks` of the track in microseconds.
    pub(super) fn micros(&self, ticks: u64) -> u64 {
        self.track.timescale.micros(ticks)
    }

    /// Microseconds in ticks of the track.
    pub(super) fn ticks(&self, micros: u64) -> u64 {
        self.track.timescale.ticks(micros)
    }

    /// A configuration that is to come: at once where a segment may start anew, otherwise behind what is queued.
    pub(super) fn announce(&mut self, track: Box<Track>) {
        self.incoming_timescale = track.timescale;
        if let Some(Queued::Track(last)) = self.queue.back_mut() {
            *last = track;
        } else if self.queue.is_empty() && (self.starts_anew() || self.track == *track) {
            self.set_track(*track);
        } else {
            self.queue.push_back(Queued::Track(track));
        }
    }

    /// Where the last sample that was received for before `time_us` ends, in microseconds.
    pub(super) fn received_before_us(&self, time_us: u64) -> u64 {
        let mut timescale = self.track.timescale;
        let queued = self.queue.iter().filter_map(|queued| match queued {
            Queued::Track(track) => {
                timescale = track.timescale;
                None
            }
            Queued::Sample(sample) => {
                (timescale.micros(sample.decode_time) < time_us).then(|| timescale.micros(sample.end_time()))
            }
        });
        let queued_us = queued.max().unwrap_or(0);
        self.nominal_end().map_or(0, |end| self.micros(end)).max(queued_us).min(time_us)
    }

    /// When the first sample that is queued is decoded, in microseconds.
    pub(super) fn queued_since_us(&self) -> Option<u64> {
        let mut timescale = self.track.timescale;
        self.queue.iter().find_map(|queued| match queued {
            Queued::Track(track) => {
                timescale = track.timescale;
                None
            }
            Queued::Sample(sample) => Some(timescale.micros(sample.decode_time)),
        })
    }

    /// The samples from here on have this configuration. Only where a segment starts anew.
    pub(super) fn set_track(&mut self, track: Track) {
        if self.track.timescale != track.timescale {
            self.floor = track.timescale.ticks(self.micros(self.floor)) + 1;
            self.earliest = track.timescale.ticks(self.micros(self.earliest));
        }
        self.header_is_due |= self.track != track || self.header.is_none();
        self.track = track;
    }

    /// The configuration of the open segment.
    pub(super) fn track(&self) -> &Track {
        &self.track
    }

    /// The open segment is empty and does not go on where one before it ended.
    pub(super) fn starts_anew(&self) -> bool {
        self.is_empty() && self.start.is_none()
    }

    /// A sample so early belongs to a segment that is closed.
    pub(super) fn is_late(&self, sample: &Sample) -> bool {
        self.is_empty() && sample.decode_time + u64::from(sample.duration / 2) < self.start.unwrap_or(self.floor)
    }

    /// The open segment holds no sample.
    pub(super) fn is_empty(&self) -> bool {
        self.samples == 0
    }

    pub(super) fn samples(&self) -> u32 {
        self.samples
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes + self.pending_bytes as u64
    }

    /// Where the open segment starts, in ticks.
    pub(super) fn start(&self) -> Option<u64> {
        self.start
    }

    /// Where the open segment starts at the earliest, in ticks.
    pub(super) fn opens_at(&self) -> u64 {
        self.start.unwrap_or_else(|| self.earliest.max(self.floor))
    }

    /// Where the open segment starts at the earliest, in microseconds.
    pub(super) fn opens_at_us(&self) -> u64 {
        self.micros(self.opens_at())
    }

    /// The open segment, if nothing decided yet where it starts, starts at `start_us`.
    pub(super) fn start_at(&mut self, start_us: u64) {
        let start = self.ticks(start_us).max(self.floor);
        self.start.get_or_insert(start);
    }

    /// The end of the last sample of the open segment if nothing comes behind it, in ticks.
    pub(super) fn nominal_end(&self) -> Option<u64> {
        self.pending.last().map(Sample::end_time).or(self.start)
    }

    /// How long the last sample of the open segment lasts if nothing says otherwise, in ticks.
    pub(super) fn last_duration(&self) -> Option<u32> {
        self.pending.last().map(|sample| sample.duration)
    }

    /// Adds the next sample to the open segment; the one before it lasts until then.
    pub(super) fn push(&mut self, mut sample: Sample, outputs: &mut VecDeque<Output>) {
        match self.pending.last_mut() {
            Some(last) => {
                delay(&mut sample, last.decode_time + 1);
                last.duration = duration(last.decode_time, sample.decode_time);
                if self.pending_bytes >= CHUNK_BYTES {
                    self.flush(outputs);
                }
            }
            None => {
                if sample.is_sync {
                    self.presentation_delay = sample.composition_offset;
                }
                // The segment starts where the one before ended, wherever its first sample is shown.
                let start = *self.start.get_or_insert_with(|| sample.decode_time.max(self.floor));
                decode_at(&mut sample, start);
                self.is_independent = sample.is_sync && !sample.is_open_gop;
                self.starts_with_sync = sample.is_sync;
            }
        }
        self.samples += 1;
        self.pending_bytes += sample.data.len();
        self.pending.push(sample);
    }

    /// Adds an ID3 tag for the moment `time_us` to the chunk to come.
    pub(super) fn push_event(&mut self, time_us: u64, id3: Bytes) {
        self.events.push((self.ticks(time_us), id3));
    }

    /// Ends the open segment at `end` ticks, or where its last sample nominally ends: a segment if it has samples,
    /// otherwise a gap. The next one starts there.
    pub(super) fn close(&mut self, end: Option<u64>, outputs: &mut VecDeque<Output>) {
        if let (Some(last), Some(end)) = (self.pending.last_mut(), end) {
            last.duration = duration(last.decode_time, end);
        }
        self.flush(outputs);
        let start = self.opens_at();
        let is_gap = self.samples == 0;
        if is_gap {
            self.duration = end.unwrap_or(start).saturating_sub(start).max(self.ticks(SHORTEST_GAP_US));
        }
        // Behind a break in the middle of a GOP any picture may be the first.
        if let Some(first_shown) = self.first_shown.take().filter(|_| self.is_discontinuous && !self.starts_with_sync) {
            let delay = first_shown.cast_signed() - start.cast_signed();
            self.presentation_delay = i32::try_from(delay).unwrap_or(0);
        }
        let end = start + self.duration;
        let middle = self.durations.len() / 2;
        let usual_sample = if is_gap { 0 } else { *self.durations.select_nth_unstable(middle).1 };
        if self.has_begun {
            outputs.push_back(Output::Segment(Segment {
                track: self.track.id,
                number: self.number,
                header: self.header.unwrap_or(0),
                start_us: self.micros(start.saturating_add_signed(i64::from(self.presentation_delay))),
                duration_us: self.micros(end) - self.micros(start),
                bytes: self.bytes,
                samples: self.samples,
                usual_sample_us: self.micros(usual_sample.into()),
                is_discontinuous: self.is_discontinuous,
                discontinuities: self.discontinuities,
                is_independent: self.is_independent && !is_gap,
                is_gap,
            }));
        }
        self.number += 1;
        self.start = self.has_begun.then_some(end);
        self.floor = self.floor.max(end);
        self.is_discontinuous = false;
        self.durations.clear();
        self.bytes = 0;
        self.samples = 0;
        self.duration = 0;
    }

    /// The open segment, which has no sample yet, starts anew at or after `earliest` ticks: `EXT-X-DISCONTINUITY`.
    pub(super) fn break_off(&mut self, earliest: u64) {
        self.start = None;
        self.earliest = earliest;
        self.mark_break();
    }

    /// A discontinuity stands before the open segment. One that was broken off and stayed empty is broken off once.
    pub(super) fn mark_break(&mut self) {
        self.discontinuities += u64::from(!self.is_discontinuous);
        self.is_discontinuous = true;
    }

    /// Writes the pending samples as a chunk.
    fn flush(&mut self, outputs: &mut VecDeque<Output>) {
        if self.pending.is_empty() {
            return;
        }
        if self.header_is_due {
            self.header_is_due = false;
            let number = self.next_header;
            self.next_header += 1;
            self.header = Some(number);
            let mut body = BytesMut::with_capacity(1024);
            isobmff::write_header(&self.track, &mut body);
            let header = Header { track: self.track.clone(), number, body: body.freeze() };
            outputs.push_back(Output::Header(Box::new(header)));
        }
        self.fragments = self.fragments.wrapping_add(1);
        let fragment = MovieFragment {
            sequence_number: self.fragments,
            base_media_decode_time: self.pending[0].decode_time,
            samples: &self.pending,
        };
        if self.boxes.capacity() < 256 + 16 * self.pending.len() {
            self.boxes = BytesMut::with_capacity(BOXES_BYTES.max(256 + 16 * self.pending.len()));
        }
        if let Some(earliest) = self.pending.iter().map(Sample::presentation_time).min() {
            self.first_shown = Some(self.first_shown.map_or(earliest, |before| before.min(earliest)));
            for (time, id3) in self.events.drain(..) {
                // ISO/IEC 23000-19 §7.4.5: none before the chunk it is in.
                let presentation_time = time.max(earliest);
                let timescale = self.track.timescale.ticks_per_second();
                EventMessage { timescale, presentation_time, id: self.next_event, id3: &id3 }.write(&mut self.boxes);
                self.next_event = self.next_event.wrapping_add(1);
            }
        }
        fragment.write(&mut self.boxes);
        let boxes = self.boxes.split().freeze();
        self.bytes += (boxes.len() + self.pending_bytes) as u64;
        self.duration += self.pending.iter().map(|sample| u64::from(sample.duration)).sum::<u64>();
        self.durations.extend(self.pending.iter().map(|sample| sample.duration));
        let mut body: Vec<Bytes> = Vec::with_capacity(1 + self.pending.len());
        body.push(boxes);
        body.extend(self.pending.drain(..).map(|sample| sample.data));
        self.pending_bytes = 0;
        self.has_begun = true;
        outputs.push_back(Output::Chunk(Chunk { track: self.track.id, segment: self.number, body }));
    }
}

/// Ticks from a sample to the next, at least one.
fn duration(from: u64, to: u64) -> u32 {
    u32::try_from(to.saturating_sub(from).max(1)).unwrap_or(u32::MAX)
}

/// Has the sample decoded at `decode_time` and shown when it was.
fn decode_at(sample: &mut Sample, decode_time: u64) {
    let moved = sample.decode_time.cast_signed() - decode_time.cast_signed();
    let offset = i64::from(sample.composition_offset) + moved;
    sample.composition_offset = i32::try_from(offset).unwrap_or(0);
    sample.decode_time = decode_time;
}

/// Has the sample decoded at `earliest` or later.
fn delay(sample: &mut Sample, earliest: u64) {
    if sample.decode_time < earliest {
        decode_at(sample, earliest);
    }
}
