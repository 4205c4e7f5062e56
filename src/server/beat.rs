//! A common beat at which publishers' sockets are looked at.
//!
//! A publisher at 4 Mbit/s sends some 70 messages a second. Whoever reads whenever bytes come wakes up as often; at a
//! beat of 50 ms it is 20 times, for all publishers together, with one timer and larger reads.
//!
//! ```text
//! bytes come   . .. . .  .. . .|. .. . .  .  . .|.
//! read                         ▲                ▲        one beat
//! ```

use std::collections::VecDeque;
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
    waiting: Mutex<Waiting>,
    first_waits: Notify,
}

/// Who waits, by how many beats are to come before theirs.
#[derive(Debug, Default)]
struct Waiting {
    wakers: VecDeque<Vec<Waker>>,
    count: usize,
}

impl Beat {
    /// A beat that comes `every` so often, as long as the runtime runs.
    pub(super) fn start(every: Duration) -> Arc<Self> {
        let beat =
            Arc::new(Self { every, number: AtomicU64::new(1), waiting: Mutex::default(), first_waits: Notify::new() });
        tokio::spawn(run(Arc::clone(&beat)));
        beat
    }

    /// The number of the last beat, from 1.
    pub(super) fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// How often it comes.
    pub(super) fn every(&self) -> Duration {
        self.every
    }

    /// Wakes `waker` at the beat `number`; at once if that has come.
    pub(super) fn wake_at(&self, number: u64, waker: &Waker) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: a beat that comes now finds the waker, or was seen here.
        let Some(before) = number.checked_sub(self.number() + 1) else {
            drop(waiting);
            return waker.wake_by_ref();
        };
        let before = usize::try_from(before).unwrap_or(0);
        if waiting.wakers.len() <= before {
            waiting.wakers.resize_with(before + 1, Vec::new);
        }
        waiting.wakers[before].push(waker.clone());
        waiting.count += 1;
        if waiting.count == 1 {
            self.first_waits.notify_one();
        }
    }

    /// Whether somebody waits for another one.
    fn strike(&self) -> bool {
        let (mut woken, is_waited_for) = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            self.number.fetch_add(1, Ordering::AcqRel);
            let woken = waiting.wakers.pop_front().unwrap_or_default();
            waiting.count -= woken.len();
            (woken, waiting.count > 0)
        };
        woken.drain(..).for_each(Waker::wake);
        // Its room is used again.
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.wakers.push_back(woken);
        is_waited_for
    }
}

async fn run(beat: Arc<Beat>) {
    let mut next = Instant::now();
    loop {
        beat.first_waits.notified().await;
        let mut is_waited_for = true;
        while is_waited_for {
            next = (next + beat.every).max(Instant::now());
            sleep_until(next).await;
            is_waited_for = beat.strike();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    async fn next_beat(beat: &Beat) {
        beat_behind(beat, beat.number()).await;
    }

    async fn beat_behind(beat: &Beat, number: u64) {
        poll_fn(|cx| {
            if beat.number() > number {
                return Poll::Ready(());
            }
            beat.wake_at(number + 1, cx.waker());
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
    async fn some_wait_for_a_later_beat() {
        let beat = Beat::start(Duration::from_millis(50));
        let began = Instant::now();
        let waited = async |beats| {
            beat_behind(&beat, beats).await;
            began.elapsed()
        };
        let waited = tokio::join!(waited(4), waited(1), waited(4), waited(2));
        let ms = |ms| Duration::from_millis(ms);
        assert_eq!(waited, (ms(200), ms(50), ms(200), ms(100)));
        assert_eq!(beat.waiting.lock().unwrap().count, 0);
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
            beat.wake_at(number + 1, cx.waker());
            Poll::Pending
        })
        .await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
