//! What must hold of every sequence of actions, by the rules of RFC 8216bis and by what `action.rs` and `hls` promise.

use std::collections::BTreeMap;
use std::time::Duration;

use super::boxes;

/// A media playlist, read by a few lines that share nothing with the program.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Playlist {
    pub(crate) target_duration_s: u64,
    pub(crate) media_sequence: u64,
    pub(crate) discontinuity_sequence: Option<u64>,
    pub(crate) claims_independent_segments: bool,
    pub(crate) has_end: bool,
    pub(crate) entries: Vec<Entry>,
}

/// A segment as a playlist lists it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Entry {
    pub(crate) uri: String,
    pub(crate) duration_us: u64,
    pub(crate) has_discontinuity: bool,
    pub(crate) is_gap: bool,
    /// The EXT-X-MAP in force.
    pub(crate) map: String,
}

impl Playlist {
    pub(crate) fn read(text: &str) -> Self {
        let mut playlist = Self::default();
        let mut entry = Entry::default();
        for line in text.lines() {
            let (tag, value) = line.split_once(':').unwrap_or((line, ""));
            match tag {
                "#EXT-X-TARGETDURATION" => playlist.target_duration_s = value.parse().unwrap(),
                "#EXT-X-MEDIA-SEQUENCE" => playlist.media_sequence = value.parse().unwrap(),
                "#EXT-X-DISCONTINUITY-SEQUENCE" => playlist.discontinuity_sequence = Some(value.parse().unwrap()),
                "#EXT-X-INDEPENDENT-SEGMENTS" => playlist.claims_independent_segments = true,
                "#EXT-X-ENDLIST" => playlist.has_end = true,
                "#EXT-X-DISCONTINUITY" => entry.has_discontinuity = true,
                "#EXT-X-GAP" => entry.is_gap = true,
                "#EXT-X-MAP" => entry.map = value.split('"').nth(1).unwrap().to_owned(),
                "#EXTINF" => {
                    let (seconds, micros) = value.trim_end_matches(',').split_once('.').unwrap();
                    assert_eq!(micros.len(), 6, "{line}");
                    entry.duration_us = seconds.parse::<u64>().unwrap() * 1_000_000 + micros.parse::<u64>().unwrap();
                }
                "#EXTM3U" | "#EXT-X-VERSION" | "#EXT-X-PROGRAM-DATE-TIME" | "#EXT-X-DATERANGE" => {}
                uri => {
                    assert!(!uri.starts_with('#'), "unknown tag {line}");
                    assert!(!playlist.has_end, "a segment behind EXT-X-ENDLIST");
                    let next = Entry { map: entry.map.clone(), ..Entry::default() };
                    let listed = std::mem::replace(&mut entry, next);
                    playlist.entries.push(Entry { uri: uri.to_owned(), ..listed });
                }
            }
        }
        playlist
    }

    pub(crate) fn duration_us(&self) -> u64 {
        self.entries.iter().map(|entry| entry.duration_us).sum()
    }

    /// The entries with their media sequence numbers and discontinuity numbers.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (u64, u64, &Entry)> {
        let mut discontinuity = self.discontinuity_sequence.unwrap_or(0);
        (self.media_sequence..).zip(&self.entries).map(move |(number, entry)| {
            discontinuity += u64::from(entry.has_discontinuity);
            (number, discontinuity, entry)
        })
    }
}

/// What a segment's boxes say.
#[derive(Debug, Clone, Copy)]
struct Segment {
    /// Ticks.
    start: u64,
    end: u64,
    begins_with_sync: bool,
}

/// Where a rendition stands at the end of what it lists.
#[derive(Debug, Clone, Copy)]
struct End {
    timescale: u64,
    ticks: u64,
    /// How far `ticks` may be off because gaps were told in microseconds only.
    tolerance: u64,
}

#[derive(Debug, Default)]
struct Rendition {
    playlist: Playlist,
    end: Option<End>,
    /// The longest that its playlist ever lasted, in microseconds.
    longest_us: u64,
}

