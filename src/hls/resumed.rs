//! What a former process left of a broadcast, read from its folder: enough to go on with it.
//!
//! The folder may hold anything, and a process can be killed between any two writes. So a segment may be there that no
//! playlist lists yet, one rendition's playlist may be a segment ahead of the others', and what a power cut took from a
//! file leaves it empty.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::action::BroadcastId;
use crate::isobmff;
use crate::media::{Timescale, Track, TrackId};

use super::date_range;
use super::object::Object;
use super::reread::{self, Foreign, Reread};

/// How many segments beyond the last listed one are believed to be ours: those of playlists that could not be written.
const MOST_UNLISTED: u64 = 64;

/// What a segment's start says beyond this is not believed, in microseconds: some thirty years.
const LATEST_END_US: u64 = 1_000_000_000_000_000;

/// The most renditions that are believed.
const MOST_RENDITIONS: usize = 32;

/// A broadcast's folder was read.
#[derive(Debug)]
pub enum Found {
    /// No playlist was ever written: nobody has seen it.
    Nothing,
    /// There are playlists.
    Broadcast(Resumed),
}

/// The state of a broadcast that a former process left.
#[derive(Debug)]
pub struct Resumed {
    pub(super) broadcast: BroadcastId,
    pub(super) target_duration_s: u64,
    pub(super) renditions: Vec<Rendition>,
    /// Its playlists have ended: nothing may be added.
    is_ended: bool,
    next_segment: u64,
    next_header: u32,
}

/// What was left of a rendition.
#[derive(Debug)]
pub(super) struct Rendition {
    pub(super) id: TrackId,
    pub(super) playlist: Reread,
    /// The sizes of the segments' files in bytes, those of `playlist` first to last; 0 for one that is not there.
    pub(super) sizes: Vec<u64>,
    /// The headers that are there, oldest first.
    pub(super) headers: Vec<Header>,
    /// Segments that are there and left the playlist.
    pub(super) removed: Vec<u64>,
    /// Segments that are there and were never listed.
    pub(super) unlisted: Vec<u64>,
    /// Where the last listed segment ends on the output timeline, in microseconds.
    end_us: u64,
}

/// A CMAF header that is there.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) number: u32,
    pub(super) body: Bytes,
    timescale: Timescale,
    /// Unless the codec is one that a header does not tell all of.
    pub(super) track: Option<Track>,
}

/// Why a broadcast cannot be gone on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// A playlist that we did not write, or cannot be read.
    Playlist(TrackId, Option<Foreign>),
    /// No header of a rendition can be read.
    Header(TrackId),
    /// The playlists contradict each other, or there are too many.
    Inconsistent,
    /// There are files whose numbers lie far beyond what is listed.
    Beyond(Object),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Playlist(track, Some(foreign)) => write!(f, "{}: {foreign}", Object::Playlist(*track)),
            Self::Playlist(track, None) => write!(f, "{} cannot be read", Object::Playlist(*track)),
            Self::Header(track) => write!(f, "no header of the {track} rendition can be read"),
            Self::Inconsistent => f.write_str("the playlists contradict each other"),
            Self::Beyond(object) => write!(f, "{object} is far beyond what the playlist lists"),
        }
    }
}

impl std::error::Error for Unreadable {}

