//! Tags become tracks and samples on one continuous clock.
//!
//! Knows the publishers' habits: sequence headers that come late, again or changed, messages that are no frames, media
//! before the first key frame, clocks that wrap, jump, stand still or drift. Knows nothing of fMP4 or HLS.
//!
//! A broadcast starts when all tracks that the publisher promised are there, or after a short wait without them:
//!
//! ```text
//! Gathering ──every promised track is ready, or the wait is over──▶ Running ──interrupt()──▶ Gathering …
//! ```

mod blocks;
mod coding;
mod data;
mod dropped;
mod error;
mod placeable;
mod timeline;
mod track;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::codec::{Configuration, Frame};
use crate::flv::{AudioPacket, AudioTag, FourCc, Tag, TagBody, VideoPacket, VideoTag};
use crate::media::{Cause, Epoch, Event, EventBody, Item, Moment, Sample, Track, TrackId, TrackKind};

pub use self::dropped::Dropped;
pub use self::error::Error;
use blocks::Blocks;
use coding::SequenceStart;
use placeable::PlaceableFrame;

use timeline::{MARGIN_MS, Timeline};
use track::TrackState;

/// How long a track whose configuration is known may take to its first key frame before the others start without it,
/// in milliseconds of media. Relays that join in the middle of a GOP are the reason.
const FIRST_KEY_WAIT_MS: i64 = 5_000;

/// How far sound may begin before the picture, in milliseconds; more is left out at the start.
const AUDIO_LEAD_MS: i64 = 450;

/// The most that is held back while tracks are awaited, in bytes.
const GATHERED_BYTES: usize = 4 << 20;

/// What a frame that is held back counts for beside its bytes, so that very many empty ones are noticed.
const GATHERED_FRAME_BYTES: usize = 256;

/// The most tracks of a broadcast (Enhanced RTMP multitrack).
const MOST_TRACKS: usize = 16;

/// The most events that wait for a broadcast to start.
const MOST_GATHERED_EVENTS: usize = 16;

/// Turns tags into [`Item`]s: `handle_tag` in, `poll_item` out.
#[derive(Debug)]
pub struct Remuxer {
    track_wait_ms: i64,
    phase: Phase,
    timeline: Timeline,
    tracks: Vec<TrackState>,
    items: VecDeque<Item>,
    configurations: u64,
    dropped: Dropped,
    /// What frames of sound and of picture are cut from.
    blocks: [Blocks; 2],
}

#[derive(Debug)]
enum Phase {
    Gathering(Gathering),
    Running,
}

/// Frames held back until the broadcast starts.
#[derive(Debug, Default)]
struct Gathering {
    frames: Vec<PlaceableFrame>,
    /// There are frames of video, and of audio. Noted, as to look for them at each of many would take long.
    has_video: bool,
    has_audio: bool,
    /// Each with its timestamp.
    events: Vec<(u32, EventBody)>,
    bytes: usize,
    /// The first timestamp seen, which the others are compared with.
    first_timestamp: Option<u32>,
    /// Milliseconds of media seen, frames that were dropped among them.
    span_ms: i64,
    /// Something of a video track was seen, if nothing that decoding can start with.
    seen_video: bool,
}

impl Remuxer {
    /// A remuxer that waits `track_wait` of media for a track that may yet come.
    pub fn new(track_wait: Duration) -> Self {
        Self {
            track_wait_ms: i64::try_from(track_wait.as_millis()).unwrap_or(i64::MAX),
            phase: Phase::Gathering(Gathering::default()),
            timeline: Timeline::default(),
            tracks: Vec::new(),
            items: VecDeque::new(),
            configurations: 0,
            dropped: Dropped::default(),
            blocks: Default::default(),
        }
    }

    /// The same with an output timeline that a former process has used up to `end_us`, in microseconds.
    #[must_use]
    pub fn behind(self, end_us: u64) -> Self {
        let end_ms = i64::try_from(end_us.div_ceil(1000)).unwrap_or(0);
        Self { timeline: Timeline::behind(end_ms), ..self }
    }

