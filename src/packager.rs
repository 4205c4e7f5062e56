//! The stages joined: a publisher's tags in, actions out.

mod foresight;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::action::{Action, BroadcastId, Key, StreamName};
use crate::advice::{Advice, Adviser};
use crate::cmaf::{Cadence, Output, Segment, Segmenter};
use crate::codec::Configuration;
use crate::flv::{Tag, TagBody};
use crate::hls::{Presentation, Resumed, Window};
use crate::media::{Item, Moment, TrackKind};
use crate::remuxer::{self, Dropped, Remuxer};
use foresight::Foresight;

/// How a broadcast is packaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The wanted length of a segment.
    pub segment: Duration,
    /// How much the playlists list.
    pub window: Window,
    /// How much media a track that may yet come is waited for at the start.
    pub track_wait: Duration,
}

/// One broadcast: `handle_*` in, `poll_*` out, drained after each input.
///
/// Lives as long as the broadcast, through any number of publishers' connections. What came together is best handed in
/// together, tag by tag, and drained then: each stage takes all of it in turn.
#[derive(Debug)]
pub struct Packager {
    remuxer: Remuxer,
    adviser: Adviser,
    segmenter: Segmenter,
    presentation: Presentation,
    notices: VecDeque<Notice>,
    /// What the first segment is made of, until that was said.
    tracks: Vec<String>,
    has_said_start: bool,
    totals: Totals,
    foresight: Foresight,
    /// When the last input came.
    now: Moment,
}

/// What a broadcast came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Coded bytes in the segments, with their boxes.
    pub bytes: u64,
    /// Segments of all renditions.
    pub segments: u64,
    /// Pictures and audio frames.
    pub samples: u64,
    /// Segments that had to be declared gaps.
    pub gaps: u64,
    /// Messages that did not get into the output.
    pub dropped: Dropped,
    /// Samples that came after their segment was closed.
    pub late: u64,
}

/// Something to tell the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The broadcast's first segment is there: what it is made of.
    Started(String),
    /// What the broadcaster should change, in plain words.
    Advice(Advice),
    /// A message was passed over.
    PassedOver(String),
    /// A track is left out, which the publisher should know.
    LeftOut(String),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started(text) | Self::PassedOver(text) | Self::LeftOut(text) => f.write_str(text),
            Self::Advice(advice) => advice.fmt(f),
        }
    }
}

/// The most items that a stage takes together: what came at once in many tiny messages would take much memory.
const MOST_TOGETHER: usize = 64;

/// The most notices of passed-over messages a broadcast gives.
const MOST_PASSED_OVER: u64 = 10;

/// How much sooner than by the output timeline media may come, in microseconds: RTMP rounds to milliseconds, and a clock of
/// samples that drifts from them is corrected now and then.
const ROUNDING_US: u64 = 10_000;

impl Packager {
    /// A broadcast of the stream `name` that began at `began`.
    pub fn new(name: StreamName, began: Moment, settings: Settings) -> Self {
        let broadcast = BroadcastId { unix_ms: u64::try_from(began.unix.as_millis()).unwrap_or(u64::MAX) };
        Self {
            remuxer: Remuxer::new(settings.track_wait),
            adviser: Adviser::new(settings.segment),
            segmenter: Segmenter::new(Cadence::new(settings.segment)),
            presentation: Presentation::new(name, broadcast, settings.window),
            notices: VecDeque::new(),
            tracks: Vec::new(),
            has_said_start: false,
            totals: Totals::default(),
            foresight: Foresight::default(),
            now: began,
        }
    }

