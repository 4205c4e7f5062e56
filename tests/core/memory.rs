//! The core alone: tags through the packager at made-up times, its actions performed in memory and judged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use upscope::action::{Action, BroadcastId, ObjectKind, StreamName};
use upscope::flv::file::FileTags;
use upscope::flv::{Tag, parse_audio, parse_data, parse_video};
use upscope::hls::{Found, Object, Resumed, Window};
use upscope::media::Moment;
use upscope::packager::{Notice, Packager, Settings};
use upscope::rtmp::{Connection, Event, MessageKind};

use super::judge::Judge;

/// When the made-up broadcasts begin: 2025-11-22T17:54:58.123Z.
pub(crate) const BEGAN_UNIX: Duration = Duration::from_millis(1_763_834_098_123);

/// The most that the made-up time goes along with a step of the publisher's clock.
const LONGEST_STEP: Duration = Duration::from_secs(10);

/// Settings of the made-up broadcasts.
pub(crate) fn settings() -> Settings {
    Settings { segment: Duration::from_secs(2), window: Window::Segments(1000), track_wait: Duration::from_secs(1) }
}

/// What a performer of actions holds.
#[derive(Debug)]
pub(crate) struct Memory {
    /// How many actions are performed before the process is killed.
    pub(crate) actions_left: usize,
    pub(crate) objects: BTreeMap<String, Vec<u8>>,
    pub(crate) unfinished: BTreeMap<String, Vec<u8>>,
    pub(crate) judge: Judge,
    /// One line for each object put or deleted: the time and its key.
    pub(crate) log: String,
    /// Names of what is no playlist; none may come again.
    used: BTreeSet<String>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            actions_left: usize::MAX,
            objects: BTreeMap::new(),
            unfinished: BTreeMap::new(),
            judge: Judge::default(),
            log: String::new(),
            used: BTreeSet::new(),
        }
    }
}

impl Memory {
    /// Performs an action, and asserts what must hold of every sequence of actions.
    pub(crate) fn perform(&mut self, action: Action, now: Duration) {
        let key = action.key().to_string();
        let verb = match action {
            Action::Append { .. } => None,
            Action::Put { .. } => Some("put"),
            Action::Delete { .. } => Some("delete"),
        };
        if let Some(verb) = verb {
            writeln!(self.log, "{:.3} {verb} {key}", now.as_secs_f64()).unwrap();
        }
        match action {
            Action::Append { body, .. } => {
                assert!(!self.used.contains(&key), "{key} grows after it was put");
                self.unfinished.entry(key).or_default().extend(body.concat());
            }
            Action::Put { kind, body, .. } => {
                let mut whole = self.unfinished.remove(&key).unwrap_or_default();
                whole.extend(body.concat());
                assert!(kind == ObjectKind::Playlist || self.used.insert(key.clone()), "the name {key} is used twice");
                match kind {
                    ObjectKind::Header => self.judge.put_header(&key, &whole),
                    ObjectKind::Segment => self.judge.put_segment(&key, &whole),
                    ObjectKind::Playlist => self.put_playlist(&key, &whole, now),
                }
                self.objects.insert(key, whole);
            }
            Action::Delete { .. } => {
                assert!(self.objects.remove(&key).is_some(), "{key} is deleted and was not there");
                self.judge.delete(&key, now);
            }
        }
    }

    fn put_playlist(&mut self, key: &str, text: &[u8], now: Duration) {
        let text = std::str::from_utf8(text).unwrap();
        let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut is_gap = false;
        for line in text.lines() {
            is_gap |= line == "#EXT-X-GAP";
            let quoted = line.split_once("URI=\"").and_then(|(_, rest)| rest.split_once('"')).map(|(uri, _)| uri);
            let uri = if line.starts_with('#') { quoted } else { Some(line) };
            let Some(uri) = uri else { continue };
            let path = format!("{folder}/{uri}");
            assert!(is_gap || self.objects.contains_key(&path), "{key} lists {path}, which is not there");
            is_gap &= line.starts_with('#');
        }
        if !key.ends_with("/index.m3u8") {
            self.judge.put_media_playlist(key, text, now);
        }
    }

    /// The text of an object.
    pub(crate) fn text(&self, key: &str) -> &str {
        std::str::from_utf8(&self.objects[key]).unwrap()
    }

    /// All that is neither listed nor a playlist.
    pub(crate) fn unlisted(&self) -> Vec<&String> {
        let listed = self.judge.listed_files();
        self.objects.keys().filter(|key| !key.ends_with(".m3u8") && !listed.contains(key)).collect()
    }
}

/// A broadcast under way.
#[derive(Debug)]
pub(crate) struct Broadcast {
    pub(crate) packager: Packager,
    pub(crate) memory: Memory,
    pub(crate) notices: Vec<String>,
    /// The advice among them.
    pub(crate) advice: Vec<String>,
    pub(crate) now: Moment,
    /// The timestamp of the last tag of the connection.
    last_timestamp: Option<u32>,
}

