//! All renditions of one broadcast: segments in, actions out.
//!
//! The order of the actions is the promise: a header and a segment are put before the playlist that lists them, a media
//! playlist before the multivariant playlist that names it, and a segment is deleted only when no viewer may ask for it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::action::{Action, BroadcastId, Key, ObjectKind, StreamName};
use crate::cmaf::{Chunk, Header, Segment};
use crate::codec::{Captions, Configuration};
use crate::media::{Epoch, Event, TrackId};

use super::date_range::DateRanges;
use super::leaving::{Departed, Leaving};
use super::media_playlist::{MediaPlaylist, Window};
use super::multivariant::{self, Choice, Multivariant, Said};
use super::object::Object;
use super::rendition::{PutHeader, Rendition};
use super::resumed::Resumed;

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
    date_ranges: DateRanges,
    multivariant: Option<Multivariant>,
    leaving: Leaving,
    is_ended: bool,
    /// After a restart: by number, what some rendition lists and others may lack, as its duration in microseconds and
    /// whether it is behind a discontinuity.
    listed_before: BTreeMap<u64, (u64, bool)>,
    /// Segments of which something could not be written before they were complete.
    lost: Vec<(TrackId, u64)>,
    actions: VecDeque<Action>,
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
            date_ranges: DateRanges::default(),
            multivariant: None,
            leaving: Leaving::default(),
            is_ended: false,
            listed_before: BTreeMap::new(),
            lost: Vec::new(),
            actions: VecDeque::new(),
        }
    }

    /// Goes on with a broadcast that a former process left, at `now` on the monotonic clock.
    pub fn resume(name: StreamName, window: Window, resumed: &Resumed, now: Duration) -> Self {
        let mut presentation = Self {
            is_ended: resumed.is_ended(),
            listed_before: resumed.listed_anywhere(),
            date_ranges: DateRanges::resume(resumed.date_ranges()),
            ..Self::new(name, resumed.broadcast, window)
        };
        let is_rolling = resumed.renditions.iter().all(|rendition| rendition.playlist.media_sequence > 0);
        for rendition in &resumed.renditions {
            // Once none begins at the broadcast's start, what a playlist lacks there has left it, and did not come late.
            let gone_before = if is_rolling { rendition.playlist.media_sequence } else { 0 };
            let taken = Rendition::resume(rendition, window, resumed.target_duration_s, gone_before);
            // How long they have been leaving is not known: they stay for the whole time once more.
            let keep_for = Duration::from_micros(taken.listed_us) + Duration::from_secs(resumed.target_duration_s);
            presentation.leaving.resume(taken.track, &rendition.removed, now, keep_for);
            presentation.renditions.push(taken);
        }
        presentation.renditions.sort_by_key(|rendition| rendition.track);
        presentation
    }

    /// Which broadcast it is.
    pub fn broadcast(&self) -> BroadcastId {
        self.broadcast
    }

    /// How long viewers who hold a playlist may ask for what it lists (RFC 8216bis 6.2.2); `None` if there is none.
    pub fn lifetime(&self) -> Option<Duration> {
        self.renditions.iter().filter_map(|rendition| Some(rendition.playlist.as_ref()?.lifetime())).max()
    }

    /// A rendition will come.
    pub fn expect_rendition(&mut self, track: TrackId, configuration: &Configuration) {
        if !self.renditions.iter().any(|rendition| rendition.track == track) {
            self.renditions.push(Rendition::new(track, Some(configuration.clone())));
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

    /// A track's pictures carry captions.
    pub fn handle_captions(&mut self, track: TrackId, captions: Captions) {
        if let Some(rendition) = self.renditions.iter_mut().find(|rendition| rendition.track == track) {
            rendition.captions = captions;
        }
    }

    /// Something is to be known at a moment: what belongs into playlists is in those to come.
    pub fn handle_event(&mut self, event: &Event) {
        let unix_us = self.program_date_time_us(event.time_us);
        self.date_ranges.push(unix_us, &event.body);
    }

    /// A track's header, before the first chunk that needs it.
    pub fn handle_header(&mut self, header: Header) {
        let track = header.track.id;
        self.expect_rendition(track, &header.track.configuration);
        let key = self.key(Object::Header(track, header.number));
        if let Some(rendition) = self.renditions.iter_mut().find(|rendition| rendition.track == track) {
            let codec = Some(header.track.configuration.rfc6381());
            rendition.headers.push_back(PutHeader { number: header.number, codec, body: header.body.clone() });
            rendition.configuration = Some(header.track.configuration);
        }
        self.actions.push_back(Action::Put { key, kind: ObjectKind::Header, body: vec![header.body] });
    }

    /// More of a track's open segment.
    pub fn handle_chunk(&mut self, chunk: Chunk) {
        if self.lost.contains(&(chunk.track, chunk.segment)) {
            return;
        }
        let key = self.segment_key(chunk.track, chunk.segment);
        self.actions.push_back(Action::Append { key, body: chunk.body });
    }

    /// A track's open segment is complete, or a gap.
    pub fn handle_segment(&mut self, segment: Segment, target_duration_s: u64, now: Duration) {
        let track = segment.track;
        let is_lost = self.lost.contains(&(track, segment.number));
        self.lost.retain(|(of, number)| *of != track || *number > segment.number);
        let segment = Segment { is_gap: segment.is_gap || is_lost, ..segment };
        if !segment.is_gap {
            let key = self.segment_key(track, segment.number);
            self.actions.push_back(Action::Put { key, kind: ObjectKind::Segment, body: Vec::new() });
        }
        let program_date_time_us = self.program_date_time_us(segment.start_us);
        let window = self.window;
        let Some(rendition) = self.renditions.iter_mut().find(|rendition| rendition.track == track) else { return };
        rendition.measured.add(&segment, target_duration_s);
        rendition.listed_us += segment.duration_us;
        let playlist = rendition.playlist.get_or_insert_with(|| MediaPlaylist::new(window, target_duration_s));
        playlist.catch_up(&rendition.unlisted, &self.listed_before, &segment);
        // A track that comes back later than the others after a restart does not know that it is behind a discontinuity.
        let is_behind = playlist.last().is_some_and(|last| last.discontinuities < segment.discontinuities);
        let segment = Segment { is_discontinuous: segment.is_discontinuous || is_behind, ..segment };
        if !self.listed_before.is_empty() {
            // Of constant size: a rendition that comes back later has to catch up with this one too.
            self.listed_before.entry(segment.number).or_insert((segment.duration_us, segment.is_discontinuous));
            self.listed_before.pop_first();
        }
        playlist.push(segment, program_date_time_us);
        self.list_due(now);
        self.refresh_multivariant();
        self.delete_due(now);
    }

    /// Nothing more comes for now: what is complete is listed.
    pub fn interrupt(&mut self, now: Duration) {
        self.list(now, |_| true);
    }

    /// Nothing will be added: all playlists say so, once. What has left one leaves all: a rendition that ended before the
    /// others has let go less, and Shaka Player does not come to the end of playlists that start apart.
    pub fn finish(&mut self, now: Duration) {
        if std::mem::replace(&mut self.is_ended, true) {
            return;
        }
        // Nothing leaves that was never listed.
        self.interrupt(now);
        let playlists = self.renditions.iter().filter_map(|rendition| rendition.playlist.as_ref());
        let gone_before = playlists.map(MediaPlaylist::gone_before).max().unwrap_or(0);
        for position in 0..self.renditions.len() {
            let rendition = &mut self.renditions[position];
            let track = rendition.track;
            if let Some(playlist) = &mut rendition.playlist {
                self.leaving.add(track, playlist.end(gone_before), now);
                self.put_media_playlist(track);
            }
        }
        self.refresh_multivariant();
    }

    /// Lists and deletes what is due by now.
    pub fn handle_time(&mut self, now: Duration) {
        self.list_due(now);
        self.delete_due(now);
    }

    fn delete_due(&mut self, now: Duration) {
        while let Some(departed) = self.leaving.next(now, self.renditions.len()) {
            let Departed { track, number, may_exist, .. } = departed;
            if may_exist {
                let key = self.key(Object::Segment(track, number));
                self.actions.push_back(Action::Delete { key });
            }
            self.delete_unused_headers(track);
        }
    }

    /// Playlists could not be put since `since`, or all are. Viewers have seen that late what left them meanwhile.
    pub fn handle_outage(&mut self, since: Option<Duration>, now: Duration) {
        self.leaving.handle_outage(since, now);
    }

    /// A segment that was to be put is not there: it becomes a gap.
    pub fn handle_lost(&mut self, lost: &Key) {
        let Some(Object::Segment(track, number)) = self.object(lost) else { return };
        let rendition = self.renditions.iter().find(|rendition| rendition.track == track);
        let last = rendition.and_then(|rendition| rendition.playlist.as_ref()?.last());
        if last.is_none_or(|last| last.number < number) {
            self.lost.push((track, number));
        }
        self.mark_gaps(track, |segment| segment.number == number);
    }

    /// Somebody removed the broadcast's folder: headers are put again, and what was listed becomes gaps.
    pub fn handle_vanished(&mut self) {
        for position in 0..self.renditions.len() {
            let rendition = &self.renditions[position];
            let track = rendition.track;
            for PutHeader { number, body, .. } in &rendition.headers {
                let key = self.key(Object::Header(track, *number));
                self.actions.push_back(Action::Put { key, kind: ObjectKind::Header, body: vec![body.clone()] });
            }
            self.mark_gaps(track, |_| true);
            // Those that list nothing but gaps have to be there too.
            self.put_media_playlist(track);
        }
        if let Some(Multivariant { body, .. }) = &self.multivariant {
            self.put_multivariant(body.clone());
        }
    }

    fn mark_gaps(&mut self, track: TrackId, is_lost: impl Fn(&Segment) -> bool) {
        let Some(rendition) = self.renditions.iter_mut().find(|rendition| rendition.track == track) else { return };
        let Some(playlist) = &mut rendition.playlist else { return };
        if playlist.mark_gaps(is_lost) {
            self.put_media_playlist(track);
        }
    }

    /// The object of this broadcast that a key names.
    fn object(&self, key: &Key) -> Option<Object> {
        let object = Object::parse(key.file_name())?;
        (self.key(object) == *key).then_some(object)
    }

    /// When [`Self::handle_time`] has something to do, on the monotonic clock.
    pub fn deadline(&self) -> Option<Duration> {
        [self.lists_at(), self.leaving.deadline()].into_iter().flatten().min()
    }

    /// When it has something to list.
    pub fn lists_at(&self) -> Option<Duration> {
        self.renditions.iter().filter_map(Rendition::lists_at).min()
    }

    /// The next action; drain them after each input.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The key of a segment, which is made once: the chunks of a segment come in a row.
    fn segment_key(&mut self, track: TrackId, number: u64) -> Key {
        let made = |presentation: &Self| presentation.key(Object::Segment(track, number));
        let Some(position) = self.renditions.iter().position(|rendition| rendition.track == track) else {
            return made(self);
        };
        match &self.renditions[position].open {
            Some((open, key)) if *open == number => key.clone(),
            _ => {
                let key = made(self);
                self.renditions[position].open = Some((number, key.clone()));
                key
            }
        }
    }

    fn key(&self, object: Object) -> Key {
        self.name.file(self.broadcast, format_args!("{object}"))
    }

    /// Forgets cue points and splices of what no playlist lists any more.
    fn forget_date_ranges(&mut self) {
        let playlists = self.renditions.iter().filter_map(|rendition| rendition.playlist.as_ref());
        if let Some(first_us) = playlists.filter_map(MediaPlaylist::start_date_time_us).min() {
            self.date_ranges.forget_before(first_us);
        }
    }

    fn list_due(&mut self, now: Duration) {
        self.list(now, |at| at <= now);
    }

    /// Has viewers see all that is complete of the renditions that have something to list, at a time that `is_due` picks.
    fn list(&mut self, now: Duration, is_due: impl Fn(Duration) -> bool) {
        for position in 0..self.renditions.len() {
            let rendition = &mut self.renditions[position];
            if !rendition.lists_at().is_some_and(&is_due) {
                continue;
            }
            let track = rendition.track;
            rendition.put_at = Some(now);
            if let Some(playlist) = &mut rendition.playlist {
                self.leaving.add(track, playlist.roll(), now);
            }
            self.forget_date_ranges();
            self.put_media_playlist(track);
        }
    }

    fn put_media_playlist(&mut self, track: TrackId) {
        let rendition = self.renditions.iter().find(|rendition| rendition.track == track);
        let Some(playlist) = rendition.and_then(|rendition| rendition.playlist.as_ref()) else { return };
        let body = playlist.render(self.date_ranges.lines());
        let key = self.key(Object::Playlist(track));
        self.actions.push_back(Action::Put { key, kind: ObjectKind::Playlist, body });
    }

    /// Writes the multivariant playlist once every announced rendition has something to list, or was waited for long
    /// enough, and again when what it says has changed.
    fn refresh_multivariant(&mut self) {
        let is_listed =
            |rendition: &&Rendition| rendition.playlist.as_ref().is_some_and(|playlist| !playlist.is_empty());
        // After a restart, its measures come with its first new segment.
        let is_listed = |rendition: &&Rendition| is_listed(rendition) && rendition.measured.is_current();
        let is_complete = self.renditions.iter().all(|rendition| is_listed(&rendition));
        let may_yet_come =
            !self.is_ended && self.renditions.iter().all(|rendition| rendition.listed_us < ABSENT_RENDITION_WAIT_US);
        if !is_complete && self.multivariant.is_none() && may_yet_come {
            return;
        }
        let listed: Vec<&Rendition> = self.renditions.iter().filter(is_listed).collect();
        let said: Vec<Said> = listed.iter().map(|rendition| rendition.said()).collect();
        if self.multivariant.as_ref().is_some_and(|written| written.still_holds(&said)) {
            return;
        }
        let codecs: Vec<Vec<String>> = listed.iter().map(|rendition| rendition.codecs()).collect();
        let choices: Vec<Choice<'_>> = listed
            .iter()
            .zip(&codecs)
            .filter_map(|(rendition, codecs)| {
                Some(Choice {
                    kind: rendition.track.kind,
                    index: rendition.track.index,
                    uri: format!("{}/{}", self.broadcast, Object::Playlist(rendition.track)),
                    configuration: rendition.configuration.as_ref()?,
                    captions: rendition.captions,
                    codecs,
                    measured: &rendition.measured,
                })
            })
            .collect();
        if choices.is_empty() {
            return;
        }
        let body = multivariant::render(&choices);
        self.put_multivariant(body.clone());
        self.multivariant = Some(Multivariant { said, body });
    }

    fn put_multivariant(&mut self, body: Bytes) {
        let key = self.name.index();
        self.actions.push_back(Action::Put { key, kind: ObjectKind::Playlist, body: vec![body] });
    }

    /// Deletes a track's headers that neither a listed nor a leaving segment needs.
    fn delete_unused_headers(&mut self, track: TrackId) {
        let needed = self.leaving.oldest_header(track).or_else(|| {
            let rendition = self.renditions.iter().find(|rendition| rendition.track == track)?;
            rendition.playlist.as_ref()?.first().map(|first| first.header)
        });
        let Some(needed) = needed else { return };
        loop {
            let Some(rendition) = self.renditions.iter_mut().find(|rendition| rendition.track == track) else { return };
            let Some(PutHeader { number, .. }) = rendition.headers.pop_front_if(|header| header.number < needed) else {
                return;
            };
            let key = self.key(Object::Header(track, number));
            self.actions.push_back(Action::Delete { key });
        }
    }

    /// When what is at `time_us` of the output timeline was received, in microseconds since 1970.
    fn program_date_time_us(&self, time_us: u64) -> u64 {
        let epoch = self.epochs.iter().rev().find(|epoch| epoch.start_us <= time_us).or_else(|| self.epochs.front());
        epoch.map_or(0, |epoch| (epoch.anchor_unix_us + time_us).saturating_sub(epoch.anchor_us))
    }
}
