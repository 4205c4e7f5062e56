//! One clock for all tracks of a broadcast: RTMP's 32-bit milliseconds become milliseconds that never wrap and whose
//! jumps are known.
//!
//! ```text
//! RTMP    … 4294967290 │ 4 … 9960 │ 0 …            (wrap: the same epoch; restart: a new one)
//! output  … 11290      │ 11300 … 21256 ┊ 22256 …
//!         epoch 0                      ┊ epoch 1: a second later, room for a track that starts a little earlier
//! ```
//!
//! A track that stands still or steps a little is absorbed. A step of the whole broadcast starts a new [`Epoch`].

/// How far the clock may step forward before it counts as a jump, in milliseconds. An encoder on a choked uplink drops
/// a few seconds of video while audio goes on; that is a hole, not a jump.
const FORWARD_MS: i64 = 5_000;

/// How far a track may step back before it counts as a jump, in milliseconds.
const BACKWARD_MS: i64 = 1_000;

/// The least media between two jumps, in milliseconds. Random timestamps are absorbed instead of making a discontinuity each.
const SHORTEST_EPOCH_MS: i64 = 2_000;

/// Room before each epoch for a track that starts a little earlier than the one that began it, in milliseconds.
pub(super) const MARGIN_MS: i64 = 1_000;

/// The step of a frame whose timestamp was absorbed, in milliseconds.
const ABSORBED_STEP_MS: i64 = 20;

/// A stretch of the timeline on which the publisher's clock runs on.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    number: u64,
    /// RTMP time at `output_ms`, unwrapped.
    origin_ms: i64,
    /// Output time at which the stretch begins.
    output_ms: i64,
    /// The latest RTMP time placed, unwrapped.
    front_ms: i64,
}

impl Stretch {
    fn output(&self, unwrapped_ms: i64) -> i64 {
        self.output_ms + (unwrapped_ms - self.origin_ms)
    }
}

/// Where a track stands on the clock.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TrackClock {
    last: Option<Last>,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    unwrapped_ms: i64,
    stretch: u64,
}

/// Where a frame was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    /// Output time in milliseconds.
    pub(super) output_ms: i64,
    /// Which stretch of the timeline it lies on; frames of different stretches have no distance in time.
    pub(super) stretch: u64,
    /// The stretch began with this frame, because the clock jumped by so many milliseconds.
    pub(super) jumped_ms: Option<i64>,
}

/// The broadcast's clock.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    current: Option<Stretch>,
    previous: Option<Stretch>,
    /// The latest output time placed, in milliseconds.
    end_ms: i64,
}

impl Timeline {
    /// A timeline of which all before `end_ms` has been used, in milliseconds.
    pub(super) fn behind(end_ms: i64) -> Self {
        Self { end_ms, ..Self::default() }
    }

    /// Begins a stretch with RTMP time `timestamp` as its first, behind all that was placed before. Returns its output
    /// time in milliseconds.
    pub(super) fn begin(&mut self, timestamp: u32) -> i64 {
        self.begin_at(i64::from(timestamp))
    }

    fn begin_at(&mut self, origin_ms: i64) -> i64 {
        let number = self.current.map_or(0, |stretch| stretch.number + 1);
        let output_ms = self.end_ms + MARGIN_MS;
        self.end_ms = output_ms;
        self.previous = self.current.replace(Stretch { number, origin_ms, output_ms, front_ms: origin_ms });
        output_ms
    }

    /// Places a frame of a track. The timeline must have begun.
    pub(super) fn place(&mut self, clock: &mut TrackClock, timestamp: u32) -> Placed {
        let Some(current) = self.current else {
            self.begin(timestamp);
            return self.place(clock, timestamp);
        };
        let reference = clock.last.map_or(current.front_ms, |last| last.unwrapped_ms);
        let unwrapped_ms = unwrap(timestamp, reference);
        match clock.last {
            Some(last) if last.stretch != current.number => self.place_behind(clock, current, last, unwrapped_ms),
            last => {
                let earliest = last.map_or(current.origin_ms, |last| last.unwrapped_ms) - BACKWARD_MS;
                if (earliest..=current.front_ms + FORWARD_MS).contains(&unwrapped_ms) {
                    self.advance(clock, unwrapped_ms)
                } else {
                    self.jump(clock, current, unwrapped_ms)
                }
            }
        }
    }

    /// Places a frame of a track that has not yet followed the others onto the current stretch: late media of the
    /// stretch before, or its first on the new one, whichever is nearer.
    fn place_behind(&mut self, clock: &mut TrackClock, current: Stretch, last: Last, unwrapped_ms: i64) -> Placed {
        let on_new = unwrap_near(unwrapped_ms, current.front_ms);
        let to_old = (unwrapped_ms - last.unwrapped_ms).abs();
        let to_new = (on_new - current.front_ms).abs();
        if let Some(previous) = self.previous
            && previous.number == last.stretch
            && to_old <= to_new
            && (last.unwrapped_ms - BACKWARD_MS..=previous.front_ms + FORWARD_MS).contains(&unwrapped_ms)
        {
            clock.last = Some(Last { unwrapped_ms, stretch: previous.number });
            // It must not reach into the stretch that has begun.
            let output_ms = previous.output(unwrapped_ms).min(current.output_ms - MARGIN_MS);
            return Placed { output_ms, stretch: previous.number, jumped_ms: None };
        }
        if (current.origin_ms - BACKWARD_MS..=current.front_ms + FORWARD_MS).contains(&on_new) {
            self.advance(clock, on_new)
        } else {
            self.jump(clock, current, on_new)
        }
    }

