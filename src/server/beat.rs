//! A common beat at which publishers' sockets are looked at.
//!
//! A publisher at 4 Mbit/s sends some 70 messages a second. Whoever reads whenever bytes come wakes up as often; at a
//! beat of 50 ms it is 20 times, for all publishers together, with one timer and larger reads.
//!
//! ```text
//! bytes come   . .. . .  .. . .|. .. . .  .  . .|.
//! read                         ▲                ▲        one beat
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Wakes all who wait, again and again. The timer runs only while somebody waits.
#[derive(Debug)]
pub(super) struct Beat {
    every: Duration,
    number: AtomicU64,
    waiting: Mutex<Vec<Waker>>,
    first_waits: Notify,
}

impl Beat {
    /// A beat that comes `every` so often, as long as the runtime runs.
    pub(super) fn start(every: Duration) -> Arc<Self> {
        let beat = Arc::new(Self {
            every,
            number: AtomicU64::new(1),
            waiting: Mutex::new(Vec::new()),
            first_waits: Notify::new(),
        });
        tokio::spawn(run(Arc::clone(&beat)));
        beat
    }

    /// The number of the last beat, from 1.
    pub(super) fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// Wakes `waker` at the beat after `number`; at once if that has come.
    pub(super) fn wake_after(&self, number: u64, waker: &Waker) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: a beat that comes now finds the waker, or was seen here.
        if self.number() != number {
            drop(waiting);
            return waker.wake_by_ref();
        }
        waiting.push(waker.clone());
        if waiting.len() == 1 {
            self.first_waits.notify_one();
        }
    }

    fn strike(&self) {
        let woken = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            self.number.fetch_add(1, Ordering::AcqRel);
            let next = Vec::with_capacity(waiting.len());
            std::mem::replace(&mut *waiting, next)
        };
        for waker in woken {
            waker.wake();
        }
    }
}

async fn run(beat: Arc<Beat>) {
    let mut next = Instant::now();
    loop {
        beat.first_waits.notified().await;
        next = (next + beat.every).max(Instant::now());
        sleep_until(next).await;
        beat.strike();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    async fn next_beat(beat: &Beat) {
        let number = beat.number();
        poll_fn(|cx| {
            if beat.number() > number {
                return Poll::Ready(());
            }
            beat.wake_after(number, cx.waker());
            Poll::Pending
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_wait_are_woken_by_the_same_beat() {
        let beat = Beat::start(Duration::from_millis(50));
        next_beat(&beat).await;
        let began = Instant::now();
        for _ in 0..20 {
            tokio::join!(next_beat(&beat), next_beat(&beat));
        }
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        assert_eq!(beat.number(), 22);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_beat_that_has_come() {
        let beat = Beat::start(Duration::from_millis(50));
        let number = beat.number();
        next_beat(&beat).await;
        let began = Instant::now();
        let mut polled = 0;
        poll_fn(|cx| {
            polled += 1;
            if polled == 2 {
                return Poll::Ready(());
            }
            beat.wake_after(number, cx.waker());
            Poll::Pending
        })
        .await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