/// Sees all objects come and go.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    segments: BTreeMap<String, Segment>,
    timescales: BTreeMap<String, u64>,
    renditions: BTreeMap<String, Rendition>,
    /// What left its playlist: until when it may still be asked for, its header too.
    leaving: BTreeMap<String, (Duration, String)>,
    /// Discontinuity numbers by folder and media sequence number, the same in all renditions (RFC 8216bis 6.2.4).
    discontinuities: BTreeMap<(String, u64), u64>,
    target_duration_s: Option<u64>,
    /// What one process put another may have to delete without listing it.
    pub(crate) has_restarted: bool,
    /// How many entries were ever listed.
    pub(crate) listed: usize,
    pub(crate) gaps: usize,
}

impl Judge {
    pub(crate) fn put_header(&mut self, key: &str, body: &[u8]) {
        self.timescales.insert(key.to_owned(), boxes::timescale(body));
    }

    pub(crate) fn put_segment(&mut self, key: &str, body: &[u8]) {
        let chunks = boxes::chunks(body);
        let samples = chunks.concat();
        let first = samples.first().unwrap_or_else(|| panic!("{key} holds no sample"));
        let mut end = first.decode_time;
        for sample in &samples {
            assert!(sample.duration > 0, "{key} holds a sample without duration");
            assert_eq!(sample.decode_time, end, "{key}: a chunk begins where the one before it ended");
            end += u64::from(sample.duration);
        }
        let segment = Segment { start: first.decode_time, end, begins_with_sync: first.is_sync };
        self.segments.insert(key.to_owned(), segment);
    }

    pub(crate) fn put_media_playlist(&mut self, key: &str, text: &str, now: Duration) {
        let playlist = Playlist::read(text);
        let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        let in_folder = |uri: &str| format!("{folder}/{uri}");
        let target_duration_s = *self.target_duration_s.get_or_insert(playlist.target_duration_s);
        assert_eq!(playlist.target_duration_s, target_duration_s, "{key}: EXT-X-TARGETDURATION is one and stays");
        assert!(!playlist.entries.is_empty(), "{key} lists nothing");

        let before = self.renditions.remove(key).unwrap_or_default();
        let mut rendition = Rendition { playlist: playlist.clone(), ..before };
        let before = before.playlist;
        assert!(!before.has_end || before == playlist, "{key} changes behind EXT-X-ENDLIST");
        let is_new = before.entries.is_empty();
        let first = if is_new { playlist.media_sequence } else { before.media_sequence };
        let gone = playlist.media_sequence.checked_sub(first);
        let gone = gone.unwrap_or_else(|| panic!("{key}: EXT-X-MEDIA-SEQUENCE goes back"));
        let gone = usize::try_from(gone).unwrap();
        assert!(gone <= before.entries.len(), "{key}: more segments are gone than were listed");
        let (removed, kept) = before.entries.split_at(gone);
        assert!(playlist.entries.starts_with(kept), "{key}: a listed segment changed:\n{kept:#?}\n{playlist:#?}");
        let discontinuities = removed.iter().filter(|entry| entry.has_discontinuity).count() as u64;
        if !is_new {
            assert_eq!(
                playlist.discontinuity_sequence.unwrap_or(0),
                before.discontinuity_sequence.unwrap_or(0) + discontinuities,
                "{key}: EXT-X-DISCONTINUITY-SEQUENCE"
            );
        }
        // RFC 8216bis 6.2.2 asks it of playlists without EXT-X-ENDLIST.
        if gone > 0 && !playlist.has_end {
            assert!(playlist.duration_us() >= 3_000_000 * target_duration_s, "{key} is too short (6.2.2)");
        }
        for entry in removed {
            let due = now + Duration::from_micros(entry.duration_us + rendition.longest_us);
            self.leaving.insert(in_folder(&entry.uri), (due, in_folder(&entry.map)));
        }
        rendition.longest_us = rendition.longest_us.max(playlist.duration_us());

        for (number, discontinuity, entry) in playlist.numbered().skip(kept.len()) {
            self.listed += 1;
            self.gaps += usize::from(entry.is_gap);
            assert!(entry.duration_us > 0, "{key}: {entry:?} lasts 0 s");
            let rounded_s = (entry.duration_us + 500_000) / 1_000_000;
            assert!(rounded_s <= target_duration_s, "{key}: {entry:?} is longer than {target_duration_s} s");
            let aligned = *self.discontinuities.entry((folder.clone(), number)).or_insert(discontinuity);
            assert_eq!(aligned, discontinuity, "{key}: segment {number}'s discontinuity number in the other rendition");
            rendition.end = self.follow(&folder, entry, rendition.end);
        }
        if playlist.claims_independent_segments {
            for entry in playlist.entries.iter().filter(|entry| !entry.is_gap) {
                let segment = &self.segments[&in_folder(&entry.uri)];
                assert!(segment.begins_with_sync, "{key}: {} is not independent", entry.uri);
            }
        }
        self.renditions.insert(key.to_owned(), rendition);
    }

