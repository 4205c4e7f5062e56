//! One track's clock: output milliseconds become decode times that always go forward and durations that are exact.

use bytes::Bytes;

use crate::codec::{Captions, Configuration, Light, vp9};
use crate::flv::FourCc;
use crate::media::{Timescale, TrackId};

use super::timeline::{Placed, TrackClock};

/// A video frame's duration until another is known, in ticks of 90 kHz: 30 frames a second.
const FIRST_VIDEO_DURATION: u32 = 3_000;

/// The longest duration that a last video frame is given, in ticks of 90 kHz: half a second.
const LONGEST_LAST_DURATION: u64 = 45_000;

/// An audio timestamp this far from the sample clock is a hole or an overlap and is followed at once, in milliseconds.
const AUDIO_HOLE_MS: u64 = 100;

/// A constant distance between timestamps and sample clock that is left alone, in milliseconds. RTMP rounds each
/// timestamp to a millisecond, and so the first one, from which samples are counted.
const AUDIO_DRIFT_MS: u64 = 10;

/// For how many frames a distance must last to be drift and not jitter: about a second of AAC.
const AUDIO_DRIFT_FRAMES: u32 = 48;

/// What the remuxer knows of a track.
#[derive(Debug)]
pub(super) struct TrackState {
    pub(super) id: TrackId,
    /// The codec of `configuration`, or of what there is in its place.
    pub(super) codec: FourCc,
    /// The codec is none that is carried: nothing of the track is.
    pub(super) is_refused: bool,
    pub(super) configuration: Option<Configuration>,
    /// The last sequence header, as it came.
    pub(super) record: Option<Bytes>,
    /// Half of a VP9 configuration; the other half stands in the key frames.
    pub(super) vp9_record: Option<vp9::Record>,
    /// What the publisher says beside the codec, and what of it the packager knows.
    pub(super) light: Light,
    pub(super) announced_light: Light,
    /// The captions in its pictures, and what of them the packager knows.
    pub(super) captions: Captions,
    pub(super) announced_captions: Captions,
    /// The packager has been told of `configuration`.
    pub(super) is_announced: bool,
    /// Video: a sync sample was seen since the configuration came.
    pub(super) is_started: bool,
    pub(super) clock: TrackClock,
    pacing: Pacing,
}

/// Decode time and duration of a sample, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timing {
    pub(super) decode_time: u64,
    /// Until the next sample says otherwise.
    pub(super) duration: u32,
}

#[derive(Debug, Default)]
struct Pacing {
    stretch: Option<u64>,
    /// What `last` is counted in.
    timescale: Option<Timescale>,
    last: Option<Timing>,
    drift: Drift,
}

impl TrackState {
    pub(super) fn new(id: TrackId, codec: FourCc) -> Self {
        Self {
            id,
            codec,
            is_refused: false,
            configuration: None,
            record: None,
            vp9_record: None,
            light: Light::default(),
            announced_light: Light::default(),
            captions: Captions::default(),
            announced_captions: Captions::default(),
            is_announced: false,
            is_started: false,
            clock: TrackClock::default(),
            pacing: Pacing::default(),
        }
    }

    /// A new stretch of the timeline begins with no memory of clocks; the configuration must come again.
    pub(super) fn restart(&mut self) {
        *self = Self {
            pacing: Pacing { stretch: None, ..std::mem::take(&mut self.pacing) },
            ..Self::new(self.id, self.codec)
        };
    }

    /// The track's frames from here on have another configuration.
    pub(super) fn configure(&mut self, codec: FourCc, configuration: Configuration) {
        self.codec = codec;
        self.configuration = Some(configuration);
        self.is_announced = false;
        self.is_started = false;
    }

    /// Has the packager told anew when the publisher says something else of light, and the codec does not know better.
    pub(super) fn heed_light(&mut self) {
        if self.light == self.announced_light {
            return;
        }
        let seen = |light| self.configuration.clone().map(|configuration| configuration.with_light(light));
        if seen(self.light) != seen(self.announced_light) {
            self.is_announced = false;
        }
        self.announced_light = self.light;
    }

    pub(super) fn timescale(&self) -> Timescale {
        let sample_rate = self.configuration.as_ref().and_then(Configuration::sample_rate);
        sample_rate.and_then(Timescale::new).unwrap_or(Timescale::VIDEO)
    }