    /// Takes the publisher's next tag.
    ///
    /// # Errors
    /// The tag is passed over; what follows is not affected.
    pub fn handle_tag(&mut self, tag: Tag, received_at: Moment) -> Result<(), Error> {
        let result = match tag.body {
            TagBody::Video(video) => self.handle_video(tag.timestamp, video, received_at),
            TagBody::Audio(audio) => self.handle_audio(tag.timestamp, audio, received_at),
            // Hints only; the sequence headers are the truth.
            TagBody::Metadata(_) => Ok(()),
            TagBody::Data(data) => {
                self.handle_event(tag.timestamp, data::event(&data));
                Ok(())
            }
        };
        if result.is_err() {
            self.dropped.malformed += 1;
        }
        result
    }

    /// The publisher is gone. What was held back comes out; what comes next starts a new epoch.
    pub fn interrupt(&mut self) {
        if let Phase::Gathering(gathering) = &mut self.phase
            && !gathering.frames.is_empty()
        {
            let gathering = std::mem::take(gathering);
            self.start(gathering);
        }
        self.phase = Phase::Gathering(Gathering::default());
        for track in &mut self.tracks {
            track.restart();
        }
    }

    /// The next item; drain it after each input.
    pub fn poll_item(&mut self) -> Option<Item> {
        self.items.pop_front()
    }

    /// How many items wait to be polled.
    pub fn waiting(&self) -> usize {
        self.items.len()
    }

    /// How many [`Track`]s there have been, the same ones again among them.
    pub fn configurations(&self) -> u64 {
        self.configurations
    }

    /// What was received and is not in the output.
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    fn handle_video(&mut self, timestamp: u32, tag: VideoTag, received_at: Moment) -> Result<(), Error> {
        let id = TrackId { kind: TrackKind::Video, index: tag.track };
        let position = self.track(id, tag.codec)?;
        match tag.packet {
            _ if self.is_refused(position, tag.codec)? => self.check_gathered(),
            VideoPacket::SequenceStart(record) => {
                self.saw(timestamp, id.kind);
                self.start_sequence(position, tag.codec, record)
            }
            VideoPacket::Light(light) => {
                self.tracks[position].light = light;
                Ok(())
            }
            VideoPacket::CodedFrames { composition_ms, data } => {
                self.saw(timestamp, id.kind);
                let Some(frame) = self.inspect(position, tag.codec, data, tag.is_key)? else {
                    return self.check_gathered();
                };
                let track = &mut self.tracks[position];
                if !track.is_started && !frame.is_sync {
                    self.dropped.before_first_key += 1;
                    return self.check_gathered();
                }
                track.is_started = true;
                track.captions |= frame.captions;
                let frame = PlaceableFrame::new(frame, id, timestamp, composition_ms, received_at);
                self.handle_frame(PlaceableFrame { offset_ns: tag.offset_ns, ..frame })
            }
            VideoPacket::SequenceEnd => Ok(()),
        }
    }

    fn handle_audio(&mut self, timestamp: u32, tag: AudioTag, received_at: Moment) -> Result<(), Error> {
        let id = TrackId { kind: TrackKind::Audio, index: tag.track };
        let position = self.track(id, tag.codec)?;
        match tag.packet {
            _ if self.is_refused(position, tag.codec)? => self.check_gathered(),
            AudioPacket::SequenceStart(record) => {
                self.saw(timestamp, id.kind);
                self.start_sequence(position, tag.codec, record)
            }
            AudioPacket::CodedFrames(data) => {
                self.saw(timestamp, id.kind);
                match self.inspect(position, tag.codec, data, true)? {
                    Some(frame) => self.handle_frame(PlaceableFrame::new(frame, id, timestamp, 0, received_at)),
                    None => self.check_gathered(),
                }
            }
            AudioPacket::SequenceEnd => Ok(()),
        }
    }

