//! A folder on a disk.
//!
//! Readers never see half a file: `live/cam1/~17/v-5.m4s` is written as `live/cam1/~17/.v-5.m4s.tmp` and renamed when
//! it is whole. The temporary name is opened with `O_CREAT | O_EXCL`, which follows no symbolic link.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::Store;
use crate::action::Key;

/// Performs actions in a folder. Holds an open file for each object that is not yet whole.
#[derive(Debug)]
pub(in crate::server) struct DiskStore {
    root: Arc<Path>,
    partial: HashMap<Key, Partial>,
}

/// An object that is not yet whole.
#[derive(Debug)]
struct Partial {
    file: File,
    path: PathBuf,
    bytes: u64,
    /// What the file holds is not known any more; only deleting it helps.
    is_torn: bool,
}

impl DiskStore {
    /// A store that writes below `root`, which exists.
    pub(in crate::server) fn new(root: Arc<Path>) -> Self {
        Self { root, partial: HashMap::new() }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }
}

impl Store for DiskStore {
    fn append(&mut self, key: &Key, body: &[Bytes]) -> io::Result<()> {
        if !self.partial.contains_key(key) {
            self.partial.insert(key.clone(), Partial::create(&self.path(key))?);
        }
        match self.partial.get_mut(key) {
            Some(partial) => partial.append(body),
            None => Err(io::Error::other("the temporary file is gone")),
        }
    }

    fn put(&mut self, key: &Key, body: &[Bytes]) -> io::Result<()> {
        self.append(key, body)?;
        let path = self.path(key);
        let Some(partial) = self.partial.get_mut(key) else {
            return Err(io::Error::other("the temporary file is gone"));
        };
        if let Err(error) = fs::rename(&partial.path, path) {
            partial.take_back(body);
            return Err(error);
        }
        self.partial.remove(key);
        Ok(())
    }

    fn delete(&mut self, key: &Key) -> io::Result<()> {
        if let Some(partial) = self.partial.remove(key) {
            remove_file(&partial.path)?;
        }
        remove_file(&self.path(key))
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        for partial in self.partial.values() {
            // Nobody is left to tell; the name can be used again, and is not served.
            let _ = remove_file(&partial.path);
        }
    }
}

impl Partial {
    fn create(path: &Path) -> io::Result<Self> {
        let path = temporary(path)?;
        let create = || OpenOptions::new().write(true).create_new(true).open(&path);
        let file = match create() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder)?;
                }
                create()
            }
            // Left by a process that was killed.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                fs::remove_file(&path)?;
                create()
            }
            other => other,
        }?;
        Ok(Self { file, path, bytes: 0, is_torn: false })
    }

    fn append(&mut self, body: &[Bytes]) -> io::Result<()> {
        if self.is_torn {
            return Err(io::Error::other("an earlier write to this file failed and could not be taken back"));
        }
        match write_all_vectored(&mut self.file, body) {
            Ok(()) => {
                self.bytes += length(body);
                Ok(())
            }
            Err(error) => {
                self.truncate();
                Err(error)
            }
        }
    }

    /// Undoes an append.
    fn take_back(&mut self, body: &[Bytes]) {
        self.bytes -= length(body);
        self.truncate();
    }

    fn truncate(&mut self) {
        let back = self.file.set_len(self.bytes).and_then(|()| self.file.seek(SeekFrom::Start(self.bytes)));
        self.is_torn |= back.is_err();
    }
}

