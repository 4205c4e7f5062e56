//! Segments that left their playlists and stay for those who hold an older one (RFC 8216bis 6.2.2).

use std::collections::VecDeque;
use std::time::Duration;

use crate::media::TrackId;

use super::media_playlist::Removed;

/// The most segments of a rendition that stay behind its playlist. In real time there are hardly more than a playlist lists;
/// media that comes much faster would fill the disk, and nobody watches it at that pace.
const MOST_PER_RENDITION: usize = 1_024;

/// What left the playlists of a broadcast, in the order in which it may be deleted.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    departed: VecDeque<Departed>,
    /// Since when playlists cannot be put: what has left them since is not deleted.
    outage_since: Option<Duration>,
}

/// A segment that left its playlist.
#[derive(Debug)]
pub(super) struct Departed {
    pub(super) track: TrackId,
    pub(super) number: u64,
    /// The header that it needs.
    header: u32,
    /// There may be a file.
    pub(super) may_exist: bool,
    /// When it left its playlist, on the monotonic clock.
    left_at: Duration,
    /// When nobody may ask for it any more.
    due: Duration,
}

impl Departed {
    /// Whether viewers could see that it has left its playlist, though there is an outage.
    fn has_been_seen(&self, outage_since: Option<Duration>) -> bool {
        outage_since.is_none_or(|since| self.left_at < since)
    }
}

impl Leaving {
    /// Takes what has just left a playlist.
    pub(super) fn add(&mut self, track: TrackId, removed: Vec<Removed>, now: Duration) {
        self.departed.extend(removed.into_iter().map(|Removed { segment, keep_for }| Departed {
            track,
            number: segment.number,
            header: segment.header,
            // A gap may be a file that was there but not yet listed, or could not be written whole.
            may_exist: !segment.is_gap || segment.bytes > 0,
            left_at: now,
            due: now + keep_for,
        }));
    }

    /// Takes what left a playlist of a former process.
    pub(super) fn resume(&mut self, track: TrackId, numbers: &[u64], now: Duration, keep_for: Duration) {
        self.departed.extend(numbers.iter().map(|number| Departed {
            track,
            number: *number,
            // Which one it was is not known: all are kept as long.
            header: 0,
            may_exist: true,
            left_at: now,
            due: now + keep_for,
        }));
        self.departed.make_contiguous().sort_by_key(|departed| departed.due);
    }

    /// The next segment whose time is over, or that is one too many for so many renditions.
    pub(super) fn next(&mut self, now: Duration, renditions: usize) -> Option<Departed> {
        let is_full = self.departed.len() > MOST_PER_RENDITION * renditions.max(1);
        let outage_since = self.outage_since;
        self.departed.pop_front_if(|departed| is_full || departed.due <= now && departed.has_been_seen(outage_since))
    }

    /// When the next segment may be deleted, on the monotonic clock.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let next = self.departed.front().filter(|departed| departed.has_been_seen(self.outage_since));
        next.map(|departed| departed.due)
    }

    /// Playlists could not be put since `since`, or all are. Viewers have seen that late what left them meanwhile.
    pub(super) fn handle_outage(&mut self, since: Option<Duration>, now: Duration) {
        match (self.outage_since, since) {
            (None, Some(_)) => self.outage_since = since,
            (Some(began), None) => {
                self.outage_since = None;
                let late = now.saturating_sub(began);
                let unseen = self.departed.iter_mut().filter(|departed| !departed.has_been_seen(Some(began)));
                unseen.for_each(|departed| departed.due += late);
            }
            _ => {}
        }
    }

    /// The oldest header that a segment of the track still needs.
    pub(super) fn oldest_header(&self, track: TrackId) -> Option<u32> {
        self.departed.iter().find(|departed| departed.track == track).map(|departed| departed.header)
    }
}
