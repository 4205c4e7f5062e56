//! Whether a publisher sends at the speed at which its media play, and so when it is answered.
//!
//! Whoever closes a connection with our words unread resets it, and what it had not sent yet is lost (RFC 1122
//! §4.2.2.13). Of a live stream that is nothing, but of a film that is pushed at full speed the last seconds are still on
//! their way then, and the goodbye. So who is faster than its media is told nothing (acknowledgements, which codec is left
//! out) before it pauses, which it does if it waits for us.

use std::time::Duration;

use tokio::time::Instant;

/// Over how long media and clock are compared.
const OVER: Duration = Duration::from_secs(1);
/// Media that come this much faster than they play, in per cent, are none of a live stream.
const MOST_PER_CENT: u128 = 150;
/// What may come at once of a live stream that was held up, in milliseconds.
const BURST_MS: u128 = 1000;
/// Who sends nothing for so long may be waiting for us.
const PAUSE: Duration = Duration::from_millis(300);

/// How fast a publisher's media come.
#[derive(Debug, Default)]
pub(super) struct Tempo {
    speed: Speed,
    /// The clock and the timestamp from which on is counted.
    start: Option<(Instant, u32)>,
    /// The last timestamp, once media have come.
    timestamp: Option<u32>,
    /// When something was received last.
    received_at: Option<Instant>,
}

/// How fast media come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speed {
    #[default]
    Unknown,
    /// As they play.
    Live,
    /// As fast as they are taken.
    Film,
}

impl Tempo {
    /// Media of this RTMP timestamp, in milliseconds, have come.
    pub(super) fn handle_media(&mut self, timestamp: u32) {
        self.timestamp = Some(timestamp);
    }

    /// All that came until now was handled.
    pub(super) fn mark_received(&mut self, now: Instant) {
        let Some(last) = self.timestamp else { return };
        self.received_at = Some(now);
        let (since, first) = *self.start.get_or_insert((now, last));
        let passed = now.saturating_duration_since(since);
        // The timestamps wrap at 2^32 ms, and may go back.
        let played = u128::from(last.wrapping_sub(first).cast_signed().max(0).unsigned_abs());
        let most = passed.as_millis() * MOST_PER_CENT / 100;
        if played > most + BURST_MS {
            self.speed = Speed::Film;
        } else if passed < OVER {
            return;
        } else {
            self.speed = if played > most { Speed::Film } else { Speed::Live };
        }
        self.start = Some((now, last));
    }

    /// The publisher could send nothing until now, as nobody read.
    pub(super) fn mark_deaf(&mut self, now: Instant) {
        if let Some(last) = self.timestamp {
            self.received_at = Some(now);
            self.start = Some((now, last));
        }
    }

    /// For so long of the time since the last mark nobody read.
    pub(super) fn leave_out(&mut self, deaf: Duration) {
        if let Some((since, _)) = &mut self.start {
            *since += deaf;
        }
    }

    /// By what came in the last second.
    pub(super) fn speed(&self) -> Speed {
        self.speed
    }

    /// Until when the publisher is told nothing, unless more comes.
    pub(super) fn quiet_until(&self) -> Option<Instant> {
        self.received_at.filter(|_| self.speed != Speed::Live).map(|at| at + PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Media of `per_cent` of the speed at which they play, a message every 40 ms, for a while.
    fn play(tempo: &mut Tempo, start: Instant, per_cent: u32, mut timestamp: u32) -> (Instant, u32) {
        let mut now = start;
        for _ in 0..60 {
            tempo.handle_media(timestamp);
            tempo.mark_received(now);
            now += Duration::from_millis(40);
            timestamp = timestamp.wrapping_add(40 * per_cent / 100);
        }
        (now, timestamp)
    }

    #[test]
    fn who_sends_as_it_plays_may_be_told_anything() {
        let mut tempo = Tempo::default();
        // The timestamps wrap meanwhile.
        play(&mut tempo, Instant::now(), 110, u32::MAX - 1000);
        assert_eq!(tempo.quiet_until(), None);
    }

    #[test]
    fn who_sends_faster_is_told_nothing_before_it_pauses_or_slows_down() {
        let mut tempo = Tempo::default();
        let (now, timestamp) = play(&mut tempo, Instant::now(), 300, 0);
        assert_eq!(tempo.speed(), Speed::Film);
        assert_eq!(tempo.quiet_until(), Some(now - Duration::from_millis(40) + PAUSE));
        play(&mut tempo, now, 100, timestamp);
        assert_eq!((tempo.quiet_until(), tempo.speed()), (None, Speed::Live));
    }

    #[test]
    fn a_film_is_known_at_once() {
        let mut tempo = Tempo::default();
        let now = Instant::now();
        for timestamp in [0, 500, 1200] {
            assert_eq!(tempo.speed(), Speed::Unknown);
            tempo.handle_media(timestamp);
            tempo.mark_received(now);
        }
        assert_eq!(tempo.speed(), Speed::Film);
    }

    #[test]
    fn a_film_that_our_disk_holds_up_is_one_still() {
        let mut tempo = Tempo::default();
        let (mut now, mut timestamp) = play(&mut tempo, Instant::now(), 300, 0);
        for _ in 0..10 {
            // Half a second of it comes, and its writing takes one.
            timestamp += 500;
            tempo.handle_media(timestamp);
            tempo.leave_out(Duration::from_secs(1));
            now += Duration::from_millis(1100);
            tempo.mark_received(now);
        }
        tempo.mark_deaf(now + Duration::from_secs(60));
        assert_eq!(tempo.speed(), Speed::Film);
        assert_eq!(tempo.quiet_until(), Some(now + Duration::from_secs(60) + PAUSE));
    }

    #[test]
    fn who_has_just_begun_is_not_known_yet() {
        let mut tempo = Tempo::default();
        let now = Instant::now();
        // It may be waiting for the answer to its publish.
        tempo.mark_received(now);
        assert_eq!(tempo.quiet_until(), None);
        tempo.handle_media(0);
        tempo.mark_received(now);
        assert_eq!(tempo.quiet_until(), Some(now + PAUSE));
    }
}
