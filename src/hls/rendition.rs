//! One rendition of a broadcast: its playlist and its headers.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::action::Key;
use crate::cmaf::Segment;
use crate::codec::{Captions, Configuration};
use crate::media::TrackId;

use super::media_playlist::{MediaPlaylist, Window};
use super::multivariant::{Measured, Said};
use super::resumed;

/// How long after a media playlist was put it is put again at the soonest. Live segments are farther apart; of media that
/// comes faster than it plays, many segments are listed at once.
const LISTING_PAUSE: Duration = Duration::from_millis(50);

/// A track's segments, as viewers find them.
#[derive(Debug)]
pub(super) struct Rendition {
    pub(super) track: TrackId,
    /// Known with its first header, or after a restart with the next.
    pub(super) configuration: Option<Configuration>,
    pub(super) captions: Captions,
    pub(super) playlist: Option<MediaPlaylist>,
    /// When it was put, on the monotonic clock; not known after a restart.
    pub(super) put_at: Option<Duration>,
    pub(super) measured: Measured,
    /// Headers that were put and not deleted, oldest first.
    pub(super) headers: VecDeque<PutHeader>,
    /// What was ever listed, in microseconds.
    pub(super) listed_us: u64,
    /// After a restart: segments that are there and were never listed.
    pub(super) unlisted: Vec<u64>,
    /// The segment that was written to last.
    pub(super) open: Option<(u64, Key)>,
}

/// A header that viewers find.
#[derive(Debug)]
pub(super) struct PutHeader {
    pub(super) number: u32,
    /// RFC 6381; not known of some headers of a former process.
    pub(super) codec: Option<String>,
    pub(super) body: Bytes,
}

impl Rendition {
    /// A rendition that has nothing to list yet.
    pub(super) fn new(track: TrackId, configuration: Option<Configuration>) -> Self {
        Self {
            track,
            configuration,
            captions: Captions::default(),
            playlist: None,
            put_at: None,
            measured: Measured::default(),
            headers: VecDeque::new(),
            listed_us: 0,
            unlisted: Vec::new(),
            open: None,
        }
    }

    /// A rendition that a former process left.
    pub(super) fn resume(found: &resumed::Rendition, window: Window, target_duration_s: u64, gone_before: u64) -> Self {
        let resumed::Rendition { id, playlist, sizes, headers, unlisted, .. } = found;
        let track = *id;
        let mut discontinuities = playlist.discontinuity_sequence;
        let mut measured = Measured::default();
        let numbered = (playlist.media_sequence..).zip(&playlist.entries).zip(sizes);
        let segments = numbered.map(|((number, entry), size)| {
            discontinuities += u64::from(entry.is_discontinuous);
            let segment = Segment {
                track,
                number,
                header: entry.header,
                start_us: 0,
                duration_us: entry.duration_us,
                bytes: *size,
                samples: 0,
                usual_sample_us: 0,
                is_discontinuous: entry.is_discontinuous,
                discontinuities,
                // The playlist says it of all.
                is_independent: true,
                is_gap: entry.is_gap || *size == 0,
            };
            measured.add_listed(&segment, target_duration_s);
            (segment, entry.program_date_time_us)
        });
        let playlist =
            MediaPlaylist::resume(window, target_duration_s, playlist.are_segments_independent, gone_before, segments);
        let headers = headers
            .iter()
            .map(|header| PutHeader {
                number: header.number,
                codec: header.track.as_ref().map(|track| track.configuration.rfc6381()),
                body: header.body.clone(),
            })
            .collect();
        Self {
            listed_us: playlist.duration_us(),
            playlist: Some(playlist),
            measured,
            headers,
            unlisted: unlisted.clone(),
            ..Self::new(track, None)
        }
    }

    /// What the multivariant playlist says of it.
    pub(super) fn said(&self) -> Said {
        let Self { track, captions, ref headers, ref measured, .. } = *self;
        let headers = headers.front().zip(headers.back()).map(|(oldest, latest)| (oldest.number, latest.number));
        Said { track, headers, captions, rates: measured.rates() }
    }

    /// When the playlist is to be put again, on the monotonic clock: after the pause, or before it gets much longer.
    pub(super) fn lists_at(&self) -> Option<Duration> {
        let playlist = self.playlist.as_ref().filter(|playlist| playlist.has_news())?;
        let put_at = self.put_at.filter(|_| !playlist.is_mostly_news());
        Some(put_at.map_or(Duration::ZERO, |at| at + LISTING_PAUSE))
    }

    /// The codecs of all headers that the playlist may name, the latest first (Apple 9.1).
    pub(super) fn codecs(&self) -> Vec<String> {
        let mut codecs: Vec<String> = Vec::new();
        for codec in self.headers.iter().rev().filter_map(|header| header.codec.as_ref()) {
            if !codecs.contains(codec) {
                codecs.push(codec.clone());
            }
        }
        codecs
    }
}
