//! What a broadcaster should change, in plain words: each piece of advice once a broadcast.
//!
//! Looks on at what the remuxer and the segmenter say; a handful of integer operations for each sample, no allocation.
//! Says only what a broadcaster can act upon, and nothing of a broadcast that is as it should be.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::cmaf::Segment;
use crate::flv::Metadata;
use crate::media::{Cause, Item, Sample, Timescale, Track, TrackId, TrackKind};

/// One thing to change. `Display` is the sentence for the broadcaster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Key frames come, but rarely.
    RareKeyFrames {
        /// From one to the next.
        every: Duration,
        /// What would do.
        wanted: Duration,
    },
    /// No key frame has come for long.
    NoKeyFrames {
        /// Since the last one.
        since: Duration,
        /// What would do.
        wanted: Duration,
    },
    /// Pictures behind a key frame need some from before it.
    OpenGops,
    /// Some segments are far larger than others of the same length.
    BitrateSwings {
        /// Of the smallest segment, in bits a second.
        least: u64,
        /// Of the largest segment, in bits a second.
        most: u64,
    },
    /// The publisher's clock stepped.
    ClockJumps {
        /// By so many milliseconds.
        by_ms: i64,
    },
    /// The sound has more or fewer samples than its timestamps say.
    SoundDrifts {
        /// Timestamps minus samples, in milliseconds.
        off_ms: i64,
        /// In this time.
        within: Duration,
    },
    /// Pictures were left out while the sound went on.
    PicturesMissing {
        /// For so long.
        lasting: Duration,
    },
    /// There is no sound, or no more.
    NoSound {
        /// For so long.
        lasting: Duration,
    },
    /// Pictures are decoded long before they are shown.
    DeepReordering {
        /// In pictures.
        depth: u32,
        /// The same in time.
        delay: Duration,
    },
    /// The picture has another size than before.
    SizeChanges {
        /// Width and height before, in pixels.
        from: (u32, u32),
        /// Width and height now, in pixels.
        to: (u32, u32),
    },
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = Duration::as_secs_f64;
        match self {
            Self::RareKeyFrames { every, wanted } => write!(
                f,
                "a key frame only every {:.1} s: viewers wait longer for the picture; set the encoder's keyframe interval \
                 to {} s",
                seconds(every),
                seconds(wanted)
            ),
            Self::NoKeyFrames { since, wanted } => write!(
                f,
                "no key frame for {:.1} s: viewers wait longer for the picture; set the encoder's keyframe interval to {} s",
                seconds(since),
                seconds(wanted)
            ),
            Self::OpenGops => f.write_str(
                "key frames that do not stand alone (open GOP or intra refresh): players that begin or seek there show \
                 broken pictures for a moment; have the encoder close its GOPs (x264 and x265: open-gop=0)",
            ),
            Self::BitrateSwings { least, most } => write!(
                f,
                "the bitrate swings between {:.1} and {:.1} Mbit/s: viewers whose line carries the average only will stop \
                 to buffer; set the encoder's rate control to CBR",
                megabits(*least),
                megabits(*most)
            ),
            Self::ClockJumps { by_ms } => write!(
                f,
                "the timestamps jumped {} by {:.1} s: viewers notice a break; unless the encoder was restarted, give it one \
                 steady clock for picture and sound",
                if *by_ms < 0 { "back" } else { "forward" },
                seconds(&Duration::from_millis(by_ms.unsigned_abs()))
            ),
            Self::SoundDrifts { off_ms, within } => write!(
                f,
                "the sound is {} ms {} than its timestamps after {:.0} s: it is mended in small steps that may be heard; \
                 give the encoder and its sound source the same sample rate",
                off_ms.unsigned_abs(),
                if *off_ms < 0 { "longer" } else { "shorter" },
                seconds(within)
            ),
            Self::PicturesMissing { lasting } => write!(
                f,
                "no picture for {:.1} s while the sound went on: the encoder drops frames; lower its bitrate, or use a \
                 faster line to the server",
                seconds(lasting)
            ),
            Self::NoSound { lasting } => write!(
                f,
                "no sound for {:.0} s: if that is not meant to be, look at the encoder's audio source",
                seconds(lasting)
            ),
            Self::DeepReordering { depth, delay } => write!(
                f,
                "pictures are decoded {depth} frames ({:.1} s) before they are shown: viewers see them that much later, \
                 and some players cannot hold so many; set the encoder's B-frames to 2 or 3",
                seconds(delay)
            ),
            Self::SizeChanges { from, to } => write!(
                f,
                "the picture changed from {}x{} to {}x{} in mid-broadcast: some players flicker or stop there; keep one \
                 size for all of a broadcast",
                from.0, from.1, to.0, to.1
            ),
        }
    }
}

