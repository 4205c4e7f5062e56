//! The folder that is looked at: bounded reads of regular files, and URIs that stay inside.
//!
//! The only file of this folder that reads from the disk.

#![expect(clippy::disallowed_methods, reason = "inspect is the other end of the disk, outside the core")]

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// Longest playlist read: more than a day of two-second segments at 300 bytes each.
pub(super) const PLAYLIST_BYTES: u64 = 32 << 20;
/// Longest header read.
pub(super) const HEADER_BYTES: u64 = 1 << 20;
/// Longest segment read.
pub(super) const SEGMENT_BYTES: u64 = 256 << 20;
/// How deep playlists are looked for.
const DEEPEST: usize = 8;
/// How many directory entries are looked at.
const MOST_ENTRIES: usize = 1_000_000;

/// Reads a regular file, whole, when it is not longer than `limit` bytes.
pub(super) fn read(path: &Path, limit: u64) -> anyhow::Result<Vec<u8>> {
    // Asked before opening: opening a pipe would wait for its writer.
    let about = fs::metadata(path).context("not there")?;
    ensure!(about.is_file(), "not a file");
    ensure!(about.len() <= limit, "{} bytes, at most {limit} are read", about.len());
    let mut bytes = Vec::with_capacity(usize::try_from(about.len())?);
    File::open(path).context("open")?.take(limit).read_to_end(&mut bytes).context("read")?;
    Ok(bytes)
}

/// All playlists at and below a folder, in order of their names; symbolic links are not followed.
pub(super) fn playlists_below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![(folder.to_owned(), 0)];
    let mut seen = 0;
    while let Some((folder, depth)) = open.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("read folder {}", folder.display()))?;
        for entry in entries {
            let Ok(entry) = entry else { continue };
            seen += 1;
            ensure!(seen <= MOST_ENTRIES, "more than {MOST_ENTRIES} files");
            let Ok(kind) = entry.file_type() else { continue };
            let path = entry.path();
            if kind.is_dir() && depth < DEEPEST {
                open.push((path, depth + 1));
            } else if kind.is_file() && path.extension().is_some_and(|e| e == "m3u8") && !is_hidden(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Names in a folder that start with a dot.
pub(super) fn hidden_files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()) && is_hidden(&entry.path()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

/// A folder and a path in it as playlists write it, `/` between the parts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    root: PathBuf,
    parts: Vec<String>,
}

impl Place {
    /// A file in `root`, which no URI may leave.
    pub(super) fn new(root: &Path, name: &str) -> Self {
        Self { root: root.to_owned(), parts: vec![name.to_owned()] }
    }

    /// What a URI in the file at this place stands for.
    ///
    /// # Errors
    /// Says in words why the URI names no file in the folder.
    pub(super) fn resolve(&self, uri: &str) -> Result<Self, &'static str> {
        let path = uri.split(['?', '#']).next().unwrap_or_default();
        if path.is_empty() {
            return Err("names nothing");
        }
        if path.starts_with('/') || path.contains("://") || path.starts_with("data:") {
            return Err("is absolute: the folder could not be moved or mirrored");
        }
        let mut parts = self.parts[..self.parts.len() - 1].to_vec();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop().ok_or("leaves the folder")?;
                }
                part if part.contains(['\\', '\0']) => return Err("has a character that file names must not have"),
                part => parts.push(part.to_owned()),
            }
        }
        if parts.is_empty() {
            return Err("names a folder");
        }
        Ok(Self { root: self.root.clone(), parts })
    }

    /// Where it is on disk.
    pub(super) fn path(&self) -> PathBuf {
        self.parts.iter().fold(self.root.clone(), |path, part| path.join(part))
    }

    /// The folder it is in, on disk.
    pub(super) fn folder(&self) -> PathBuf {
        let mut path = self.path();
        path.pop();
        path
    }

    /// The path of another file beside it.
    pub(super) fn sibling(&self, name: &str) -> String {
        let mut parts = self.parts.clone();
        parts.pop();
        parts.push(name.to_owned());
        parts.join("/")
    }

    /// Its path in the folder.
    pub(super) fn name(&self) -> String {
        self.parts.join("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_a_file_inside_the_folder_or_nothing() {
        let index = Place::new(Path::new("/out"), "index.m3u8");
        let video = index.resolve("~1/video.m3u8").unwrap();
        assert_eq!(video.name(), "~1/video.m3u8");
        assert_eq!(video.resolve("video-0.mp4?token=1").unwrap().path(), Path::new("/out/~1/video-0.mp4"));
        assert_eq!(video.resolve("../~2/a.mp4").unwrap().name(), "~2/a.mp4");
        for uri in ["../../a.mp4", "/etc/passwd", "http://a/b", "", "?", "..", "a\\b", "../../out/~1/a"] {
            assert!(video.resolve(uri).is_err(), "{uri}");
        }
    }
}