    /// The decode time and the duration of a frame placed at output milliseconds; of sound, which knows its `samples`, the
    /// duration is exact.
    pub(super) fn pace(&mut self, placed: Placed, samples: Option<u32>) -> Timing {
        self.pacing.count_in(self.timescale());
        let scale = u64::from(self.timescale().ticks_per_second());
        let target = (u64::try_from(placed.output_ms).unwrap_or(0) * scale + 500) / 1000;
        let continues = self.pacing.stretch.replace(placed.stretch) == Some(placed.stretch);
        let timing = match (samples, self.pacing.last) {
            (Some(duration), Some(last)) if continues => {
                Timing { decode_time: self.pacing.drift.follow(last, target, scale), duration }
            }
            (Some(duration), _) => {
                self.pacing.drift = Drift::default();
                Timing { decode_time: target, duration }
            }
            (None, Some(last)) if continues => {
                let decode_time = target.max(last.decode_time + 1);
                let step = (decode_time - last.decode_time).min(LONGEST_LAST_DURATION);
                Timing { decode_time, duration: u32::try_from(step).unwrap_or(FIRST_VIDEO_DURATION) }
            }
            (None, last) => {
                Timing { decode_time: target, duration: last.map_or(FIRST_VIDEO_DURATION, |last| last.duration) }
            }
        };
        self.pacing.last = Some(timing);
        timing
    }
}

impl Pacing {
    /// Counts in these ticks from here on.
    fn count_in(&mut self, timescale: Timescale) {
        let before = self.timescale.replace(timescale).unwrap_or(timescale);
        if before == timescale {
            return;
        }
        self.drift = Drift::default();
        if let Some(last) = &mut self.last {
            let end = timescale.ticks(before.micros(last.decode_time + u64::from(last.duration)));
            last.duration = u32::try_from(timescale.ticks(before.micros(last.duration.into()))).unwrap_or(1).max(1);
            last.decode_time = end.saturating_sub(last.duration.into());
        }
    }
}

/// Keeps the sample clock of an audio track near the publisher's timestamps, without following their rounding.
#[derive(Debug, Default)]
struct Drift {
    /// The smallest distance seen since the distances last changed sign or were corrected, in ticks.
    least: i64,
    frames: u32,
}

impl Drift {
    /// The decode time after `last` of a frame whose timestamp says `target`.
    fn follow(&mut self, last: Timing, target: u64, scale: u64) -> u64 {
        let next = last.decode_time + u64::from(last.duration);
        let distance = target.cast_signed() - next.cast_signed();
        let correction = if distance.unsigned_abs() > AUDIO_HOLE_MS * scale / 1000 {
            self.frames = 0;
            distance
        } else {
            self.settled(distance, scale)
        };
        // Half a frame at the least, so that an overlap is worked off over several frames.
        next.saturating_add_signed(correction).max(last.decode_time + u64::from(last.duration / 2).max(1))
    }

    /// The distance that has lasted long enough to be corrected, or 0.
    fn settled(&mut self, distance: i64, scale: u64) -> i64 {
        if self.frames == 0 || distance.signum() != self.least.signum() {
            *self = Self { least: distance, frames: 1 };
            return 0;
        }
        if distance.abs() < self.least.abs() {
            self.least = distance;
        }
        self.frames += 1;
        if self.frames < AUDIO_DRIFT_FRAMES {
            return 0;
        }
        self.frames = 0;
        if self.least.unsigned_abs() > AUDIO_DRIFT_MS * scale / 1000 { self.least } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decode times of AAC frames at 48 kHz whose timestamps are `timestamps_ms`.
    fn follow(timestamps_ms: impl Iterator<Item = u64>) -> Vec<u64> {
        let mut drift = Drift::default();
        let mut last: Option<Timing> = None;
        timestamps_ms
            .map(|ms| {
                let decode_time = last.map_or(ms * 48, |last| drift.follow(last, ms * 48, 48_000));
                last = Some(Timing { decode_time, duration: 1024 });
                decode_time
            })
            .collect()
    }

    #[test]
    fn rounding_to_milliseconds_never_reaches_the_sample_clock() {
        let times = follow((0..10_000).map(|n| n * 1024 / 48));
        assert!(times.iter().zip(0..).all(|(time, n)| *time == n * 1024));
    }

    #[test]
    fn a_hole_is_followed_at_once() {
        let times = follow([0, 21, 43, 1064, 1085].into_iter());
        assert_eq!(times, [0, 1024, 2048, 1064 * 48, 1064 * 48 + 1024]);
    }

    #[test]
    fn two_lost_frames_are_made_up_for_within_about_a_second() {
        let times = follow((0..200).filter(|n| !(50..52).contains(n)).map(|n| n * 1024 / 48));
        let late = times.last().unwrap().abs_diff(199 * 1024);
        assert!(late < 48 * 2, "{late} ticks off");
    }

    #[test]
    fn a_drifting_encoder_stays_within_a_few_milliseconds() {
        // A sound card that runs 0.1 % slow: each frame takes 0.1 % longer by the clock of the timestamps.
        let times = follow((0..20_000).map(|n| n * 1024 * 1001 / 48_000));
        let off = times.last().unwrap().abs_diff(19_999 * 1024 * 1001 / 1000);
        assert!(off < 48 * 12, "{off} ticks off");
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