    fn handle_event(&mut self, timestamp: u32, body: EventBody) {
        match &mut self.phase {
            Phase::Running => {
                self.items.push_back(Item::Event(Event { time_us: self.timeline.event_us(timestamp), body }))
            }
            Phase::Gathering(gathering) if gathering.events.len() < MOST_GATHERED_EVENTS => {
                gathering.events.push((timestamp, body));
            }
            Phase::Gathering(_) => self.dropped.events += 1,
        }
    }

    /// The place of a track, which is added if it is new.
    fn track(&mut self, id: TrackId, codec: FourCc) -> Result<usize, Error> {
        if let Some(position) = self.tracks.iter().position(|track| track.id == id) {
            return Ok(position);
        }
        if self.tracks.len() == MOST_TRACKS {
            return Err(Error::TooManyTracks);
        }
        let position = self.tracks.partition_point(|track| track.id < id);
        self.tracks.insert(position, TrackState::new(id, codec));
        Ok(position)
    }

    /// Whether a track's codec is not carried. That is an error once a track; from then on it is not waited for.
    fn is_refused(&mut self, position: usize, codec: FourCc) -> Result<bool, Error> {
        let track = &mut self.tracks[position];
        if coding::is_carried(codec) {
            track.is_refused = false;
            return Ok(false);
        }
        self.dropped.unsupported += 1;
        if track.is_refused && track.codec == codec {
            return Ok(true);
        }
        track.is_refused = true;
        track.codec = codec;
        track.configuration = None;
        let track = track.id;
        self.check_gathered()?;
        Err(Error::UnsupportedCodec { track, codec })
    }

    fn start_sequence(&mut self, position: usize, codec: FourCc, record: Bytes) -> Result<(), Error> {
        let track = &mut self.tracks[position];
        // The same again changes nothing, even where the pictures have said something else since.
        if track.codec == codec && track.record.as_ref() == Some(&record) {
            return Ok(());
        }
        let copy = Bytes::copy_from_slice(&record);
        match coding::sequence_start(codec, record) {
            Ok(SequenceStart::Configuration(configuration)) => {
                track.record = Some(copy);
                self.configure(position, codec, configuration);
            }
            Ok(SequenceStart::Vp9(record)) => track.vp9_record = Some(record),
            Ok(SequenceStart::InBand) => {}
            Err(error) => return Err(Error::BadConfiguration { track: track.id, error }),
        }
        Ok(())
    }

    /// Notes a track's configuration. The same one again changes nothing; frames that are held back keep the one before.
    fn configure(&mut self, position: usize, codec: FourCc, configuration: Configuration) {
        let track = &self.tracks[position];
        if track.configuration.as_ref() == Some(&configuration) && track.codec == codec {
            return;
        }
        if let Phase::Gathering(gathering) = &mut self.phase
            && gathering.frames.iter().any(|frame| frame.track == track.id)
        {
            let gathering = std::mem::take(gathering);
            self.start(gathering);
        }
        self.tracks[position].configure(codec, configuration);
    }

    /// Looks into a coded frame, and takes from it what it says of its track's configuration. `None` when there is nothing
    /// to carry, which is counted.
    fn inspect(&mut self, position: usize, codec: FourCc, data: Bytes, is_key: bool) -> Result<Option<Frame>, Error> {
        let track = &mut self.tracks[position];
        let id = track.id;
        let bad_frame = |error| Error::BadFrame { track: id, error };
        if data.is_empty() {
            self.dropped.empty += 1;
            return Ok(None);
        }
        let found = coding::in_band(codec, track.vp9_record, track.configuration.as_ref(), &data).map_err(bad_frame)?;
        if let Some(configuration) = found {
            self.configure(position, codec, configuration);
        }
        let track = &self.tracks[position];
        let Some(configuration) = track.configuration.as_ref().filter(|_| track.codec == codec) else {
            self.dropped.before_configuration += 1;
            return Ok(None);
        };
        let mut frame = configuration.inspect(data, is_key).map_err(bad_frame)?;
        match &mut frame {
            Some(frame) => {
                if let Some(next) = frame.configuration.take() {
                    self.configure(position, codec, *next);
                }
            }
            None => self.dropped.empty += 1,
        }
        Ok(frame)
    }

