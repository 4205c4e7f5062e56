//! One track's open segment: samples become chunks, chunks a segment.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::isobmff::{self, MovieFragment};
use crate::media::{Sample, Track, TrackId};

use super::{Chunk, Header, Output, Segment};

/// A chunk is written once it holds this many bytes: what a broadcast keeps in memory is bounded by this and not by
/// its segments' length.
const CHUNK_BYTES: usize = 64 << 10;

/// Shorter samples are an artefact of equal timestamps, in ticks: at 90 kHz, a frame rate above 250.
const ARTEFACT: u32 = 360;

/// Room for the boxes of several chunks, in bytes.
const BOXES_BYTES: usize = 8 << 10;

/// What waits for its segment.
#[derive(Debug)]
pub(super) enum Queued {
    /// The configuration of the samples behind it.
    Track(Track),
    Sample(Sample),
}

/// A track's way into segments.
#[derive(Debug)]
pub(super) struct Rendition {
    track: Track,
    /// The header in use, once one was needed.
    header: Option<u32>,
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
    is_discontinuous: bool,
    /// Discontinuities of the broadcast up to and before the open segment.
    pub(super) discontinuities: u64,
    is_independent: bool,
    shortest_sample: u32,
    bytes: u64,
    samples: u32,
    duration: u64,
    /// Samples of the chunk to come. The last one's duration is not final.
    pending: Vec<Sample>,
    pending_bytes: usize,
    fragments: u32,
    boxes: BytesMut,
    /// Presentation time minus decode time of the sync sample that the open segment, or one before it, started with, in
    /// ticks.
    presentation_delay: i32,
}

impl Rendition {
    pub(super) fn new(track: Track) -> Self {
        Self {
            track,
            header: None,
            header_is_due: true,
            queue: VecDeque::new(),
            received_us: 0,
            lag_us: 0,
            has_begun: false,
            number: 0,
            start: None,
            earliest: 0,
            is_discontinuous: false,
            discontinuities: 0,
            is_independent: true,
            shortest_sample: u32::MAX,
            bytes: 0,
            samples: 0,
            duration: 0,
            pending: Vec::new(),
            pending_bytes: 0,
            fragments: 0,
            boxes: BytesMut::new(),
            presentation_delay: 0,
        }
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

    /// The samples from here on have this configuration. Only between two segments.
    pub(super) fn set_track(&mut self, track: Track) {
        self.header_is_due |= self.track != track || self.header.is_none();
        self.track = track;
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

    /// The end of the last sample of the open segment if nothing comes behind it, in ticks.
    pub(super) fn nominal_end(&self) -> Option<u64> {
        self.pending.last().map(Sample::end_time).or(self.start)
    }

    /// Adds the next sample to the open segment; the one before it lasts until then.
    pub(super) fn push(&mut self, mut sample: Sample, outputs: &mut VecDeque<Output>) {
        match self.pending.last_mut() {
            Some(last) => {
                let step = sample.decode_time.saturating_sub(last.decode_time).max(1);
                last.duration = u32::try_from(step).unwrap_or(u32::MAX);
                if self.pending_bytes >= CHUNK_BYTES {
                    self.flush(outputs);
                }
            }
            None => {
                if sample.is_sync {
                    self.presentation_delay = sample.composition_offset;
                }
                // The segment starts where the one before ended, wherever its first sample is shown.
                let start = *self.start.get_or_insert(sample.decode_time);
                let moved = sample.decode_time.cast_signed() - start.cast_signed();
                let offset = i64::from(sample.composition_offset) + moved;
                sample.composition_offset = i32::try_from(offset).unwrap_or(0);
                sample.decode_time = start;
                self.is_independent = sample.is_sync && !sample.is_open_gop;
            }
        }
        self.samples += 1;
        self.pending_bytes += sample.data.len();
        self.pending.push(sample);
    }

    /// Ends the open segment at `end` ticks, or where its last sample nominally ends: a segment if it has samples,
    /// otherwise a gap. The next one starts there.
    pub(super) fn close(&mut self, end: Option<u64>, outputs: &mut VecDeque<Output>) {
        if let (Some(last), Some(end)) = (self.pending.last_mut(), end) {
            let step = end.saturating_sub(last.decode_time).max(1);
            last.duration = u32::try_from(step).unwrap_or(u32::MAX);
        }
        self.flush(outputs);
        let start = self.start.unwrap_or(self.earliest);
        let is_gap = self.samples == 0;
        if is_gap {
            self.duration = end.unwrap_or(start).saturating_sub(start);
        }
        let end = start + self.duration;
        if self.has_begun {
            outputs.push_back(Output::Segment(Segment {
                track: self.track.id,
                number: self.number,
                header: self.header.unwrap_or(0),
                start_us: self.micros(start.saturating_add_signed(i64::from(self.presentation_delay))),
                duration_us: self.micros(end) - self.micros(start),
                bytes: self.bytes,
                samples: self.samples,
                shortest_sample_us: self.micros(self.shortest_sample.into()),
                is_discontinuous: self.is_discontinuous,
                discontinuities: self.discontinuities,
                is_independent: self.is_independent && !is_gap,
                is_gap,
            }));
        }
        self.number += 1;
        self.start = self.has_begun.then_some(end);
        self.is_discontinuous = false;
        self.shortest_sample = u32::MAX;
        self.bytes = 0;
        self.samples = 0;
        self.duration = 0;
    }

    /// The open segment, which has no sample yet, starts anew at or after `earliest` ticks: `EXT-X-DISCONTINUITY`.
    pub(super) fn break_off(&mut self, earliest: u64) {
        self.start = None;
        self.earliest = earliest;
        self.discontinuities += u64::from(!self.is_discontinuous);
        self.is_discontinuous = true;
    }

    /// The open segment, the first of a track that joins, stands behind a discontinuity of the others, already counted.
    pub(super) fn mark_discontinuous(&mut self) {
        self.is_discontinuous = true;
    }

    /// Writes the pending samples as a chunk.
    fn flush(&mut self, outputs: &mut VecDeque<Output>) {
        if self.pending.is_empty() {
            return;
        }
        if self.header_is_due {
            self.header_is_due = false;
            let number = self.header.map_or(0, |number| number + 1);
            self.header = Some(number);
            let mut body = BytesMut::with_capacity(1024);
            isobmff::write_header(&self.track, &mut body);
            outputs.push_back(Output::Header(Header { track: self.track.clone(), number, body: body.freeze() }));
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
        fragment.write(&mut self.boxes);
        let boxes = self.boxes.split().freeze();
        self.bytes += (boxes.len() + self.pending_bytes) as u64;
        self.duration += self.pending.iter().map(|sample| u64::from(sample.duration)).sum::<u64>();
        let lasting = self.pending.iter().map(|sample| sample.duration).filter(|duration| *duration >= ARTEFACT);
        self.shortest_sample = self.shortest_sample.min(lasting.min().unwrap_or(u32::MAX));
        let mut body: Vec<Bytes> = Vec::with_capacity(1 + self.pending.len());
        body.push(boxes);
        body.extend(self.pending.drain(..).map(|sample| sample.data));
        self.pending_bytes = 0;
        self.has_begun = true;
        outputs.push_back(Output::Chunk(Chunk { track: self.track.id, segment: self.number, body }));
    }
}
