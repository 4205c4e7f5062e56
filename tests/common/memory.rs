//! The core alone: an FLV file's tags through the packager at made-up times, its actions performed in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use upscope::action::{Action, ObjectKind, StreamName};
use upscope::flv::file::FileTags;
use upscope::hls::Window;
use upscope::media::Moment;
use upscope::packager::{Packager, Settings};

/// When the made-up broadcasts begin: 2025-11-22T17:54:58.123Z.
pub(crate) const BEGAN_UNIX: Duration = Duration::from_millis(1_763_834_098_123);

/// Settings of the made-up broadcasts.
pub(crate) fn settings() -> Settings {
    Settings { segment: Duration::from_secs(2), window: Window::Segments(1000), track_wait: Duration::from_secs(1) }
}

/// What a performer of actions holds.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) objects: BTreeMap<String, Vec<u8>>,
    pub(crate) unfinished: BTreeMap<String, Vec<u8>>,
    /// Keys in the order in which they were put.
    pub(crate) puts: Vec<String>,
    pub(crate) deleted: Vec<String>,
}

impl Memory {
    /// Performs an action, and asserts what must hold of every sequence of actions.
    pub(crate) fn perform(&mut self, action: Action) {
        let key = action.key().to_string();
        match action {
            Action::Append { body, .. } => {
                assert!(!self.objects.contains_key(&key), "{key} grows after it was put");
                self.unfinished.entry(key).or_default().extend(body.concat());
            }
            Action::Put { kind, body, .. } => {
                let mut whole = self.unfinished.remove(&key).unwrap_or_default();
                whole.extend(body.concat());
                if kind == ObjectKind::Playlist {
                    self.assert_listed_objects_exist(&key, &whole);
                } else {
                    assert!(!self.puts.contains(&key), "the name {key} is used twice");
                }
                self.puts.push(key.clone());
                self.objects.insert(key, whole);
            }
            Action::Delete { .. } => {
                assert!(self.objects.remove(&key).is_some(), "{key} is deleted and was not there");
                self.deleted.push(key);
            }
        }
    }

    /// The text of an object.
    pub(crate) fn text(&self, key: &str) -> &str {
        std::str::from_utf8(&self.objects[key]).unwrap()
    }

    fn assert_listed_objects_exist(&self, key: &str, playlist: &[u8]) {
        let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut is_gap = false;
        for line in std::str::from_utf8(playlist).unwrap().lines() {
            is_gap |= line == "#EXT-X-GAP";
            let quoted = line.split_once("URI=\"").and_then(|(_, rest)| rest.split_once('"')).map(|(uri, _)| uri);
            let uri = if line.starts_with('#') { quoted } else { Some(line) };
            let Some(uri) = uri else { continue };
            let path = format!("{folder}/{uri}");
            assert!(is_gap || self.objects.contains_key(&path), "{key} lists {path}, which is not there");
            is_gap &= line.starts_with('#');
        }
    }
}

/// A broadcast under way.
pub(crate) struct Broadcast {
    pub(crate) packager: Packager,
    pub(crate) memory: Memory,
    pub(crate) notices: Vec<String>,
    now: Moment,
}

impl Broadcast {
    pub(crate) fn new(settings: Settings) -> Self {
        let now = Moment { monotonic: Duration::ZERO, unix: BEGAN_UNIX };
        let name = StreamName::parse("live", "cam1").unwrap();
        Self { packager: Packager::new(name, now, settings), memory: Memory::default(), notices: Vec::new(), now }
    }

    /// Pushes the tags of an FLV file, each at its time.
    pub(crate) fn push(&mut self, flv: &Bytes) {
        let mut first = None;
        let start = self.now;
        for tag in FileTags::new(flv).unwrap() {
            let file_tag = tag.unwrap();
            let timestamp = file_tag.timestamp;
            let Ok(Some(tag)) = file_tag.parse() else { continue };
            let since = Duration::from_millis(timestamp.wrapping_sub(*first.get_or_insert(timestamp)).into());
            if since < Duration::from_secs(3600) {
                self.now = Moment { monotonic: start.monotonic + since, unix: start.unix + since };
            }
            self.packager.handle_tag(tag, self.now);
            self.drain();
        }
    }

    pub(crate) fn interrupt(&mut self) {
        self.packager.interrupt(self.now);
        self.drain();
    }

    pub(crate) fn finish(&mut self) {
        self.packager.finish(self.now);
        self.drain();
    }

    /// Lets time pass.
    pub(crate) fn wait(&mut self, duration: Duration) {
        self.now = Moment { monotonic: self.now.monotonic + duration, unix: self.now.unix + duration };
        self.packager.handle_time(self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(action) = self.packager.poll_action() {
            self.memory.perform(action);
        }
        while let Some(notice) = self.packager.poll_notice() {
            self.notices.push(notice.to_string());
        }
    }
}