impl Resumed {
    /// Reads a broadcast's folder: its `files` with their sizes in bytes, and how to `load` one of them (of a segment,
    /// the beginning).
    ///
    /// # Errors
    /// It is not as we would have left it.
    pub fn read(
        broadcast: BroadcastId,
        files: &[(Object, u64)],
        mut load: impl FnMut(Object) -> Option<Bytes>,
    ) -> Result<Found, Unreadable> {
        let mut renditions = Vec::new();
        for (object, _) in files {
            if let Object::Playlist(track) = *object {
                let text = load(*object).ok_or(Unreadable::Playlist(track, None))?;
                let playlist =
                    reread::read(&text, track).map_err(|foreign| Unreadable::Playlist(track, Some(foreign)))?;
                renditions.push(Rendition::read(track, playlist, files, &mut load)?);
            }
        }
        let Some(first) = renditions.first() else { return Ok(Found::Nothing) };
        let target_duration_s = first.playlist.target_duration_s;
        if renditions.len() > MOST_RENDITIONS
            || renditions.iter().any(|rendition| rendition.playlist.target_duration_s != target_duration_s)
        {
            return Err(Unreadable::Inconsistent);
        }
        let end = renditions.iter().map(Rendition::end).max().unwrap_or(0);
        let (mut next_segment, mut next_header) = (end, 0);
        for (object, _) in files {
            match *object {
                Object::Segment(_, number) if number >= end + MOST_UNLISTED => {
                    return Err(Unreadable::Beyond(*object));
                }
                Object::Segment(_, number) => next_segment = next_segment.max(number + 1),
                Object::Header(_, number) => {
                    next_header = next_header.max(number.checked_add(1).ok_or(Unreadable::Beyond(*object))?);
                }
                Object::Playlist(_) => {}
            }
        }
        let is_ended = renditions.iter().all(|rendition| rendition.playlist.is_ended);
        Ok(Found::Broadcast(Self { broadcast, target_duration_s, renditions, is_ended, next_segment, next_header }))
    }

    /// Which one it is.
    pub fn broadcast(&self) -> BroadcastId {
        self.broadcast
    }

    /// How long viewers who hold its playlists may ask for what these list (RFC 8216bis 6.2.2).
    pub fn lifetime(&self) -> Duration {
        let listed_us = |rendition: &Rendition| rendition.playlist.entries.iter().map(|entry| entry.duration_us).sum();
        let longest_us = self.renditions.iter().map(listed_us).max().unwrap_or(0);
        Duration::from_micros(longest_us) + Duration::from_secs(self.target_duration_s)
    }

    /// Its playlists have ended, all of them.
    pub fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Some playlist has ended: nothing may be added to it any more.
    pub fn is_ending(&self) -> bool {
        self.renditions.iter().any(|rendition| rendition.playlist.is_ended)
    }

    /// Something is left to be deleted, or to be said.
    pub fn is_unfinished(&self) -> bool {
        !self.is_ended || self.renditions.iter().any(|rendition| !rendition.removed.is_empty())
    }

    /// `EXT-X-TARGETDURATION` in seconds.
    pub fn target_duration_s(&self) -> u64 {
        self.target_duration_s
    }

    /// The tracks of its renditions as they were last described, as far as that can be told, each with the number of the
    /// header that its last listed segment needs.
    pub fn tracks(&self) -> impl Iterator<Item = (Track, u32)> {
        self.renditions.iter().filter_map(|rendition| {
            let last = rendition.playlist.entries.last()?;
            Some((rendition.headers.last()?.track.clone()?, last.header))
        })
    }

    /// The number of the next segment, which no file of any rendition ever had.
    pub fn next_segment(&self) -> u64 {
        self.next_segment
    }

    /// The number of the next header of any track, which no file ever had.
    pub fn next_header(&self) -> u32 {
        self.next_header
    }

    /// Where the output timeline ends, in microseconds: behind the gaps for what was not listed.
    pub fn end_us(&self) -> u64 {
        let listed = self.listed_anywhere();
        let end_us = |rendition: &Rendition| {
            let last_us = rendition.playlist.entries.last().map_or(0, |last| last.duration_us);
            let missing = rendition.end()..self.next_segment;
            rendition.end_us
                + missing
                    .map(|number| listed.get(&number).map_or(last_us, |(duration_us, _)| *duration_us))
                    .sum::<u64>()
        };
        self.renditions.iter().map(end_us).max().unwrap_or(0)
    }