    /// Notes that a track of this kind exists and how far the media has come.
    fn saw(&mut self, timestamp: u32, kind: TrackKind) {
        let Phase::Gathering(gathering) = &mut self.phase else { return };
        gathering.seen_video |= kind == TrackKind::Video;
        if let Some(first) = gathering.first_timestamp {
            gathering.span_ms = gathering.span_ms.max(distance_ms(first, timestamp));
        }
    }

    fn handle_frame(&mut self, mut frame: PlaceableFrame) -> Result<(), Error> {
        frame.data = self.detached(frame.track.kind, frame.data);
        match &mut self.phase {
            Phase::Running => {
                self.place(frame);
                Ok(())
            }
            Phase::Gathering(gathering) => {
                gathering.first_timestamp.get_or_insert(frame.timestamp);
                gathering.bytes += GATHERED_FRAME_BYTES + frame.data.len();
                match frame.track.kind {
                    TrackKind::Video => gathering.has_video = true,
                    TrackKind::Audio => gathering.has_audio = true,
                }
                gathering.frames.push(frame);
                self.check_gathered()
            }
        }
    }

    /// A frame's bytes, which with those of the frames before keep little more alive than themselves.
    fn detached(&mut self, kind: TrackKind, data: Bytes) -> Bytes {
        self.blocks[usize::from(kind == TrackKind::Video)].detached(data)
    }

    /// Starts the broadcast when nothing that was promised is missing, or the wait for it is over.
    fn check_gathered(&mut self) -> Result<(), Error> {
        let Phase::Gathering(gathering) = &mut self.phase else { return Ok(()) };
        let Gathering { has_video, has_audio, .. } = *gathering;
        // What is not carried will not come.
        let is_hopeless = |kind| {
            let mut of_kind = self.tracks.iter().filter(|track| track.id.kind == kind).peekable();
            of_kind.peek().is_some() && of_kind.all(|track| track.is_refused)
        };
        let wait_ms = match (has_video, has_audio) {
            (false, false) => return Ok(()),
            (true, true) => 0,
            (true, false) if is_hopeless(TrackKind::Audio) => 0,
            (false, true) if is_hopeless(TrackKind::Video) => 0,
            (true, false) => self.track_wait_ms,
            // Pictures come, but none that decoding can start with.
            (false, true) if gathering.seen_video => self.track_wait_ms.max(FIRST_KEY_WAIT_MS),
            (false, true) => self.track_wait_ms,
        };
        if gathering.span_ms >= wait_ms || gathering.bytes > GATHERED_BYTES {
            let gathering = std::mem::take(gathering);
            self.start(gathering);
        }
        Ok(())
    }

    /// Begins an epoch with what was gathered.
    fn start(&mut self, gathering: Gathering) {
        let Gathering { mut frames, events, first_timestamp, .. } = gathering;
        let Some(reference) = first_timestamp else { return };
        let offset_ms = |frame: &PlaceableFrame| distance_ms(reference, frame.timestamp);
        let first_picture = frames.iter().find(|frame| frame.track.kind == TrackKind::Video);
        if let Some(picture_ms) = first_picture.map(|frame| offset_ms(frame) + i64::from(frame.composition_ms)) {
            let is_early =
                |frame: &PlaceableFrame| frame.track.kind == TrackKind::Audio && offset_ms(frame) < picture_ms;
            let lead_ms =
                frames.iter().filter(|frame| is_early(frame)).map(|frame| picture_ms - offset_ms(frame)).max();
            if lead_ms.is_some_and(|lead_ms| lead_ms > AUDIO_LEAD_MS) {
                let before = frames.len();
                frames.retain(|frame| !is_early(frame));
                self.dropped.early_audio += u64::try_from(before - frames.len()).unwrap_or(0);
            }
        }
        let Some(first) = frames.iter().min_by_key(|frame| offset_ms(frame)) else { return };
        let output_ms = self.timeline.begin(first.timestamp);
        self.phase = Phase::Running;
        self.items.push_back(Item::Epoch(epoch(Cause::Publish, output_ms, first.received_at)));
        for position in 0..self.tracks.len() {
            let id = self.tracks[position].id;
            // A configured sound track may lag behind the picture; pictures are announced with their first key frame.
            if id.kind == TrackKind::Audio || frames.iter().any(|frame| frame.track == id) {
                self.announce(position);
            }
        }
        for (timestamp, body) in events {
            self.handle_event(timestamp, body);
        }
        for frame in frames {
            self.place(frame);
        }
    }

