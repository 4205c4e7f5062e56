//! One rendition's media playlist: a rolling window of segments and what becomes of those that leave it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::cmaf::Segment;

use super::object::Object;
use super::render::{self, Entry, Head};

/// How much of a broadcast its playlists list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// The last segments, by their number.
    Segments(usize),
    /// The last segments that together last this long.
    Lasting(Duration),
}

/// RFC 8216bis 6.2.2: a live playlist never lasts less than this many target durations once it did.
const LEAST_TARGET_DURATIONS: u64 = 3;

/// A segment that left the playlist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Removed {
    pub(super) segment: Segment,
    /// How long viewers who hold an old playlist may still ask for it (RFC 8216bis 6.2.2).
    pub(super) keep_for: Duration,
}

/// A media playlist.
#[derive(Debug)]
pub(super) struct MediaPlaylist {
    window: Window,
    target_duration_s: u64,
    listed: VecDeque<Listed>,
    are_segments_independent: bool,
    duration_us: u64,
    longest_us: u64,
    /// The number behind the last segment that left.
    gone_before: u64,
    /// How many of the listed segments viewers know: those that may leave.
    known: usize,
    is_ended: bool,
}

#[derive(Debug)]
struct Listed {
    segment: Segment,
    program_date_time_us: u64,
    lines: Bytes,
    /// The `EXT-X-MAP` line to put before it when it is the first of the playlist, if `lines` has none.
    map: Option<Bytes>,
}

impl MediaPlaylist {
    pub(super) fn new(window: Window, target_duration_s: u64) -> Self {
        Self {
            window,
            target_duration_s,
            listed: VecDeque::new(),
            are_segments_independent: true,
            duration_us: 0,
            longest_us: 0,
            gone_before: 0,
            known: 0,
            is_ended: false,
        }
    }

    /// A playlist that a former process wrote, without `EXT-X-ENDLIST`. All `segments` are listed; those before number
    /// `gone_before` have left.
    pub(super) fn resume(
        window: Window,
        target_duration_s: u64,
        are_segments_independent: bool,
        gone_before: u64,
        segments: impl IntoIterator<Item = (Segment, u64)>,
    ) -> Self {
        let mut playlist = Self { are_segments_independent, gone_before, ..Self::new(window, target_duration_s) };
        for (segment, program_date_time_us) in segments {
            playlist.push(segment, program_date_time_us);
        }
        playlist.known = playlist.listed.len();
        playlist.are_segments_independent &= are_segments_independent;
        playlist
    }

    /// Lists the next segment.
    pub(super) fn push(&mut self, segment: Segment, program_date_time_us: u64) {
        let has_map = self.listed.back().is_none_or(|last| last.segment.header != segment.header)
            // After a discontinuity it is said again, though it need not be: some players forget it there.
            || segment.is_discontinuous;
        self.are_segments_independent &= segment.is_independent || segment.is_gap;
        self.duration_us += segment.duration_us;
        self.longest_us = self.longest_us.max(self.duration_us);
        self.listed.push_back(Listed::new(segment, program_date_time_us, has_map));
    }

    /// It is to be put: says what leaves, which is nothing that was not put before. Each segment is listed once at least.
    pub(super) fn roll(&mut self) -> Vec<Removed> {
        let mut removed = Vec::new();
        while self.known > 0 && self.is_first_to_go() {
            removed.extend(self.remove_first());
        }
        self.known = self.listed.len();
        removed
    }

    /// Before the segment `next` is listed after a restart: what others list of the time before (`listed`: by number, its
    /// duration in microseconds and whether it is behind a discontinuity), or was written and never listed, is a gap here.
    pub(super) fn catch_up(&mut self, unlisted: &[u64], listed: &BTreeMap<u64, (u64, bool)>, next: &Segment) {
        while let Some(last) = self.last().filter(|last| last.number + 1 < next.number) {
            let number = last.number + 1;
            let (duration_us, is_discontinuous) = listed.get(&number).copied().unwrap_or((last.duration_us, false));
            let missing = Segment {
                number,
                duration_us,
                is_discontinuous,
                discontinuities: last.discontinuities + u64::from(is_discontinuous),
                is_gap: true,
                // A file that is there is to be deleted in time.
                bytes: u64::from(unlisted.contains(&number)),
                samples: 0,
                ..*last
            };
            self.push(missing, self.end_date_time_us());
        }
    }

    /// The files of the segments that `is_lost` picks are not there: they are gaps. Says whether any was listed.
    pub(super) fn mark_gaps(&mut self, is_lost: impl Fn(&Segment) -> bool) -> bool {
        let mut has_changed = false;
        for listed in &mut self.listed {
            if !listed.segment.is_gap && is_lost(&listed.segment) {
                let segment = Segment { is_gap: true, ..listed.segment };
                *listed = Listed::new(segment, listed.program_date_time_us, listed.map.is_none());
                has_changed = true;
            }
        }
        has_changed
    }