    /// Goes on with a broadcast of the stream `name` that a former process left. The next tag starts behind a
    /// discontinuity.
    pub fn resume(name: StreamName, resumed: &Resumed, settings: Settings, now: Moment) -> Self {
        let cadence = Cadence::new(settings.segment).with_target_duration(resumed.target_duration_s());
        let segmenter = Segmenter::resume(
            cadence,
            resumed.tracks(),
            resumed.next_segment(),
            resumed.next_header(),
            resumed.discontinuities(),
        );
        Self {
            remuxer: Remuxer::new(settings.track_wait).behind(resumed.end_us()),
            adviser: Adviser::new(settings.segment),
            segmenter,
            presentation: Presentation::resume(name, settings.window, resumed, now.monotonic),
            notices: VecDeque::new(),
            tracks: Vec::new(),
            has_said_start: false,
            totals: Totals::default(),
            foresight: Foresight::default(),
            now,
        }
    }

    /// Takes the publisher's next tag.
    pub fn handle_tag(&mut self, tag: Tag, received_at: Moment) {
        if let TagBody::Metadata(metadata) = &tag.body {
            self.adviser.handle_metadata(metadata);
        }
        if let Err(error) = self.remuxer.handle_tag(tag, received_at)
            && self.remuxer.dropped().malformed <= MOST_PASSED_OVER
        {
            let text = error.to_string();
            self.notices.push_back(match error {
                remuxer::Error::UnsupportedCodec { .. } | remuxer::Error::TooManyTracks => Notice::LeftOut(text),
                remuxer::Error::BadConfiguration { .. } | remuxer::Error::BadFrame { .. } => Notice::PassedOver(text),
            });
        }
        self.now = received_at;
        if self.remuxer.waiting() >= MOST_TOGETHER {
            self.pump();
        }
    }

    /// Does what is due by now.
    pub fn handle_time(&mut self, now: Moment) {
        self.pump();
        self.presentation.handle_time(now.monotonic);
    }

    /// A segment that was put, or was being put, is not there and never will be: it becomes a gap.
    pub fn handle_lost(&mut self, lost: &Key) {
        self.pump();
        self.presentation.handle_lost(lost);
    }

    /// Playlists could not be written since `since` on the monotonic clock, or all are. What left one later than it should
    /// have is deleted as much later.
    pub fn handle_outage(&mut self, since: Option<Duration>, now: Moment) {
        self.pump();
        self.presentation.handle_outage(since, now.monotonic);
    }

    /// Somebody removed the folder with all that was put: what was listed becomes gaps.
    pub fn handle_vanished(&mut self) {
        self.pump();
        self.presentation.handle_vanished();
    }

    /// Which broadcast it is, and how long viewers who hold a playlist may ask for what it lists, if there is one.
    pub fn broadcast(&self) -> (BroadcastId, Option<Duration>) {
        (self.presentation.broadcast(), self.presentation.lifetime())
    }

    /// When [`Self::handle_time`] has something to do, on the monotonic clock.
    pub fn deadline(&self) -> Option<Duration> {
        self.presentation.deadline()
    }

    /// When it has something to list, on the monotonic clock.
    pub fn lists_at(&self) -> Option<Duration> {
        self.presentation.lists_at()
    }

    /// Until when nothing that comes can end a segment, on the monotonic clock, as far as can be foreseen: it may wait, and
    /// viewers see nothing of that. `None` if a segment may end any time.
    pub fn quiet_until(&self) -> Option<Duration> {
        self.foresight.earliest(self.segmenter.foreseen_end_us()?.saturating_sub(ROUNDING_US))
    }

    /// The publisher is gone without a goodbye: all that was received is listed; the playlists stay open. The next tag
    /// goes on behind a discontinuity.
    pub fn interrupt(&mut self, now: Moment) {
        self.pump();
        self.now = now;
        self.remuxer.interrupt();
        self.pump();
        self.segmenter.interrupt();
        self.foresight = Foresight::default();
        self.pass_on();
        self.presentation.interrupt(now.monotonic);
    }

    /// The broadcast is over: all that was received is listed, and the playlists end.
    pub fn finish(&mut self, now: Moment) {
        self.pump();
        self.now = now;
        self.remuxer.interrupt();
        self.pump();
        self.segmenter.finish();
        self.pass_on();
        self.presentation.finish(now.monotonic);
    }

