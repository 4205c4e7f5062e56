//! All renditions of one broadcast: segments in, actions out.
//!
//! The order of the actions is the promise: a header and a segment are put before the playlist that lists them, a media
//! playlist before the multivariant playlist that names it, and a segment is deleted only when no viewer may ask for it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::action::{Action, BroadcastId, Key, ObjectKind, StreamName};
use crate::cmaf::{Chunk, Header, Segment};
use crate::codec::Configuration;
use crate::media::{Epoch, TrackId};

use super::media_playlist::{MediaPlaylist, Removed, Window};
use super::multivariant::{Choice, Measured, Multivariant};

/// How much of the leading rendition is listed before the multivariant playlist goes out without a rendition that was
/// announced and has nothing to list yet, in microseconds.
const ABSENT_RENDITION_WAIT_US: u64 = 8_000_000;

/// The playlists of a broadcast.
#[derive(Debug)]
pub struct Presentation {
    name: StreamName,
    broadcast: BroadcastId,
    window: Window,
    renditions: Vec<Rendition>,
    epochs: VecDeque<Epoch>,
    multivariant: Option<Multivariant>,
    /// What left a playlist, in the order in which it may be deleted.
    leaving: VecDeque<Leaving>,
    is_ended: bool,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
struct Rendition {
    track: TrackId,
    configuration: Configuration,
    playlist: Option<MediaPlaylist>,
    measured: Measured,
    /// Headers that were put and not deleted, oldest first.
    headers: VecDeque<PutHeader>,
    /// What was ever listed, in microseconds.
    listed_us: u64,
}

#[derive(Debug)]
struct PutHeader {
    number: u32,
    /// RFC 6381.
    codec: String,
}

#[derive(Debug)]
struct Leaving {
    track: TrackId,
    segment: Segment,
    /// On the monotonic clock.
    due: Duration,
}

impl Rendition {
    /// The codecs of all headers that the playlist may name, the latest first (Apple 9.1).
    fn codecs(&self) -> Vec<String> {
        let mut codecs: Vec<String> = Vec::new();
        for header in self.headers.iter().rev() {
            if !codecs.contains(&header.codec) {
                codecs.push(header.codec.clone());
            }
        }
        codecs
    }
}

impl Presentation {
    /// The playlists of a broadcast of the stream `name`.
    pub fn new(name: StreamName, broadcast: BroadcastId, window: Window) -> Self {
        Self {
            name,
            broadcast,
            window,
            renditions: Vec::new(),
            epochs: VecDeque::new(),
            multivariant: None,
            leaving: VecDeque::new(),
            is_ended: false,
            actions: VecDeque::new(),
        }
    }

    /// A rendition will come.
    pub fn expect_rendition(&mut self, track: TrackId, configuration: &Configuration) {
        if !self.renditions.iter().any(|rendition| rendition.track == track) {
            self.renditions.push(Rendition {
                track,
                configuration: configuration.clone(),
                playlist: None,
                measured: Measured::default(),
                headers: VecDeque::new(),
                listed_us: 0,
            });
            self.renditions.sort_by_key(|rendition| rendition.track);
        }
    }

    /// The clock starts, or starts anew.
    pub fn handle_epoch(&mut self, epoch: Epoch) {
        self.epochs.push_back(epoch);
        // A lagging rendition may still be in the epoch before; none is in an older one.
        while self.epochs.len() > 3 {
            self.epochs.pop_front();
        }
    }

    /// A track's header, before the first chunk that needs it.
    pub fn handle_header(&mut self, header: Header) {
        let track = header.track.id;
        self.expect_rendition(track, &header.track.configuration);
        let key = self.key(format_args!("{track}-init-{}.mp4", header.number));
        if let Some(rendition) = self.renditions.iter_mut().find(|rendition| rendition.track == track) {
            let codec = header.track.configuration.rfc6381();
            rendition.headers.push_back(PutHeader { number: header.number, codec });
            rendition.configuration = header.track.configuration;
        }
        self.actions.push_back(Action::Put { key, kind: ObjectKind::Header, body: vec![header.body] });
    }

    /// More of a track's open segment.
    pub fn handle_chunk(&mut self, chunk: Chunk) {
        let key = self.key(format_args!("{}-{}.mp4", chunk.track, chunk.segment));
        self.actions.push_back(Action::Append { key, body: chunk.body });
    }

    /// A track's open segment is complete, or a gap.
    pub fn handle_segment(&mut self, segment: Segment, target_duration_s: u64, now: Duration) {
        let track = segment.track;
        let uri = format!("{track}-{}.mp4", segment.number);
        if !segment.is_gap {
            let key = self.key(format_args!("{uri}"));
            self.actions.push_back(Action::Put { key, kind: ObjectKind::Segment, body: Vec::new() });
        }
        let program_date_time_us = self.program_date_time_us(segment.start_us);
        let window = self.window;
        let Some(rendition) = self.renditions.iter_mut().find(|rendition| rendition.track == track) else { return };
        rendition.measured.add(&segment, target_duration_s);
        rendition.listed_us += segment.duration_us;
        let playlist = rendition.playlist.get_or_insert_with(|| MediaPlaylist::new(window, target_duration_s));
        let map_uri = format!("{track}-init-{}.mp4", segment.header);
        let removed = playlist.push(segment, &uri, &map_uri, program_date_time_us);
        let body = playlist.render();
        self.leave(track, removed, now);
        self.put_media_playlist(track, body);
        self.refresh_multivariant();
        self.handle_time(now);
    }