    /// Discontinuities of the broadcast so far.
    pub fn discontinuities(&self) -> u64 {
        self.renditions.iter().map(Rendition::discontinuities).max().unwrap_or(0)
    }

    /// Cue points and splices: those of the playlist that has the most, as one may have been written before the others.
    pub(super) fn date_ranges(&self) -> Vec<date_range::Line> {
        let playlists = self.renditions.iter().map(|rendition| &rendition.playlist.date_ranges);
        playlists.max_by_key(|lines| lines.len()).cloned().unwrap_or_default()
    }

    /// By number, what some rendition lists and another may lack, as its duration in microseconds and whether it is
    /// behind a discontinuity.
    pub(super) fn listed_anywhere(&self) -> BTreeMap<u64, (u64, bool)> {
        let mut listed = BTreeMap::new();
        for rendition in &self.renditions {
            for (number, entry) in (rendition.playlist.media_sequence..).zip(&rendition.playlist.entries) {
                listed.entry(number).or_insert((entry.duration_us, entry.is_discontinuous));
            }
        }
        listed
    }
}

impl Rendition {
    fn read(
        id: TrackId,
        playlist: Reread,
        files: &[(Object, u64)],
        load: &mut impl FnMut(Object) -> Option<Bytes>,
    ) -> Result<Self, Unreadable> {
        let sizes: BTreeMap<u64, u64> = files
            .iter()
            .filter_map(|(object, size)| match object {
                Object::Segment(track, number) if *track == id => Some((*number, *size)),
                _ => None,
            })
            .collect();
        let headers: Vec<Header> = files
            .iter()
            .filter_map(|(object, _)| match *object {
                Object::Header(track, number) if track == id => {
                    let body = load(*object)?;
                    let timescale = isobmff::read_timescale(&body)?;
                    Some(Header { number, timescale, track: isobmff::read_header(&body, id), body })
                }
                _ => None,
            })
            .collect();
        if headers.is_empty() {
            return Err(Unreadable::Header(id));
        }
        let first = playlist.media_sequence;
        let size = |number: u64| {
            let entry = &playlist.entries[usize::try_from(number - first).ok()?];
            // Without its header a segment cannot be played.
            let has_header = headers.iter().any(|header| header.number == entry.header);
            sizes.get(&number).copied().filter(|_| has_header)
        };
        let end = first + playlist.entries.len() as u64;
        let mut rendition = Self {
            sizes: (first..end).map(|number| size(number).unwrap_or(0)).collect(),
            removed: sizes.range(..first).map(|(number, _)| *number).collect(),
            unlisted: sizes.range(end..).map(|(number, _)| *number).collect(),
            end_us: 0,
            id,
            headers,
            playlist,
        };
        rendition.end_us = rendition.read_end(load).filter(|end_us| *end_us <= LATEST_END_US).unwrap_or(0);
        Ok(rendition)
    }

    /// The start of the last segment that is there, and how long it and the gaps behind it last.
    fn read_end(&self, load: &mut impl FnMut(Object) -> Option<Bytes>) -> Option<u64> {
        let position = self.sizes.iter().rposition(|size| *size > 0)?;
        let entries = &self.playlist.entries[position..];
        let segment = load(Object::Segment(self.id, self.playlist.media_sequence + position as u64))?;
        let header = self.headers.iter().find(|header| header.number == entries[0].header)?;
        let start_us = header.timescale.micros(isobmff::read_decode_time(&segment)?);
        start_us.checked_add(entries.iter().map(|entry| entry.duration_us).sum())
    }

    /// The number behind its last listed segment.
    fn end(&self) -> u64 {
        self.playlist.media_sequence + self.playlist.entries.len() as u64
    }

    /// Discontinuities of the broadcast up to its last listed segment.
    fn discontinuities(&self) -> u64 {
        let listed = self.playlist.entries.iter().filter(|entry| entry.is_discontinuous).count() as u64;
        self.playlist.discontinuity_sequence + listed
    }
}
