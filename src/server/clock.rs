//! The only clock of the program.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::media::Moment;

/// Tells what time it is, on both clocks. Copies agree with each other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock whose monotonic time starts now.
    pub(super) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// What time it is.
    pub(super) fn now(self) -> Moment {
        self.moment(Instant::now())
    }

    /// What time it is, where `now` was just read.
    pub(super) fn moment(self, now: Instant) -> Moment {
        Moment {
            monotonic: self.monotonic(now),
            // A clock set before 1970 is as good as none.
            unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    /// What the monotonic time of a [`Moment`] was or will be at `instant`.
    pub(super) fn monotonic(self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.start)
    }

    /// When the monotonic time of a [`Moment`] will be `monotonic`.
    pub(super) fn instant(self, monotonic: Duration) -> Instant {
        self.start + monotonic.min(FAR)
    }
}

/// Longer than any broadcast; keeps a timer's arithmetic from overflowing.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
