//! The output of a broadcast: everything that can be reached from its `index.m3u8`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use super::mp4::{self, Header, Kind, Sample};
use super::peer::SOON;
use super::playlist::{Entry, MediaPlaylist, Multivariant};

/// A stream's folder, read through its playlists.
pub(crate) struct Output {
    pub(crate) multivariant: Multivariant,
    pub(crate) video: Option<Rendition>,
    /// Of the further video tracks (Enhanced RTMP multitrack).
    pub(crate) video_more: Vec<Rendition>,
    /// The default one first.
    pub(crate) audio: Vec<Rendition>,
    /// Every file that a playlist names, and the playlists.
    pub(crate) reached: BTreeSet<PathBuf>,
}

/// One media playlist and what it lists.
pub(crate) struct Rendition {
    pub(crate) uri: String,
    pub(crate) playlist: MediaPlaylist,
    pub(crate) segments: Vec<Segment>,
    /// By the URI of the EXT-X-MAP.
    pub(crate) headers: BTreeMap<String, Rc<Header>>,
}

/// A listed segment.
pub(crate) struct Segment {
    pub(crate) entry: Entry,
    /// `None` for a gap.
    pub(crate) header: Option<Rc<Header>>,
    pub(crate) media: mp4::Segment,
    /// Bytes of the file.
    pub(crate) size: u64,
    pub(crate) path: PathBuf,
}

impl Output {
    /// Reads the stream whose playlist is `index`.
    ///
    /// # Errors
    /// The first thing that cannot be read, with its file.
    pub(crate) fn read(index: &Path) -> Result<Self, String> {
        let multivariant = Multivariant::read(text(index)?).map_err(|e| in_file(index, &e))?;
        let mut uris: Vec<&str> = multivariant.audio.iter().filter_map(|audio| audio.uri.as_deref()).collect();
        for variant in &multivariant.variants {
            if !uris.contains(&variant.uri.as_str()) {
                uris.push(&variant.uri);
            }
        }
        let mut reached = BTreeSet::from([index.to_owned()]);
        let (mut video, mut video_more, mut audio) = (None, Vec::new(), Vec::new());
        for uri in uris {
            let rendition = Rendition::read(&resolve(index, uri)?, uri, &mut reached)?;
            match rendition.kind()? {
                Kind::Audio { .. } => audio.push(rendition),
                Kind::Video { .. } if video.is_none() => video = Some(rendition),
                Kind::Video { .. } => video_more.push(rendition),
            }
        }
        Ok(Self { multivariant, video, video_more, audio, reached })
    }

    /// Reads it once all its playlists have ended.
    pub(crate) fn await_end(index: &Path) -> Self {
        Self::await_end_within(SOON, index)
    }

    /// The same with more `patience`.
    pub(crate) fn await_end_within(patience: Duration, index: &Path) -> Self {
        let start = Instant::now();
        loop {
            match Self::read(index) {
                Ok(output) if output.renditions().all(|rendition| rendition.playlist.has_end) => return output,
                read => assert!(start.elapsed() < patience, "{}: {:?}", index.display(), read.err()),
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// All its renditions.
    pub(crate) fn renditions(&self) -> impl Iterator<Item = &Rendition> {
        self.video.iter().chain(&self.video_more).chain(&self.audio)
    }
}

impl Rendition {
    fn read(path: &Path, uri: &str, reached: &mut BTreeSet<PathBuf>) -> Result<Self, String> {
        let playlist = MediaPlaylist::read(text(path)?).map_err(|e| in_file(path, &e))?;
        reached.insert(path.to_owned());
        let mut headers = BTreeMap::new();
        let mut segments = Vec::new();
        for entry in &playlist.entries {
            let file = resolve(path, &entry.uri)?;
            if entry.is_gap {
                let media = mp4::Segment::default();
                segments.push(Segment { entry: entry.clone(), header: None, media, size: 0, path: file });
                continue;
            }
            let map = entry.map.as_ref().ok_or_else(|| in_file(path, &format!("{} has no EXT-X-MAP", entry.uri)))?;
            if !headers.contains_key(map) {
                let file = resolve(path, map)?;
                let header = mp4::read_header(&bytes(&file)?).map_err(|e| in_file(&file, &e))?;
                reached.insert(file);
                headers.insert(map.clone(), Rc::new(header));
            }
            let header = Rc::clone(&headers[map]);
            let bytes = bytes(&file)?;
            let media = mp4::read_segment(&bytes, &header).map_err(|e| in_file(&file, &e))?;
            reached.insert(file.clone());
            let size = u64::try_from(bytes.len()).unwrap();
            segments.push(Segment { entry: entry.clone(), header: Some(header), media, size, path: file });
        }
        Ok(Self { uri: uri.to_owned(), playlist, segments, headers })
    }

    fn kind(&self) -> Result<Kind, String> {
        let header = self.headers.values().next().ok_or_else(|| format!("{} lists no segment", self.uri))?;
        Ok(header.track.kind.clone())
    }

    /// All its samples, with the number of discontinuities before each and its track's timescale.
    pub(crate) fn samples(&self) -> impl Iterator<Item = (usize, u32, &Sample)> {
        let mut period = 0;
        self.segments.iter().flat_map(move |segment| {
            period += usize::from(segment.entry.has_discontinuity);
            let timescale = segment.header.as_ref().map_or(1, |header| header.track.timescale);
            segment.media.samples.iter().map(move |sample| (period, timescale, sample))
        })
    }
}

impl Segment {
    /// The sum of its samples' durations, in seconds.
    pub(crate) fn media_s(&self) -> f64 {
        let ticks: u64 = self.media.samples.iter().map(|sample| u64::from(sample.duration)).sum();
        self.header.as_ref().map_or(0.0, |header| seconds(i64::try_from(ticks).unwrap(), header.track.timescale))
    }
}

/// `ticks` in seconds.
pub(crate) fn seconds(ticks: i64, timescale: u32) -> f64 {
    // Exact to the microsecond for centuries.
    let whole = ticks.div_euclid(i64::from(timescale));
    let rest = ticks.rem_euclid(i64::from(timescale));
    let number = |value: i64| f64::from(i32::try_from(value).expect("less than 68 years"));
    number(whole) + number(rest) / f64::from(timescale)
}

/// Every file below `folder`.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

/// The file that `uri` in the playlist at `base` means.
fn resolve(base: &Path, uri: &str) -> Result<PathBuf, String> {
    if uri.contains("://") || uri.starts_with('/') || uri.contains(['?', '#', '%', '\\']) {
        return Err(in_file(base, &format!("{uri:?} is not a plain relative path")));
    }
    Ok(uri.split('/').fold(base.parent().unwrap().to_owned(), |path, part| path.join(part)))
}

fn text(path: &Path) -> Result<String, String> {
    String::from_utf8(bytes(path)?).map_err(|e| in_file(path, &e.to_string()))
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| in_file(path, &e.to_string()))
}

fn in_file(path: &Path, what: &str) -> String {
    format!("{}: {what}", path.display())
}