impl Broadcast {
    pub(crate) fn new(settings: Settings) -> Self {
        let now = Moment { monotonic: Duration::ZERO, unix: BEGAN_UNIX };
        let name = StreamName::parse("live", "cam1").unwrap();
        Self {
            packager: Packager::new(name, now, settings),
            memory: Memory::default(),
            notices: Vec::new(),
            advice: Vec::new(),
            now,
            last_timestamp: None,
        }
    }

    /// Pushes a tag at its time: time goes on with the timestamps.
    pub(crate) fn tag(&mut self, tag: Tag) {
        let last = self.last_timestamp.unwrap_or(tag.timestamp);
        let step = i64::from(tag.timestamp.wrapping_sub(last).cast_signed());
        // Sound and pictures interleave: a little back is no step.
        if !(-1000..0).contains(&step) {
            self.last_timestamp = Some(tag.timestamp);
        }
        if let Ok(step) = u64::try_from(step) {
            let step = Duration::from_millis(step).min(LONGEST_STEP);
            self.now = Moment { monotonic: self.now.monotonic + step, unix: self.now.unix + step };
        }
        self.packager.handle_tag(tag, self.now);
        self.drain();
    }

    /// Pushes the tags of an FLV file.
    pub(crate) fn push(&mut self, flv: &Bytes) {
        for tag in FileTags::new(flv).unwrap() {
            for tag in tag.unwrap().parse().into_iter().flatten() {
                self.tag(tag);
            }
        }
    }

    /// Pushes what a connection carried, cut as the iterator says. A publish that ends is an interruption.
    pub(crate) fn receive<'a>(&mut self, pieces: impl IntoIterator<Item = &'a [u8]>) {
        let mut connection = Connection::new();
        for piece in pieces {
            connection.handle_bytes(piece).unwrap();
            while let Some(event) = connection.poll_event() {
                self.handle_event(&mut connection, event);
            }
            while connection.poll_output().is_some() {}
        }
        self.interrupt();
    }

    fn handle_event(&mut self, connection: &mut Connection, event: Event) {
        match event {
            Event::Connect(_) => connection.accept_connect(),
            Event::Publish(_) => connection.accept_publish(),
            Event::Unpublish => self.interrupt(),
            Event::Refused(_) => {}
            Event::Media(message) => {
                let parsed = match message.kind {
                    MessageKind::Audio => parse_audio(message.timestamp, &message.body),
                    MessageKind::Video => parse_video(message.timestamp, &message.body),
                    MessageKind::Data => parse_data(message.timestamp, &message.body),
                };
                for tag in parsed.into_iter().flatten() {
                    self.tag(tag);
                }
            }
        }
    }

    /// Another process goes on with what this one has put.
    pub(crate) fn restart(self, settings: Settings) -> Option<Self> {
        let Self { mut memory, now, notices, advice, .. } = self;
        memory.unfinished.clear();
        memory.judge.has_restarted = true;
        let folder = format!("live/cam1/~{}/", BEGAN_UNIX.as_millis());
        let mut files: Vec<_> = memory
            .objects
            .iter()
            .filter_map(|(key, body)| Some((Object::parse(key.strip_prefix(&folder)?)?, body.len() as u64)))
            .collect();
        files.sort_unstable();
        let broadcast = BroadcastId { unix_ms: u64::try_from(BEGAN_UNIX.as_millis()).unwrap() };
        let load = |object: Object| Some(Bytes::from(memory.objects[&format!("{folder}{object}")].clone()));
        let resumed = match Resumed::read(broadcast, &files, load).unwrap() {
            Found::Nothing => return None,
            Found::Broadcast(resumed) => resumed,
        };
        let name = StreamName::parse("live", "cam1").unwrap();
        let packager = Packager::resume(name, &resumed, settings, now);
        Some(Self { packager, memory, notices, advice, now, last_timestamp: None })
    }

    pub(crate) fn interrupt(&mut self) {
        self.last_timestamp = None;
        self.packager.interrupt(self.now);
        self.drain();
    }

    pub(crate) fn finish(&mut self) {
        self.packager.finish(self.now);
        self.drain();
        let unfinished: Vec<_> = self.memory.unfinished.keys().collect();
        assert!(unfinished.is_empty(), "never put: {unfinished:?}");
        for (key, playlist) in self.memory.judge.playlists() {
            assert!(playlist.has_end, "{key} has no EXT-X-ENDLIST");
        }
    }

    /// Lets time pass.
    pub(crate) fn wait(&mut self, duration: Duration) {
        self.now = Moment { monotonic: self.now.monotonic + duration, unix: self.now.unix + duration };
        self.packager.handle_time(self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(action) = self.packager.poll_action() {
            // What a killed process had yet to do is not done.
            if self.memory.actions_left > 0 {
                self.memory.actions_left -= 1;
                self.memory.perform(action, self.now.monotonic);
            }
        }
        while let Some(notice) = self.packager.poll_notice() {
            if let Notice::Advice(advice) = &notice {
                self.advice.push(advice.to_string());
            }
            self.notices.push(notice.to_string());
        }
    }
}