    /// The number behind the last segment that left; 0 while none has.
    pub(super) fn gone_before(&self) -> u64 {
        self.gone_before
    }

    /// Nothing will be added. From another rendition what lies before segment `number` has left, and so it does from this
    /// one, if it has anything from there on; says what leaves.
    pub(super) fn end(&mut self, number: u64) -> Vec<Removed> {
        self.is_ended = true;
        let mut removed = Vec::new();
        if self.listed.back().is_some_and(|last| last.segment.number >= number) {
            while self.first().is_some_and(|first| first.number < number) {
                removed.extend(self.remove_first());
            }
        }
        removed
    }

    fn remove_first(&mut self) -> Option<Removed> {
        let first = self.listed.pop_front()?.segment;
        self.duration_us -= first.duration_us;
        self.gone_before = first.number + 1;
        self.known = self.known.saturating_sub(1);
        // RFC 8216bis 6.2.2: its duration and that of the longest playlist that held it.
        Some(Removed { segment: first, keep_for: Duration::from_micros(first.duration_us + self.longest_us) })
    }

    /// The longest that it ever lasted, and a target duration.
    pub(super) fn lifetime(&self) -> Duration {
        Duration::from_micros(self.longest_us) + Duration::from_secs(self.target_duration_s)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// It lists what viewers do not know yet.
    pub(super) fn has_news(&self) -> bool {
        self.known < self.listed.len()
    }

    /// Viewers do not know half of what is listed.
    pub(super) fn is_mostly_news(&self) -> bool {
        2 * self.known <= self.listed.len()
    }

    /// The oldest segment that is listed.
    pub(super) fn first(&self) -> Option<&Segment> {
        self.listed.front().map(|listed| &listed.segment)
    }

    /// The newest segment that is listed.
    pub(super) fn last(&self) -> Option<&Segment> {
        self.listed.back().map(|listed| &listed.segment)
    }

    /// When what comes behind the newest segment was received if nothing is lost between, in microseconds since 1970.
    pub(super) fn end_date_time_us(&self) -> u64 {
        self.listed.back().map_or(0, |last| last.program_date_time_us.saturating_add(last.segment.duration_us))
    }

    /// How long the listed segments last, in microseconds.
    pub(super) fn duration_us(&self) -> u64 {
        self.duration_us
    }

    /// When the oldest segment was received, in microseconds since 1970.
    pub(super) fn start_date_time_us(&self) -> Option<u64> {
        self.listed.front().map(|first| first.program_date_time_us)
    }

    /// The playlist's text, in pieces; `date_ranges` stand before the segments.
    pub(super) fn render(&self, date_ranges: impl Iterator<Item = Bytes>) -> Vec<Bytes> {
        let mut body = Vec::with_capacity(self.listed.len() + 3);
        body.push(render::head(Head {
            target_duration_s: self.target_duration_s,
            media_sequence: self.first().map_or(0, |first| first.number),
            discontinuity_sequence: self.discontinuity_sequence(),
            are_segments_independent: self.are_segments_independent,
        }));
        body.extend(date_ranges);
        body.extend(self.listed.front().and_then(|first| first.map.clone()));
        body.extend(self.listed.iter().map(|listed| listed.lines.clone()));
        if self.is_ended {
            body.push(render::ENDLIST);
        }
        body
    }

    /// Discontinuities that left with their segments (RFC 8216bis 6.2.2), once there ever was one.
    fn discontinuity_sequence(&self) -> Option<u64> {
        let (first, last) = (&self.listed.front()?.segment, &self.listed.back()?.segment);
        (last.discontinuities > 0).then(|| first.discontinuities - u64::from(first.is_discontinuous))
    }

    fn is_first_to_go(&self) -> bool {
        let Some(first) = self.listed.front() else { return false };
        let rest_us = self.duration_us - first.segment.duration_us;
        let is_beyond_window = match self.window {
            Window::Segments(most) => self.listed.len() > most,
            Window::Lasting(most) => Duration::from_micros(rest_us) >= most,
        };
        is_beyond_window && rest_us >= LEAST_TARGET_DURATIONS * self.target_duration_s * 1_000_000
    }
}

impl Listed {
    fn new(segment: Segment, program_date_time_us: u64, has_map: bool) -> Self {
        let header = Object::Header(segment.track, segment.header);
        let lines = render::entry(Entry {
            segment: Object::Segment(segment.track, segment.number),
            duration_us: segment.duration_us,
            program_date_time_us,
            is_discontinuous: segment.is_discontinuous,
            is_gap: segment.is_gap,
            header: has_map.then_some(header),
        });
        let map = (!has_map).then(|| render::map(header));
        Self { segment, program_date_time_us, lines, map }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::TrackId;

    fn segment(number: u64) -> Segment {
        Segment {
            track: TrackId::VIDEO,
            number,
            header: 0,
            start_us: number * 2_000_000,
            duration_us: 2_000_000,
            bytes: 1000,
            samples: 60,
            usual_sample_us: 33_333,
            is_discontinuous: false,
            discontinuities: 0,
            is_independent: true,
            is_gap: false,
        }
    }

    /// Says what leaves when it is put then.
    fn push(playlist: &mut MediaPlaylist, segment: Segment) -> Vec<u64> {
        playlist.push(segment, 1_763_834_098_000_000 + segment.start_us);
        playlist.roll().iter().map(|removed| removed.segment.number).collect()
    }

    fn text(playlist: &MediaPlaylist) -> String {
        String::from_utf8(playlist.render(std::iter::empty()).concat()).unwrap()
    }

    #[test]
    fn a_playlist_reads_as_it_should() {
        let mut playlist = MediaPlaylist::new(Window::Segments(3), 2);
        for number in 0..2 {
            push(&mut playlist, segment(number));
        }
        push(&mut playlist, Segment { header: 1, is_discontinuous: true, discontinuities: 1, ..segment(2) });
        push(&mut playlist, Segment { header: 1, is_gap: true, discontinuities: 1, ..segment(3) });
        assert_eq!(
            text(&playlist),
            "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:1\n\
             #EXT-X-DISCONTINUITY-SEQUENCE:0\n#EXT-X-INDEPENDENT-SEGMENTS\n\
             #EXT-X-MAP:URI=\"video-init-0.mp4\"\n\
             #EXT-X-PROGRAM-DATE-TIME:2025-11-22T17:55:00.000Z\n#EXTINF:2.000000,\nvideo-1.mp4\n\
             #EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"video-init-1.mp4\"\n\
             #EXT-X-PROGRAM-DATE-TIME:2025-11-22T17:55:02.000Z\n#EXTINF:2.000000,\nvideo-2.mp4\n\
             #EXT-X-PROGRAM-DATE-TIME:2025-11-22T17:55:04.000Z\n#EXT-X-GAP\n#EXTINF:2.000000,\nvideo-3.mp4\n"
        );
        push(&mut playlist, Segment { discontinuities: 1, ..segment(4) });
        push(&mut playlist, Segment { is_independent: false, discontinuities: 1, ..segment(5) });
        assert!(playlist.end(0).is_empty());
        let text = text(&playlist);
        assert!(text.contains("#EXT-X-MEDIA-SEQUENCE:3\n#EXT-X-DISCONTINUITY-SEQUENCE:1\n#EXT-X-MAP"), "{text}");
        assert!(text.ends_with("video-5.mp4\n#EXT-X-ENDLIST\n"), "{text}");
    }

    #[test]
    fn a_segment_whose_file_was_lost_becomes_a_gap() {
        let mut playlist = MediaPlaylist::new(Window::Segments(3), 2);
        for number in 0..3 {
            push(&mut playlist, segment(number));
        }
        assert!(playlist.mark_gaps(|segment| segment.number == 1));
        assert!(!playlist.mark_gaps(|segment| segment.number == 1), "it is one already");
        let text = text(&playlist);
        assert!(text.contains("#EXT-X-GAP\n#EXTINF:2.000000,\nvideo-1.mp4\n"), "{text}");
        assert_eq!(text.matches("#EXT-X-GAP").count(), 1);
    }

    #[test]
    fn the_window_never_shrinks_below_three_target_durations() {
        let mut playlist = MediaPlaylist::new(Window::Segments(1), 2);
        let removed: Vec<Vec<u64>> = (0..6).map(|number| push(&mut playlist, segment(number))).collect();
        assert_eq!(removed, [vec![], vec![], vec![], vec![0], vec![1], vec![2]]);
    }

    #[test]
    fn what_was_never_put_does_not_leave() {
        let mut playlist = MediaPlaylist::new(Window::Segments(4), 2);
        let rolled = |playlist: &mut MediaPlaylist| playlist.roll().len();
        (0..10).for_each(|number| playlist.push(segment(number), 0));
        assert_eq!(rolled(&mut playlist), 0);
        (10..30).for_each(|number| playlist.push(segment(number), 0));
        assert_eq!(rolled(&mut playlist), 10, "all that was put");
        playlist.push(segment(30), 0);
        assert_eq!(rolled(&mut playlist), 17);
        assert_eq!(playlist.first().map(|first| first.number), Some(27));
    }

    #[test]
    fn a_removed_segment_stays_for_its_duration_and_the_longest_playlist() {
        let mut playlist = MediaPlaylist::new(Window::Lasting(Duration::from_secs(8)), 2);
        for number in 0..4 {
            assert!(push(&mut playlist, segment(number)).is_empty());
        }
        playlist.push(segment(4), 0);
        let removed = playlist.roll();
        assert_eq!(removed[0].keep_for, Duration::from_secs(2 + 10));
    }
}
