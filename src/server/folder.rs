//! The output folder at start: it is locked, what a killed process left half is swept, and what is in it is found.
//!
//! The folder is not ours alone: anything may lie in it. Only names that we would write are looked at, symbolic links
//! are never followed, and nothing else is touched.

use std::fs::{self, DirEntry, File, TryLockError};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context as _;
use bytes::Bytes;

use crate::action::{BroadcastId, StreamName};
use crate::hls::Object;

/// The most entries that are looked at; a folder with more holds something else.
const MOST_ENTRIES: usize = 1 << 20;

/// Holds the lock on the output folder until it is dropped, or the process ends in whatever way.
#[derive(Debug)]
pub(super) struct Lock {
    _folder: Option<File>,
}

impl Lock {
    /// Takes the lock, which no two processes can have.
    ///
    /// # Errors
    /// Another process writes to this folder.
    pub(super) fn take(out: &Path) -> anyhow::Result<Self> {
        let shown = out.display();
        let folder = File::open(out).with_context(|| format!("open the output folder {shown}"))?;
        match folder.try_lock() {
            Ok(()) => Ok(Self { _folder: Some(folder) }),
            Err(TryLockError::WouldBlock) => {
                anyhow::bail!("use the output folder {shown}: another upscope process is writing to it (--out)")
            }
            // Some network file systems cannot lock a folder.
            Err(TryLockError::Error(error)) => {
                tracing::warn!(
                    "the output folder {shown} cannot be locked: {error}; see to it that nobody else writes"
                );
                Ok(Self { _folder: None })
            }
        }
    }
}

/// A stream's folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StreamFolder {
    pub(super) name: StreamName,
    pub(super) path: PathBuf,
    /// Its broadcasts' folders, the oldest first.
    pub(super) broadcasts: Vec<BroadcastId>,
}

/// Finds the streams in `out`, those without any broadcast left out.
pub(super) fn streams(out: &Path) -> Vec<StreamFolder> {
    let mut found = Vec::new();
    let mut budget = MOST_ENTRIES;
    find_streams(out, &mut Vec::new(), &mut budget, &mut found);
    if budget == 0 {
        tracing::warn!("{} holds more than {MOST_ENTRIES} files: not all streams in it were looked for", out.display());
    }
    found
}

fn find_streams(folder: &Path, parts: &mut Vec<String>, budget: &mut usize, found: &mut Vec<StreamFolder>) {
    let mut broadcasts = Vec::new();
    for entry in entries(folder, budget) {
        let Ok(file_name) = entry.file_name().into_string() else { continue };
        // Of a link this is the link's own type.
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if let Some(broadcast) = BroadcastId::parse(&file_name) {
            broadcasts.push(broadcast);
        } else if parts.len() < StreamName::MOST_PARTS {
            parts.push(file_name);
            find_streams(&entry.path(), parts, budget, found);
            parts.pop();
        }
    }
    let Some((name, app)) = parts.split_last() else { return };
    if let Ok(name) = StreamName::parse(&app.join("/"), name)
        && !broadcasts.is_empty()
    {
        broadcasts.sort_unstable();
        found.push(StreamFolder { name, path: folder.to_owned(), broadcasts });
    }
}

/// The files of ours in a broadcast's folder and their sizes in bytes, in order.
pub(super) fn objects(folder: &Path) -> Vec<(Object, u64)> {
    let mut found: Vec<_> = entries(folder, &mut MOST_ENTRIES.clone())
        .into_iter()
        .filter_map(|entry| {
            let object = Object::parse(entry.file_name().to_str()?)?;
            let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            Some((object, metadata.len()))
        })
        .collect();
    found.sort_unstable();
    found
}

/// The bytes of all files below a folder; links are not followed.
pub(super) fn size(folder: &Path) -> u64 {
    let size = |entry: DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) => metadata.len(),
        // Gone by now.
        Err(_) => 0,
    };
    entries(folder, &mut MOST_ENTRIES.clone()).into_iter().map(size).sum()
}

/// When a file of a broadcast's folder was last changed.
pub(super) fn last_change(folder: &Path) -> Option<SystemTime> {
    let changed = |entry: DirEntry| entry.metadata().ok()?.modified().ok();
    entries(folder, &mut MOST_ENTRIES.clone()).into_iter().filter_map(changed).max()
}

/// The beginning of a file; what is behind a link is not ours.
pub(super) fn read_file(path: &Path, most_bytes: u64) -> Option<Bytes> {
    if !fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        return None;
    }
    let file = File::open(path).ok()?;
    let mut bytes = Vec::new();
    file.take(most_bytes).read_to_end(&mut bytes).ok()?;
    Some(bytes.into())
}