impl Advice {
    /// What it is about: nothing is said twice about the same.
    fn topic(self) -> Topic {
        match self {
            Self::RareKeyFrames { .. } | Self::NoKeyFrames { .. } => Topic::KeyFrames,
            Self::OpenGops => Topic::OpenGops,
            Self::BitrateSwings { .. } => Topic::Bitrate,
            Self::ClockJumps { .. } => Topic::Clock,
            Self::SoundDrifts { .. } => Topic::Drift,
            Self::PicturesMissing { .. } => Topic::Missing,
            Self::NoSound { .. } => Topic::Sound,
            Self::DeepReordering { .. } => Topic::Reordering,
            Self::SizeChanges { .. } => Topic::Size,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topic {
    KeyFrames,
    OpenGops,
    Bitrate,
    Clock,
    Drift,
    Missing,
    Sound,
    Reordering,
    Size,
}

/// Looks on: `handle_*` in, `poll_advice` out.
#[derive(Debug)]
pub struct Adviser {
    wanted: Duration,
    pictures: Option<Pictures>,
    sound: Option<Sound>,
    /// The publisher says that it has none.
    is_silent_on_purpose: bool,
    rates: VecDeque<u64>,
    given: Given,
}

/// What is to be said, and what it has been about so far.
#[derive(Debug, Default)]
struct Given {
    advice: VecDeque<Advice>,
    topics: Vec<Topic>,
}

impl Given {
    fn give(&mut self, advice: Advice) {
        if !self.topics.contains(&advice.topic()) {
            self.topics.push(advice.topic());
            self.advice.push_back(advice);
        }
    }
}

/// The first video track, in ticks of 90 kHz.
#[derive(Debug)]
struct Pictures {
    id: TrackId,
    size: Option<(u32, u32)>,
    /// Since the clock started.
    first: Option<u64>,
    last: u64,
    last_sync: Option<u64>,
    /// Pictures were missing since then.
    has_hole: bool,
    /// How long a picture lasts, holes aside.
    usual: u64,
    /// How often one was decoded too long before it was shown.
    deep: u32,
}

/// The first audio track, in ticks of its own but for `end`.
#[derive(Debug)]
struct Sound {
    id: TrackId,
    timescale: Timescale,
    /// Where the last frame ends, since the clock started.
    next: Option<u64>,
    /// The same in ticks of 90 kHz.
    end: u64,
    drift: i64,
    lasting: u64,
}

impl Adviser {
    /// An adviser for segments of the `wanted` length.
    pub fn new(wanted: Duration) -> Self {
        Self {
            wanted,
            pictures: None,
            sound: None,
            is_silent_on_purpose: false,
            rates: VecDeque::with_capacity(COMPARED_SEGMENTS),
            given: Given::default(),
        }
    }

    /// Takes what the publisher says of its broadcast.
    pub fn handle_metadata(&mut self, metadata: &Metadata) {
        self.is_silent_on_purpose = metadata.has_audio == Some(false);
    }

    /// Takes what the remuxer says.
    pub fn handle_item(&mut self, item: &Item) {
        match item {
            Item::Epoch(epoch) => {
                match epoch.cause {
                    // Whoever comes back may have another picture.
                    Cause::Publish => (self.pictures, self.sound) = (None, None),
                    Cause::Jump { by_ms } => self.given.give(Advice::ClockJumps { by_ms }),
                }
                if let Some(pictures) = &mut self.pictures {
                    *pictures = Pictures::new(pictures.id, pictures.size);
                }
                if let Some(sound) = &mut self.sound {
                    *sound = Sound::new(sound.id, sound.timescale);
                }
            }
            Item::Track(track) => self.handle_track(track),
            Item::Sample(id, sample) => match id.kind {
                TrackKind::Video => self.handle_picture(*id, sample),
                TrackKind::Audio => self.handle_sound(*id, sample),
            },
            Item::Captions(..) | Item::Event(_) => {}
        }
    }

    /// Takes what the segmenter says.
    pub fn handle_segment(&mut self, segment: &Segment) {
        let is_usual = !segment.is_gap && Duration::from_micros(segment.duration_us) * 2 >= self.wanted;
        if !is_usual || self.pictures.as_ref().is_none_or(|pictures| pictures.id != segment.track) {
            return;
        }
        if self.rates.len() == COMPARED_SEGMENTS {
            self.rates.pop_front();
        }
        self.rates.push_back(segment.bytes * 8_000_000 / segment.duration_us.max(1));
        let [least, most] = [self.rates.iter().min(), self.rates.iter().max()].map(|rate| rate.copied().unwrap_or(0));
        let average = self.rates.iter().sum::<u64>() / self.rates.len() as u64;
        if self.rates.len() == COMPARED_SEGMENTS && most > 2 * average && most >= LEAST_NOTICED_RATE {
            self.given.give(Advice::BitrateSwings { least, most });
        }
    }

    /// The next piece of advice.
    pub fn poll_advice(&mut self) -> Option<Advice> {
        self.given.advice.pop_front()
    }

    fn handle_track(&mut self, track: &Track) {
        let Track { id, timescale, configuration } = track;
        match id.kind {
            TrackKind::Video => {
                let size = configuration.resolution();
                match &mut self.pictures {
                    None => self.pictures = Some(Pictures::new(*id, size)),
                    Some(pictures) if pictures.id == *id => {
                        let before = std::mem::replace(&mut pictures.size, size);
                        if let (Some(from), Some(to)) = (before, size)
                            && from != to
                        {
                            self.given.give(Advice::SizeChanges { from, to });
                        }
                    }
                    Some(_) => {}
                }
            }
            TrackKind::Audio => match &mut self.sound {
                None => self.sound = Some(Sound::new(*id, *timescale)),
                // The end is the same in any timescale.
                Some(sound) if sound.id == *id => *sound = Sound { end: sound.end, ..Sound::new(*id, *timescale) },
                Some(_) => {}
            },
        }
    }

    fn handle_picture(&mut self, id: TrackId, sample: &Sample) {
        let wanted = ticks(self.wanted);
        let heard_until = self.sound.as_ref().map_or(0, |sound| sound.end);
        let Some(pictures) = self.pictures.as_mut().filter(|pictures| pictures.id == id) else { return };
        let time = sample.decode_time;
        let Some(first) = pictures.first else {
            *pictures =
                Pictures { first: Some(time), last: time, last_sync: sample.is_sync.then_some(time), ..*pictures };
            return;
        };
        let given = &mut self.given;
        let step = time.saturating_sub(pictures.last);
        pictures.last = time;
        let is_hole = step >= LEAST_HOLE && step >= 5 * pictures.usual;
        if is_hole {
            pictures.has_hole = true;
            // An encoder that drops pictures goes on with a key frame, one that has none to send goes on as before.
            if sample.is_sync && heard_until + LEAST_HOLE >= time {
                given.give(Advice::PicturesMissing { lasting: duration(step) });
            }
        } else {
            pictures.usual = if pictures.usual == 0 { step } else { (7 * pictures.usual + step) / 8 };
        }
        let since_sync = time - pictures.last_sync.unwrap_or(first).min(time);
        if sample.is_sync {
            if !pictures.has_hole && 2 * since_sync > 3 * wanted {
                given.give(Advice::RareKeyFrames { every: duration(since_sync), wanted: self.wanted });
            }
            if sample.is_open_gop {
                given.give(Advice::OpenGops);
            }
            pictures.last_sync = Some(time);
            pictures.has_hole = false;
        } else if !pictures.has_hole && since_sync > LONGEST_GOP.max(3 * wanted) {
            given.give(Advice::NoKeyFrames { since: duration(since_sync), wanted: self.wanted });
        }
        let delay = u64::try_from(sample.composition_offset).unwrap_or(0);
        if delay > LEAST_DEEP_DELAY && delay > MOST_DEPTH * pictures.usual.max(1) {
            pictures.deep += 1;
            if pictures.deep == LEAST_DEEP_PICTURES {
                let depth = u32::try_from(delay / pictures.usual.max(1)).unwrap_or(u32::MAX);
                given.give(Advice::DeepReordering { depth, delay: duration(delay) });
            }
        }
        let is_meant = heard_until == 0 && self.is_silent_on_purpose;
        let unheard = time.saturating_sub(heard_until.max(first));
        if unheard > LONGEST_SILENCE && !is_meant {
            given.give(Advice::NoSound { lasting: duration(unheard) });
        }
    }

    fn handle_sound(&mut self, id: TrackId, sample: &Sample) {
        let Some(sound) = self.sound.as_mut().filter(|sound| sound.id == id) else { return };
        let rate = u64::from(sound.timescale.ticks_per_second());
        let expected = sound.next.replace(sample.end_time()).unwrap_or(sample.decode_time);
        sound.end = sample.end_time() / rate * TICKS + sample.end_time() % rate * TICKS / rate;
        let off = sample.decode_time.cast_signed() - expected.cast_signed();
        // What is further off is a hole.
        if off.unsigned_abs() * 10 > rate {
            return;
        }
        sound.drift += off;
        sound.lasting += u64::from(sample.duration);
        if sound.drift.unsigned_abs() * 1000 > LEAST_DRIFT_MS * rate && sound.lasting > LEAST_DRIFTING_S * rate {
            let off_ms = sound.drift * 1000 / rate.cast_signed();
            let within = Duration::from_secs(sound.lasting / rate);
            self.given.give(Advice::SoundDrifts { off_ms, within });
        }
    }
}

impl Pictures {
    fn new(id: TrackId, size: Option<(u32, u32)>) -> Self {
        Self { id, size, first: None, last: 0, last_sync: None, has_hole: false, usual: 0, deep: 0 }
    }
}

impl Sound {
    fn new(id: TrackId, timescale: Timescale) -> Self {
        Self { id, timescale, next: None, end: 0, drift: 0, lasting: 0 }
    }
}

fn ticks(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / TICKS) * (TICKS / 1000)
}

fn duration(ticks: u64) -> Duration {
    Duration::from_micros(Timescale::VIDEO.micros(ticks))
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn megabits(bits: u64) -> f64 {
    bits as f64 / 1e6
}

/// Ticks a second of pictures.
const TICKS: u64 = 90_000;
/// A hole in the pictures that viewers notice: half a second.
const LEAST_HOLE: u64 = TICKS / 2;
/// OBS's default is a key frame every 250 frames, 8.3 s: that is told when the next one comes.
const LONGEST_GOP: u64 = 10 * TICKS;
/// Ten seconds.
const LONGEST_SILENCE: u64 = 10 * TICKS;
/// x264's slower presets show a picture up to 8 frames after it was decoded.
const MOST_DEPTH: u64 = 8;
/// A third of a second.
const LEAST_DEEP_DELAY: u64 = 3 * TICKS / 10;
/// A few odd times are no habit.
const LEAST_DEEP_PICTURES: u32 = 10;
/// Sound this far off was mended in steps that can be heard.
const LEAST_DRIFT_MS: u64 = 200;
/// At the start encoders settle.
const LEAST_DRIFTING_S: u64 = 10;
/// Segments whose sizes are compared.
const COMPARED_SEGMENTS: usize = 8;
/// Below it no line is too slow, in bits a second.
const LEAST_NOTICED_RATE: u64 = 1_000_000;