    /// The next action; drain them after each input.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.presentation.poll_action().or_else(|| {
            self.pump();
            self.presentation.poll_action()
        })
    }

    /// The next thing to tell the operator; drain them after the actions.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// What the broadcast came to so far.
    pub fn totals(&self) -> Totals {
        let mut dropped = self.remuxer.dropped();
        dropped.events += self.segmenter.dropped_events();
        Totals { dropped, late: self.segmenter.dropped_late(), ..self.totals }
    }

    /// How many configurations its tracks have had, in sequence headers or in frames. Each has cost viewers a header and,
    /// but for the first ones, a discontinuity.
    pub fn configurations(&self) -> u64 {
        self.remuxer.configurations()
    }

    /// Hands what each stage says to the next.
    fn pump(&mut self) {
        while let Some(item) = self.remuxer.poll_item() {
            self.adviser.handle_item(&item);
            if !matches!(item, Item::Sample(..)) {
                // What came before it is done with.
                self.pass_on();
            }
            match &item {
                Item::Epoch(epoch) => self.presentation.handle_epoch(*epoch),
                Item::Track(track) => {
                    self.presentation.expect_rendition(track.id, &track.configuration);
                    if !self.has_said_start {
                        self.tracks.push(describe(&track.configuration));
                    }
                }
                Item::Captions(track, captions) => self.presentation.handle_captions(*track, *captions),
                Item::Event(event) => self.presentation.handle_event(event),
                Item::Sample(..) => {}
            }
            self.segmenter.handle_item(item);
        }
        self.pass_on();
        self.foresight.note(self.segmenter.front_us(), self.now.monotonic);
        while let Some(advice) = self.adviser.poll_advice() {
            self.notices.push_back(Notice::Advice(advice));
        }
    }

    /// Hands what the segmenter says to the presentation.
    fn pass_on(&mut self) {
        while let Some(output) = self.segmenter.poll_output() {
            match output {
                Output::Header(header) => self.presentation.handle_header(*header),
                Output::Chunk(chunk) => self.presentation.handle_chunk(chunk),
                Output::Segment(segment) => {
                    self.totals.segments += 1;
                    self.totals.bytes += segment.bytes;
                    self.totals.samples += u64::from(segment.samples);
                    self.totals.gaps += u64::from(segment.is_gap);
                    let target_duration_s = self.segmenter.target_duration_s().unwrap_or(1);
                    self.presentation.handle_segment(segment, target_duration_s, self.now.monotonic);
                    self.adviser.handle_segment(&segment);
                    self.say_start(&segment);
                }
            }
        }
    }

    /// Tells the operator what the first segment shows.
    fn say_start(&mut self, segment: &Segment) {
        if std::mem::replace(&mut self.has_said_start, true) {
            return;
        }
        let seconds = micros_as_seconds(segment.duration_us);
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let kilobits = segment.bytes as f64 * 8.0 / 1000.0 / seconds;
        let kind = segment.track.kind;
        let rate = match kind {
            TrackKind::Video => format!(", {:.3} fps", f64::from(segment.samples) / seconds),
            TrackKind::Audio => String::new(),
        };
        let tracks = std::mem::take(&mut self.tracks).join(" + ");
        self.notices.push_back(Notice::Started(format!("{tracks}{rate}, {kind:?} {kilobits:.0} kbit/s")));
    }
}

/// Codec and size or channels, for people.
fn describe(configuration: &Configuration) -> String {
    let codec = configuration.rfc6381();
    match (configuration.resolution(), configuration.sample_rate(), configuration.channels()) {
        (Some((width, height)), _, _) => format!("{codec} {width}x{height}"),
        (None, Some(rate), Some(channels)) => format!("{codec} {rate} Hz {channels} ch"),
        _ => codec,
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn micros_as_seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