/// Where the object at `path` lies until it is whole: in the same folder, so that a rename is all that is left to do.
fn temporary(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(".tmp");
    Ok(path.with_file_name(temporary))
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn length(body: &[Bytes]) -> u64 {
    body.iter().map(|piece| piece.len() as u64).sum()
}

/// Writes all pieces, over short writes and interruptions.
fn write_all_vectored(file: &mut impl Write, body: &[Bytes]) -> io::Result<()> {
    /// The most pieces a system call takes (`IOV_MAX`).
    const MOST_PIECES: usize = 1024;

    let mut slices: Vec<_> = body.iter().filter(|piece| !piece.is_empty()).map(|piece| IoSlice::new(piece)).collect();
    let mut slices = slices.as_mut_slice();
    while !slices.is_empty() {
        match file.write_vectored(&slices[..slices.len().min(MOST_PIECES)]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::StreamName;

    fn key(stream: &str) -> Key {
        StreamName::parse("live", stream).unwrap().index()
    }

    fn body(pieces: &[&'static str]) -> Vec<Bytes> {
        pieces.iter().map(|piece| Bytes::from_static(piece.as_bytes())).collect()
    }

    fn store() -> (tempfile::TempDir, DiskStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = DiskStore::new(folder.path().into());
        (folder, store)
    }

    #[test]
    fn an_object_is_seen_only_when_it_is_whole() {
        let (folder, mut store) = store();
        let path = folder.path().join("live/a/index.m3u8");
        store.append(&key("a"), &body(&["on", "", "e "])).unwrap();
        store.append(&key("a"), &body(&["two "])).unwrap();
        assert!(!path.exists());
        assert!(path.with_file_name(".index.m3u8.tmp").exists());
        store.put(&key("a"), &body(&["three"])).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one two three");
        assert_eq!(fs::read_dir(folder.path().join("live/a")).unwrap().count(), 1);
    }

    #[test]
    fn a_put_replaces_what_was_there() {
        let (folder, mut store) = store();
        store.put(&key("a"), &body(&["old and longer"])).unwrap();
        store.put(&key("a"), &body(&["new"])).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("live/a/index.m3u8")).unwrap(), "new");
    }

    #[test]
    fn a_delete_removes_the_object_and_what_was_appended() {
        let (folder, mut store) = store();
        store.put(&key("a"), &body(&["x"])).unwrap();
        store.append(&key("a"), &body(&["y"])).unwrap();
        store.delete(&key("a")).unwrap();
        store.delete(&key("a")).unwrap();
        assert_eq!(fs::read_dir(folder.path().join("live/a")).unwrap().count(), 0);
    }

    #[test]
    fn a_store_that_is_dropped_leaves_no_temporary_file() {
        let (folder, mut store) = store();
        store.append(&key("a"), &body(&["x"])).unwrap();
        drop(store);
        assert_eq!(fs::read_dir(folder.path().join("live/a")).unwrap().count(), 0);
    }

    #[test]
    fn a_temporary_file_left_by_another_run_is_replaced_and_a_link_is_not_followed() {
        let (folder, mut store) = store();
        fs::create_dir_all(folder.path().join("live/a")).unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, "mine").unwrap();
        std::os::unix::fs::symlink(&victim, folder.path().join("live/a/.index.m3u8.tmp")).unwrap();
        store.put(&key("a"), &body(&["x"])).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
        assert_eq!(fs::read_to_string(folder.path().join("live/a/index.m3u8")).unwrap(), "x");
    }

    #[test]
    fn a_put_that_failed_can_be_tried_again() {
        let (folder, mut store) = store();
        let path = folder.path().join("live/a/index.m3u8");
        store.append(&key("a"), &body(&["one "])).unwrap();
        // A folder in the way: the rename fails.
        fs::create_dir(&path).unwrap();
        fs::write(path.join("x"), "").unwrap();
        assert!(store.put(&key("a"), &body(&["two"])).is_err());
        assert!(store.put(&key("a"), &body(&["two"])).is_err());
        fs::remove_dir_all(&path).unwrap();
        store.put(&key("a"), &body(&["two"])).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one two");
    }

    #[test]
    fn a_folder_that_was_removed_is_made_again() {
        let (folder, mut store) = store();
        store.put(&key("a"), &body(&["x"])).unwrap();
        fs::remove_dir_all(folder.path().join("live")).unwrap();
        store.put(&key("a"), &body(&["y"])).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("live/a/index.m3u8")).unwrap(), "y");
    }

    #[test]
    fn many_pieces_and_short_writes_make_the_same_file() {
        struct Short(Vec<u8>);
        impl Write for Short {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let taken = bytes.len().min(3);
                self.0.extend_from_slice(&bytes[..taken]);
                Ok(taken)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let body: Vec<_> = (0..3000).map(|n| Bytes::from(n.to_string())).collect();
        let mut short = Short(Vec::new());
        write_all_vectored(&mut short, &body).unwrap();
        assert_eq!(short.0, body.concat());

        let (folder, mut store) = store();
        store.put(&key("a"), &body).unwrap();
        assert_eq!(fs::read(folder.path().join("live/a/index.m3u8")).unwrap(), body.concat());
    }
}