    /// Checks a new entry's times, and says where it ends. `end` is where the one before it ended.
    fn follow(&self, folder: &str, entry: &Entry, end: Option<End>) -> Option<End> {
        let Entry { uri, duration_us, has_discontinuity, is_gap, .. } = entry;
        if *is_gap {
            return end.filter(|_| !has_discontinuity).map(|end| End {
                ticks: end.ticks + (duration_us * end.timescale + 500_000) / 1_000_000,
                tolerance: end.tolerance + 1,
                ..end
            });
        }
        let key = format!("{folder}/{uri}");
        let map = format!("{folder}/{}", entry.map);
        let segment = self.segments.get(&key).unwrap_or_else(|| panic!("{key} is listed and was not put"));
        let timescale = *self.timescales.get(&map).unwrap_or_else(|| panic!("{map} is listed and was not put"));
        // A.7.3: each begins where the one before it ended, but for a discontinuity.
        if let Some(end) = end {
            let start = segment.start * end.timescale / timescale;
            if *has_discontinuity {
                assert!(start + end.tolerance + 1 >= end.ticks, "{key} begins before the one before it ended");
            } else {
                assert_eq!(timescale, end.timescale, "{key}: another timescale without a discontinuity");
                let off = segment.start.abs_diff(end.ticks);
                assert!(off <= end.tolerance, "{key} begins {off} ticks off the end of the one before it");
            }
        }
        let exact_us = (segment.end - segment.start) * 1_000_000 / timescale;
        assert!(exact_us.abs_diff(*duration_us) <= 1, "{key} lasts {exact_us} us and not {duration_us}");
        Some(End { timescale, ticks: segment.end, tolerance: 0 })
    }

    pub(crate) fn delete(&mut self, key: &str, now: Duration) {
        let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (playlist_key, Rendition { playlist, .. }) in &self.renditions {
            let is_near = playlist_key.rsplit_once('/').is_some_and(|(other, _)| other == folder);
            let file = &key[folder.len() + 1..];
            let is_listed = playlist.entries.iter().any(|entry| entry.uri == file || entry.map == file);
            assert!(!(is_near && is_listed), "{key} is deleted while {playlist_key} lists it");
        }
        // RFC 8216bis 6.2.2.
        for (left, (due, map)) in &self.leaving {
            if left == key || map == key {
                assert!(*due <= now, "{key} is deleted at {now:?}; it may be asked for until {due:?}");
            }
        }
        if self.timescales.remove(key).is_none() {
            let was_listed = self.leaving.remove(key).is_some();
            assert!(was_listed || self.has_restarted, "{key} is deleted and was never listed");
            self.segments.remove(key);
        }
    }

    /// The files that playlists list, their headers among them.
    pub(crate) fn listed_files(&self) -> Vec<String> {
        let mut files = Vec::new();
        for (key, Rendition { playlist, .. }) in &self.renditions {
            let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
            for entry in &playlist.entries {
                files.extend([format!("{folder}/{}", entry.uri), format!("{folder}/{}", entry.map)]);
            }
        }
        files.sort();
        files.dedup();
        files
    }

    /// The last playlist of each rendition.
    pub(crate) fn playlists(&self) -> impl Iterator<Item = (&str, &Playlist)> {
        self.renditions.iter().map(|(key, rendition)| (key.as_str(), &rendition.playlist))
    }
}