/// Removes a broadcast's files, and the folders above them up to `out` that are then empty.
pub(super) fn remove_broadcast(folder: &Path, out: &Path) {
    sweep_folder(folder, |name| Object::parse(name).is_some());
    // Sorted, so that playlists go first: what is killed here leaves nothing that could be played.
    for (object, _) in objects(folder) {
        let path = folder.join(object.to_string());
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!("failed to remove {}: {error}", path.display());
        }
    }
    // One that holds something else stays, and so do those above it.
    let ours = folder.ancestors().take_while(|above| above.starts_with(out) && *above != out);
    let _ = ours.map(fs::remove_dir).find(Result::is_err);
}

/// Removes the temporary files in a stream's folder that a process left when it was killed.
pub(super) fn sweep(stream: &StreamFolder) {
    let is_object = |name: &str| Object::parse(name).is_some();
    let index = stream.name.index();
    sweep_folder(&stream.path, |name| name == index.file_name());
    for broadcast in &stream.broadcasts {
        sweep_folder(&stream.path.join(broadcast.to_string()), is_object);
    }
}

fn sweep_folder(folder: &Path, is_ours: impl Fn(&str) -> bool) {
    for entry in entries(folder, &mut MOST_ENTRIES.clone()) {
        let name = entry.file_name();
        let whole = name.to_str().and_then(|name| name.strip_prefix('.')?.strip_suffix(".tmp"));
        if whole.is_some_and(&is_ours)
            && entry.file_type().is_ok_and(|kind| kind.is_file())
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::warn!("failed to remove {}: {error}", entry.path().display());
        }
    }
}

/// The entries of a folder, as far as they can be read.
fn entries(folder: &Path, budget: &mut usize) -> Vec<DirEntry> {
    // What cannot be read is as good as not there: it may be gone by now, or somebody else's.
    let entries: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().take(*budget).collect();
    *budget -= entries.len();
    entries
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn two_cannot_have_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock::take(folder.path()).unwrap();
        let refused = Lock::take(folder.path()).unwrap_err();
        assert!(refused.to_string().contains("another upscope process"), "{refused}");
        drop(lock);
        Lock::take(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "it leaves no file");
    }

    #[test]
    fn only_temporary_files_of_ours_are_swept_and_nothing_foreign_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::create_dir_all(elsewhere.path().join("~5")).unwrap();
        fs::write(elsewhere.path().join("~5/.video-1.mp4.tmp"), "not below us").unwrap();
        fs::create_dir_all(out.join("live/a/~5/sub")).unwrap();
        fs::create_dir_all(out.join("live/a/~5/.audio-9.mp4.tmp")).unwrap();
        fs::create_dir_all(out.join("live/a/~x")).unwrap();
        fs::create_dir_all(out.join("live/b\u{fc}/~5")).unwrap();
        symlink(elsewhere.path(), out.join("live/link")).unwrap();
        symlink(elsewhere.path().join("~5"), out.join("live/a/~6")).unwrap();
        let (ours, others) = (
            ["live/a/.index.m3u8.tmp", "live/a/~5/.video-1.mp4.tmp", "live/a/~5/.audio.m3u8.tmp"],
            [
                "live/.index.m3u8.tmp",
                "live/a/.video-1.mp4.tmp",
                "live/a/~5/.video-1.mp4",
                "live/a/~5/.x.tmp",
                "live/a/~5/video-1.mp4",
                "live/a/~5/sub/.video-1.mp4.tmp",
                "live/a/~x/.video-1.mp4.tmp",
                "live/b\u{fc}/~5/.video-1.mp4.tmp",
                "live/.hidden",
            ],
        );
        for path in ours.iter().chain(&others) {
            fs::write(out.join(path), "x").unwrap();
        }
        symlink(elsewhere.path().join("~5/.video-1.mp4.tmp"), out.join("live/a/~5/.video-7.mp4.tmp")).unwrap();

        let streams = streams(out);
        let found: Vec<_> = streams.iter().map(|stream| (stream.name.as_str(), stream.broadcasts.as_slice())).collect();
        assert_eq!(found, [("live/a", [BroadcastId { unix_ms: 5 }].as_slice())]);
        streams.iter().for_each(sweep);
        for path in ours {
            assert!(!out.join(path).exists(), "{path}");
        }
        for path in others {
            assert!(out.join(path).exists(), "{path}");
        }
        assert!(out.join("live/a/~5/.audio-9.mp4.tmp").is_dir());
        assert!(out.join("live/a/~5/.video-7.mp4.tmp").symlink_metadata().is_ok());
        assert!(elsewhere.path().join("~5/.video-1.mp4.tmp").exists());
        assert_eq!(objects(&out.join("live/a/~5")), [(Object::Segment(crate::media::TrackId::VIDEO, 1), 1)]);
    }
}