    /// When something that is no frame happens, in microseconds of the output timeline: at its timestamp, or, where that is
    /// none of this clock, now.
    pub(super) fn event_us(&self, timestamp: u32) -> u64 {
        let Some(current) = self.current else { return 0 };
        let unwrapped_ms = unwrap(timestamp, current.front_ms);
        let is_near = (current.front_ms - BACKWARD_MS..=current.front_ms + FORWARD_MS).contains(&unwrapped_ms);
        let output_ms = current.output(if is_near { unwrapped_ms } else { current.front_ms });
        u64::try_from(output_ms.max(current.output_ms)).unwrap_or(0) * 1000
    }

    fn advance(&mut self, clock: &mut TrackClock, unwrapped_ms: i64) -> Placed {
        let current = self.current.as_mut().expect("a stretch has begun");
        current.front_ms = current.front_ms.max(unwrapped_ms);
        clock.last = Some(Last { unwrapped_ms, stretch: current.number });
        let output_ms = current.output(unwrapped_ms);
        self.end_ms = self.end_ms.max(output_ms);
        Placed { output_ms, stretch: current.number, jumped_ms: None }
    }

    fn jump(&mut self, clock: &mut TrackClock, current: Stretch, unwrapped_ms: i64) -> Placed {
        if self.end_ms - current.output_ms < SHORTEST_EPOCH_MS {
            // Too soon after the last one: the frame goes behind the others, and the clock runs on from it.
            let output_ms = self.end_ms + ABSORBED_STEP_MS;
            let rebased = self.current.as_mut().expect("a stretch has begun");
            rebased.origin_ms = unwrapped_ms - (output_ms - rebased.output_ms);
            rebased.front_ms = unwrapped_ms;
            return self.advance(clock, unwrapped_ms);
        }
        self.begin_at(unwrapped_ms);
        Placed { jumped_ms: Some(unwrapped_ms - current.front_ms), ..self.advance(clock, unwrapped_ms) }
    }
}

/// The unwrapped time nearest to `reference` whose low 32 bits are `timestamp`.
fn unwrap(timestamp: u32, reference: i64) -> i64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap,
        reason = "modulo 2^32 is meant"
    )]
    let step = timestamp.wrapping_sub(reference as u32) as i32;
    reference + i64::from(step)
}

/// The time nearest to `reference` that differs from `unwrapped_ms` by a multiple of 2^32.
fn unwrap_near(unwrapped_ms: i64, reference: i64) -> i64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "modulo 2^32 is meant")]
    let timestamp = unwrapped_ms as u32;
    unwrap(timestamp, reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(timestamps: &[u32]) -> Vec<(i64, bool)> {
        let mut timeline = Timeline::default();
        let mut clock = TrackClock::default();
        timeline.begin(timestamps[0]);
        timestamps
            .iter()
            .map(|&timestamp| {
                let placed = timeline.place(&mut clock, timestamp);
                (placed.output_ms, placed.jumped_ms.is_some())
            })
            .collect()
    }

    #[test]
    fn the_clock_runs_on_through_the_32_bit_wrap() {
        assert_eq!(outputs(&[u32::MAX - 39, 0, 40]), [(1000, false), (1040, false), (1080, false)]);
    }

    #[test]
    fn a_large_step_begins_a_stretch_a_second_later() {
        let mut steady: Vec<u32> = (0..100).map(|n| n * 40).collect();
        steady.push(20_000);
        steady.push(20_040);
        let placed = outputs(&steady);
        assert_eq!(placed[99], (4960, false));
        assert_eq!(placed[100], (5960, true));
        assert_eq!(placed[101], (6000, false));
        steady[100] = 0;
        steady[101] = 40;
        assert_eq!(outputs(&steady)[100..], [(5960, true), (6000, false)]);
    }

    #[test]
    fn a_small_step_is_absorbed() {
        assert_eq!(outputs(&[0, 40, 20, 3000]), [(1000, false), (1040, false), (1020, false), (4000, false)]);
    }

    #[test]
    fn random_timestamps_do_not_make_a_discontinuity_each() {
        let mut value = 1u32;
        let noise: Vec<u32> = (0..2000)
            .map(|_| {
                value = value.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                value
            })
            .collect();
        let jumps = outputs(&noise).iter().filter(|(_, jumped)| *jumped).count();
        assert!(jumps <= 2000 * 20 / 2000, "{jumps} jumps");
    }

    #[test]
    fn a_track_follows_the_jump_of_another_and_late_media_stays_before_it() {
        let mut timeline = Timeline::default();
        let (mut video, mut audio) = (TrackClock::default(), TrackClock::default());
        timeline.begin(0);
        for n in 0..100 {
            timeline.place(&mut video, n * 40);
            timeline.place(&mut audio, n * 40);
        }
        assert_eq!(timeline.place(&mut video, 60_000).jumped_ms, Some(60_000 - 99 * 40));
        let late = timeline.place(&mut audio, 4_000);
        assert_eq!((late.output_ms, late.stretch, late.jumped_ms), (4_960, 0, None));
        let first = timeline.place(&mut audio, 59_980);
        assert_eq!((first.output_ms, first.stretch, first.jumped_ms), (5_940, 1, None));
    }
}
