//! When the next segment can end, so that nobody need look at a publisher's bytes before.
//!
//! Until a segment is as long as it should be, nothing that comes changes what viewers see. When that will be is known by
//! the clock, for media come no sooner than they are made: a publisher was never more ahead than when it was on time.

use std::time::Duration;

/// What is forgotten of how far ahead a publisher was: this part of the time since. Its clock may be slow, or its way have
/// become longer.
const FORGOTTEN: i64 = 100;

/// How media time goes by the clock.
#[derive(Debug, Default)]
pub(super) struct Foresight {
    lead: Option<Lead>,
}

/// How far media have been ahead of the monotonic clock at most.
#[derive(Debug, Clone, Copy)]
struct Lead {
    us: i64,
    /// When that was last looked at, on the monotonic clock, in microseconds.
    at_us: i64,
}

impl Foresight {
    /// All media up to `front_us` on the output timeline have come by `now`.
    pub(super) fn note(&mut self, front_us: u64, now: Duration) {
        let at_us = micros(now);
        let us = front_us.cast_signed() - at_us;
        let before = self.lead.map(|lead| lead.us - (at_us - lead.at_us) / FORGOTTEN);
        self.lead = Some(Lead { us: before.map_or(us, |before| before.max(us)), at_us });
    }

    /// When media of the time `at_us` come at the earliest, on the monotonic clock.
    pub(super) fn earliest(&self, at_us: u64) -> Option<Duration> {
        let lead = self.lead?;
        Some(Duration::from_micros(u64::try_from(at_us.cast_signed() - lead.us).unwrap_or(0)))
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn media_come_no_sooner_than_a_publisher_on_time_sends_them() {
        let mut foresight = Foresight::default();
        assert_eq!(foresight.earliest(2_000_000), None);
        // Its media time is 500 ms behind our clock.
        foresight.note(1_000_000, ms(1500));
        assert_eq!(foresight.earliest(2_000_000), Some(ms(2500)));
        // The network held it up: what comes after that may be on time again.
        foresight.note(1_100_000, ms(1900));
        assert_eq!(foresight.earliest(2_000_000), Some(ms(2504)));
        // It was held up before: now it is on time.
        foresight.note(1_700_000, ms(2000));
        assert_eq!(foresight.earliest(2_000_000), Some(ms(2300)));
    }

    #[test]
    fn that_a_way_was_once_shorter_is_forgotten() {
        let mut foresight = Foresight::default();
        foresight.note(1_000_000, ms(1000));
        for second in 2..200 {
            foresight.note(second * 1_000_000 - 400_000, ms(second * 1000));
        }
        assert_eq!(foresight.earliest(300_000_000), Some(ms(300_400)));
    }
}