    fn announce(&mut self, position: usize) {
        let track = &mut self.tracks[position];
        if let (false, Some(configuration)) = (track.is_announced, &track.configuration) {
            let configuration = configuration.clone().with_light(track.light);
            let announced = Track { id: track.id, timescale: track.timescale(), configuration };
            track.is_announced = true;
            track.announced_light = track.light;
            self.configurations += 1;
            self.items.push_back(Item::Track(Box::new(announced)));
        }
    }

    /// Gives a frame its place on the timeline.
    fn place(&mut self, frame: PlaceableFrame) {
        let Some(position) = self.tracks.iter().position(|track| track.id == frame.track) else { return };
        let track = &mut self.tracks[position];
        let placed = self.timeline.place(&mut track.clock, frame.timestamp);
        if let Some(by_ms) = placed.jumped_ms {
            self.items.push_back(Item::Epoch(epoch(Cause::Jump { by_ms }, placed.output_ms, frame.received_at)));
        }
        if frame.is_sync {
            self.tracks[position].heed_light();
        }
        self.announce(position);
        let track = &mut self.tracks[position];
        if track.captions != track.announced_captions {
            track.announced_captions = track.captions;
            self.items.push_back(Item::Captions(track.id, track.captions));
        }
        let timing = track.pace(placed, frame.samples);
        let composition_offset = match frame.track.kind {
            TrackKind::Audio => 0,
            TrackKind::Video => {
                // A picture with the timestamp of the one before is decoded a tick later, and shown a tick later: no two
                // are shown at once (ISO/IEC 14496-12 8.6.1.3).
                let late = timing.decode_time.cast_signed() - placed.output_ms * 90;
                let moved = if late < 90 { 0 } else { late };
                let finer = (i64::from(frame.offset_ns) * 90 + 500_000) / 1_000_000;
                i32::try_from(i64::from(frame.composition_ms) * 90 + finer - moved).unwrap_or(0)
            }
        };
        let sample = Sample {
            decode_time: timing.decode_time,
            composition_offset,
            duration: timing.duration,
            is_sync: frame.is_sync,
            is_open_gop: frame.is_open_gop,
            data: frame.data,
        };
        self.items.push_back(Item::Sample(frame.track, sample));
    }
}

/// The epoch whose first frame is at `output_ms`. It begins half a margin earlier, for a track that starts a little before.
fn epoch(cause: Cause, output_ms: i64, received_at: Moment) -> Epoch {
    let micros = |ms: i64| u64::try_from(ms).unwrap_or(0) * 1000;
    Epoch {
        cause,
        start_us: micros(output_ms - MARGIN_MS / 2),
        anchor_us: micros(output_ms),
        anchor_unix_us: u64::try_from(received_at.unix.as_micros()).unwrap_or(0),
    }
}

/// Milliseconds from `from` to `to` on RTMP's clock that wraps at 2^32, the shorter way round.
fn distance_ms(from: u32, to: u32) -> i64 {
    i64::from(to.wrapping_sub(from).cast_signed())
}