    /// Nothing will be added: all playlists say so, once. What has left one leaves all: a rendition that ended before the
    /// others has let go less, and Shaka Player does not come to the end of playlists that start apart.
    pub fn finish(&mut self, now: Duration) {
        if std::mem::replace(&mut self.is_ended, true) {
            return;
        }
        let playlists = self.renditions.iter().filter_map(|rendition| rendition.playlist.as_ref());
        let gone_before = playlists.map(MediaPlaylist::gone_before).max().unwrap_or(0);
        for position in 0..self.renditions.len() {
            let rendition = &mut self.renditions[position];
            let track = rendition.track;
            if let Some(playlist) = &mut rendition.playlist {
                let removed = playlist.end(gone_before);
                let body = playlist.render();
                self.leave(track, removed, now);
                self.put_media_playlist(track, body);
            }
        }
        self.refresh_multivariant();
    }

    /// Deletes what may be deleted by now.
    pub fn handle_time(&mut self, now: Duration) {
        while let Some(leaving) = self.leaving.pop_front_if(|leaving| leaving.due <= now) {
            let Leaving { track, segment, .. } = leaving;
            if !segment.is_gap {
                let key = self.key(format_args!("{track}-{}.mp4", segment.number));
                self.actions.push_back(Action::Delete { key });
            }
            self.delete_unused_headers(track);
        }
    }

    /// When the next object may be deleted, on the monotonic clock.
    pub fn deadline(&self) -> Option<Duration> {
        self.leaving.front().map(|leaving| leaving.due)
    }

    /// The next action; drain them after each input.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn key(&self, file: std::fmt::Arguments<'_>) -> Key {
        self.name.file(self.broadcast, file)
    }

    /// Remembers when what left a playlist may be deleted.
    fn leave(&mut self, track: TrackId, removed: Vec<Removed>, now: Duration) {
        let leaving = |Removed { segment, keep_for }| Leaving { track, segment, due: now + keep_for };
        self.leaving.extend(removed.into_iter().map(leaving));
    }

    fn put_media_playlist(&mut self, track: TrackId, body: Vec<Bytes>) {
        let key = self.key(format_args!("{track}.m3u8"));
        self.actions.push_back(Action::Put { key, kind: ObjectKind::Playlist, body });
    }

    /// Writes the multivariant playlist once every announced rendition has something to list, or was waited for long
    /// enough, and again when what it says has changed.
    fn refresh_multivariant(&mut self) {
        let is_listed =
            |rendition: &&Rendition| rendition.playlist.as_ref().is_some_and(|playlist| !playlist.is_empty());
        let is_complete = self.renditions.iter().all(|rendition| is_listed(&rendition));
        let may_yet_come =
            !self.is_ended && self.renditions.iter().all(|rendition| rendition.listed_us < ABSENT_RENDITION_WAIT_US);
        if !is_complete && self.multivariant.is_none() && may_yet_come {
            return;
        }
        let listed: Vec<(&Rendition, Vec<String>)> =
            self.renditions.iter().filter(is_listed).map(|rendition| (rendition, rendition.codecs())).collect();
        let choices: Vec<Choice<'_>> = listed
            .iter()
            .map(|(rendition, codecs)| Choice {
                kind: rendition.track.kind,
                index: rendition.track.index,
                uri: format!("{}/{}.m3u8", self.broadcast, rendition.track),
                configuration: &rendition.configuration,
                codecs,
                measured: &rendition.measured,
            })
            .collect();
        if choices.is_empty() {
            return;
        }
        let multivariant = Multivariant::new(&choices);
        if self.multivariant.as_ref().is_some_and(|written| written.still_holds(&multivariant)) {
            return;
        }
        let body = vec![multivariant.render()];
        self.actions.push_back(Action::Put { key: self.name.index(), kind: ObjectKind::Playlist, body });
        self.multivariant = Some(multivariant);
    }

    /// Deletes a track's headers that neither a listed nor a leaving segment needs.
    fn delete_unused_headers(&mut self, track: TrackId) {
        let needed =
            self.leaving.iter().find(|leaving| leaving.track == track).map(|leaving| leaving.segment.header).or_else(
                || {
                    let rendition = self.renditions.iter().find(|rendition| rendition.track == track)?;
                    rendition.playlist.as_ref()?.first().map(|first| first.header)
                },
            );
        let Some(needed) = needed else { return };
        loop {
            let Some(rendition) = self.renditions.iter_mut().find(|rendition| rendition.track == track) else { return };
            let Some(PutHeader { number, .. }) = rendition.headers.pop_front_if(|header| header.number < needed) else {
                return;
            };
            let key = self.key(format_args!("{track}-init-{number}.mp4"));
            self.actions.push_back(Action::Delete { key });
        }
    }

    /// When what is at `time_us` of the output timeline was received, in microseconds since 1970.
    fn program_date_time_us(&self, time_us: u64) -> u64 {
        let epoch = self.epochs.iter().rev().find(|epoch| epoch.start_us <= time_us).or_else(|| self.epochs.front());
        epoch.map_or(0, |epoch| (epoch.anchor_unix_us + time_us).saturating_sub(epoch.anchor_us))
    }
}
