//! How the other tracks follow the leader's cuts.
//!
//! What a follower receives waits in its queue until the leader's cuts say which segment it belongs to.

use std::collections::VecDeque;

use super::{Cut, Haste, Output, Queued, Rendition, Segmenter, cut_of, patience_us};

impl Segmenter {
    /// Moves all that is queued into segments. What is too long for one is cut without the leader, and a new
    /// configuration breaks all renditions off.
    pub(super) fn follow_hastily(&mut self, haste: Haste) {
        loop {
            self.follow_all();
            let waiting = self.renditions[1..].iter().filter(|follower| !follower.queue.is_empty());
            if let Some(waiting_us) = waiting.map(|follower| follower.received_us).max()
                && waiting_us + self.head_start_us() > self.renditions[0].opens_at_us() + self.cadence.limit_us()
            {
                self.cut_without_leader();
                continue;
            }
            for position in 1..self.renditions.len() {
                self.follow(position, haste);
            }
            let is_held_up = |follower: &Rendition| matches!(follower.queue.front(), Some(Queued::Track(_)));
            if !self.renditions[1..].iter().any(is_held_up) {
                return;
            }
            let Some(at_us) = self.breaks.pop_front() else { return };
            self.break_off(at_us, self.delay_us);
        }
    }

    pub(super) fn follow_all(&mut self) {
        for position in 1..self.renditions.len() {
            self.follow(position, Haste::Wait);
        }
        let slowest = self.renditions[1..].iter().map(|follower| follower.number).min().unwrap_or(u64::MAX);
        while self.cuts.pop_front_if(|cut| cut.number < slowest).is_some() {}
    }

    /// Moves a follower's samples into its segments as far as the leader's cuts are known.
    pub(super) fn follow(&mut self, position: usize, haste: Haste) {
        let limit_us = self.cadence.limit_us();
        let most_head_start_us = self.cadence.most_head_start_us();
        let delay_us = self.delay_until_cut_us(&self.renditions[position]);
        let Self { renditions, cuts, breaks, outputs, .. } = self;
        let patience_us = patience_us(&renditions[position]);
        let (leader, followers) = renditions.split_at_mut(1);
        let (leader, follower) = (&leader[0], &mut followers[position - 1]);
        let leader_since_us = || leader.opens_at_us().saturating_add_signed(delay_us);
        let leader_end_us = || leader.nominal_end().map_or(0, |end| leader.micros(end)).saturating_add_signed(delay_us);
        // A segment that starts anew is not so much longer than the leader's that it breaks a promise.
        let earliest_us = |since_us: u64, end_us: u64| {
            since_us.saturating_sub(most_head_start_us).max(end_us.saturating_sub(limit_us))
        };
        loop {
            match (follower.queue.front(), cut_of(follower, cuts)) {
                (Some(Queued::Track(track)), _) if follower.starts_anew() || *follower.track() == **track => {
                    if let Some(Queued::Track(track)) = follower.queue.pop_front() {
                        follower.set_track(*track);
                    }
                }
                // A new configuration needs a break of all renditions. It is the leader's last cut where that is not yet
                // listed; where the leader has gone on further, what the follower had is drawn out until there is one.
                (Some(Queued::Track(_)), Some(cut)) => {
                    if !cut.is_break && cut.number + 1 == leader.number {
                        self.break_at_last_cut();
                        return self.follow(position, haste);
                    }
                    let end = follower.ticks(cut.at_us);
                    end_follower(follower, cut, Some(end), outputs);
                }
                (Some(Queued::Track(_)), None) => {
                    let end_us = follower.nominal_end().map_or(0, |end| follower.micros(end));
                    let at_us = end_us.saturating_add_signed(-delay_us);
                    if !breaks.contains(&at_us) {
                        breaks.insert(breaks.partition_point(|other| *other < at_us), at_us);
                    }
                    return;
                }
                (Some(Queued::Sample(sample)), Some(cut)) => {
                    let middle_us = follower.micros(sample.decode_time + u64::from(sample.duration / 2));
                    if follower.starts_anew() && middle_us < earliest_us(cut.since_us, cut.at_us) {
                        follower.queue.pop_front();
                        self.dropped_late += 1;
                        continue;
                    }
                    if middle_us < cut.at_us {
                        take(follower, outputs, &mut self.dropped_late);
                        continue;
                    }
                    // A hole is cut where the leader was cut.
                    let cut_at = follower.ticks(cut.at_us);
                    let is_near = sample.decode_time <= cut_at + u64::from(sample.duration);
                    let end = if is_near { sample.decode_time } else { cut_at };
                    end_follower(follower, cut, Some(end), outputs);
                }
                (Some(Queued::Sample(sample)), None) => {
                    let time_us = follower.micros(sample.decode_time);
                    let is_behind = time_us < self.horizon_us && !leader.starts_anew();
                    if haste == Haste::Wait && !is_behind {
                        return;
                    }
                    if follower.starts_anew() && time_us < earliest_us(leader_since_us(), leader_end_us()) {
                        follower.queue.pop_front();
                        self.dropped_late += 1;
                        continue;
                    }
                    take(follower, outputs, &mut self.dropped_late);
                }
                (None, Some(cut)) => {
                    let is_given_up = self.front_us > cut.at_us + patience_us;
                    if haste == Haste::Wait && !is_given_up {
                        return;
                    }
                    if haste == Haste::Finish {
                        return;
                    }
                    let end = follower.ticks(cut.at_us);
                    end_follower(follower, cut, Some(end), outputs);
                }
                (None, None) => return,
            }
        }
    }

    /// Makes the leader's last cut a break: the segments behind it are still open in all renditions.
    fn break_at_last_cut(&mut self) {
        let Some(cut) = self.cuts.back_mut() else { return };
        cut.is_break = true;
        let number = cut.number + 1;
        self.renditions.iter_mut().filter(|rendition| rendition.number == number).for_each(Rendition::mark_break);
    }
}

/// Moves the follower's first queued sample into its open segment.
fn take(follower: &mut Rendition, outputs: &mut VecDeque<Output>, dropped_late: &mut u64) {
    let Some(Queued::Sample(sample)) = follower.queue.pop_front() else { return };
    if follower.is_late(&sample) {
        *dropped_late += 1;
    } else {
        follower.push(sample, outputs);
    }
}

/// Ends the follower's open segment at a cut of the leader.
fn end_follower(follower: &mut Rendition, cut: Cut, end: Option<u64>, outputs: &mut VecDeque<Output>) {
    // A gap behind a break is as long as the leader's segment.
    follower.start_at(cut.since_us);
    let end = if cut.is_break && !follower.is_empty() { None } else { end.or_else(|| Some(follower.ticks(cut.at_us))) };
    follower.close(end, outputs);
    if cut.is_break {
        follower.break_off(follower.ticks(cut.at_us));
    }
}
