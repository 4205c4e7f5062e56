//! A folder on a disk.
//!
//! Readers never see half a file: `live/cam1/~17/v-5.m4s` is written as `live/cam1/~17/.v-5.m4s.tmp` and renamed when
//! it is whole. The temporary name is opened with `O_CREAT | O_EXCL`, which follows no symbolic link.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::{Store, Torn};
use crate::action::{Action, Key};

/// Performs actions in a folder. Holds an open file for each object that is not yet whole.
#[derive(Debug)]
pub(in crate::server) struct DiskStore {
    root: Arc<Path>,
    /// One for each track, seldom more: looked through faster than hashed.
    partial: Vec<(Key, Partial)>,
    /// Folders that were there, relative to the root: the stream's and the broadcast's.
    folders: Vec<Box<str>>,
    has_vanished: bool,
    /// Has its name, which is not yet known to last.
    renamed: Option<Key>,
    durability: Durability,
    operations: Operations,
}

/// What a file has to outlive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Durability {
    /// The end of the process.
    Process,
    /// The loss of power: a file is on the disk before it gets its name, and its name before the next file.
    Power,
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
    pub(in crate::server) fn new(root: Arc<Path>, durability: Durability) -> Self {
        Self {
            root,
            partial: Vec::new(),
            folders: Vec::new(),
            has_vanished: false,
            renamed: None,
            durability,
            operations: Operations::default(),
        }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.below_root(key.as_str(), &[])
    }

    /// Where an object lies until it is whole: in the same folder, so that a rename is all that is left to do.
    fn temporary(&self, key: &Key) -> PathBuf {
        let (folder, name) = key.split();
        self.below_root(folder, &["/.", name, ".tmp"])
    }

    /// The path of `place` and what is behind it, in one piece of memory.
    fn below_root(&self, place: &str, behind: &[&str]) -> PathBuf {
        let bytes = place.len() + behind.iter().map(|part| part.len()).sum::<usize>();
        let mut path = PathBuf::with_capacity(self.root.as_os_str().len() + 1 + bytes);
        path.push(&*self.root);
        path.push(place);
        let path = path.as_mut_os_string();
        behind.iter().for_each(|part| path.push(part));
        std::mem::take(path).into()
    }

    fn create(&mut self, key: &Key) -> io::Result<Partial> {
        let path = self.temporary(key);
        let (folder, _) = key.split();
        if !self.knows(folder) {
            self.refuse_links(&self.below_root(folder, &[]))?;
        }
        let create = |operations: &Operations| {
            operations.check("open")?;
            OpenOptions::new().write(true).create_new(true).open(&path)
        };
        let file = match create(&self.operations) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if self.knows(folder) {
                    self.vanish();
                }
                self.operations.check("create_dir")?;
                let folder = self.below_root(folder, &[]);
                fs::create_dir_all(&folder)?;
                self.ours(&folder).try_for_each(|folder| self.sync_name(folder))?;
                create(&self.operations)
            }
            // Left by a process that was killed.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                self.operations.check("remove")?;
                fs::remove_file(&path)?;
                create(&self.operations)
            }
            other => other,
        }?;
        if !self.knows(folder) {
            self.folders.push(folder.into());
        }
        Ok(Partial { file, path, bytes: 0, is_torn: false })
    }

    /// Whether a folder, relative to the root, was there.
    fn knows(&self, folder: &str) -> bool {
        self.folders.iter().any(|known| **known == *folder)
    }

    /// A folder and those above it, below the root.
    fn ours<'a>(&self, folder: &'a Path) -> impl Iterator<Item = &'a Path> {
        folder.ancestors().take_while(|above| *above != &*self.root)
    }

    /// Where a link leads is not ours, though the link may lie in our folder.
    fn refuse_links(&self, folder: &Path) -> io::Result<()> {
        let is_link = |above: &&Path| fs::symlink_metadata(above).is_ok_and(|metadata| metadata.is_symlink());
        match self.ours(folder).find(is_link) {
            Some(link) => Err(io::Error::other(format!("{} is a symbolic link", link.display()))),
            None => Ok(()),
        }
    }

    /// All that was put is gone, and what is open has no name any more.
    fn vanish(&mut self) {
        self.has_vanished = true;
        self.folders.clear();
        for (_, partial) in &mut self.partial {
            partial.is_torn = true;
        }
    }

    fn complete(&self, partial: &Partial, path: &Path) -> io::Result<()> {
        if self.durability == Durability::Power {
            self.operations.check("sync")?;
            partial.file.sync_all()?;
        }
        self.operations.check("rename")?;
        fs::rename(&partial.path, path)
    }

    /// The last step of a put; if it fails, the next try begins here.
    fn make_name_last(&mut self, path: &Path) -> io::Result<()> {
        self.sync_name(path)?;
        self.renamed = None;
        Ok(())
    }

    /// Makes the name of what lies at `path` last: its folder is on the disk.
    fn sync_name(&self, path: &Path) -> io::Result<()> {
        match (self.durability, path.parent()) {
            (Durability::Power, Some(folder)) => {
                self.operations.check("sync folder")?;
                File::open(folder)?.sync_all()
            }
            _ => Ok(()),
        }
    }
}

impl DiskStore {
    fn find(&self, key: &Key) -> Option<usize> {
        self.partial.iter().position(|(of, _)| of == key)
    }

    /// Adds to an object that nobody can see yet, and says where it is among the partial ones.
    fn append(&mut self, key: &Key, body: &[Bytes]) -> io::Result<usize> {
        let position = match self.find(key) {
            Some(position) => position,
            None => {
                let partial = self.create(key)?;
                self.partial.push((key.clone(), partial));
                self.partial.len() - 1
            }
        };
        self.partial[position].1.append(body, &self.operations)?;
        Ok(position)
    }

    /// Completes an object and makes it visible, whole.
    fn put(&mut self, key: &Key, body: &[Bytes]) -> io::Result<()> {
        let path = self.path(key);
        if self.renamed.as_ref() == Some(key) {
            return self.make_name_last(&path);
        }
        let has_been_appended = self.find(key).is_some_and(|position| self.partial[position].1.bytes > 0);
        let position = self.append(key, body)?;
        if let Err(error) = self.complete(&self.partial[position].1, &path) {
            let is_gone = error.kind() == ErrorKind::NotFound;
            let partial = &mut self.partial[position].1;
            partial.take_back(body);
            if is_gone && partial.bytes == 0 {
                // All of it comes again with the next try.
                self.partial.swap_remove(position);
            }
            if is_gone {
                self.vanish();
            }
            return Err(error);
        }
        self.partial.swap_remove(position);
        // What was put in one piece is put again if that fails.
        self.renamed = has_been_appended.then(|| key.clone());
        self.make_name_last(&path)
    }

    /// Removes an object, or what was appended to it; one that is not there is fine.
    fn delete(&mut self, key: &Key) -> io::Result<()> {
        self.operations.check("remove")?;
        self.renamed.take_if(|renamed| renamed == key);
        if let Some(position) = self.find(key) {
            let partial = &mut self.partial[position].1;
            // Should it stay for now, it is never completed.
            partial.is_torn = true;
            remove_file(&partial.path)?;
            self.partial.swap_remove(position);
        }
        remove_file(&self.path(key))
    }
}

impl Store for DiskStore {
    fn perform(&mut self, action: &Action) -> io::Result<()> {
        match action {
            Action::Append { key, body } => self.append(key, body).map(drop),
            Action::Put { key, body, .. } => self.put(key, body),
            Action::Delete { key } => self.delete(key),
        }
    }

    fn take_vanished(&mut self) -> bool {
        std::mem::take(&mut self.has_vanished)
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        for (_, partial) in &self.partial {
            // Nobody is left to tell; the name can be used again, and is not served.
            let _ = remove_file(&partial.path);
        }
    }
}

impl Partial {
    fn append(&mut self, body: &[Bytes], operations: &Operations) -> io::Result<()> {
        if self.is_torn {
            return Err(io::Error::other(Torn));
        }
        match operations.check("write").and_then(|()| write_all_vectored(&mut self.file, body)) {
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

/// The file operations; in tests, some fail.
#[derive(Debug, Default, Clone)]
struct Operations {
    #[cfg(test)]
    fail: Option<Fail>,
}

/// Decides which operation fails.
#[cfg(test)]
#[derive(Clone)]
struct Fail(Arc<Failing>);

/// Fails the operation of this name, or does not.
#[cfg(test)]
pub(in crate::server) type Failing = dyn Fn(&str) -> io::Result<()> + Send + Sync;

#[cfg(test)]
impl std::fmt::Debug for Fail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fail")
    }
}

impl Operations {
    #[cfg(not(test))]
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "in tests it can fail")]
    fn check(&self, _operation: &str) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn check(&self, operation: &str) -> io::Result<()> {
        self.fail.as_ref().map_or(Ok(()), |fail| fail.0(operation))
    }
}

#[cfg(test)]
impl DiskStore {
    /// A store whose file operations fail when `fail` says so.
    pub(in crate::server) fn failing(root: Arc<Path>, durability: Durability, fail: Arc<Failing>) -> Self {
        let mut store = Self::new(root, durability);
        store.operations.fail = Some(Fail(fail));
        store
    }
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
    for pieces in body.chunks(PIECES_AT_ONCE) {
        let mut slices = [IoSlice::new(&[]); PIECES_AT_ONCE];
        for (slice, piece) in slices.iter_mut().zip(pieces) {
            *slice = IoSlice::new(piece);
        }
        let mut slices = &mut slices[..pieces.len()];
        // Takes off those that are empty.
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            match file.write_vectored(slices) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut slices, written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Pieces of a system call, at most: more than a live stream's have, and few enough for the stack.
const PIECES_AT_ONCE: usize = 64;

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
        let store = DiskStore::new(folder.path().into(), Durability::Process);
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
    fn what_was_appended_and_could_not_be_deleted_can_be_deleted_later() {
        let (folder, mut store) = store();
        let temporary = folder.path().join("live/a/.index.m3u8.tmp");
        store.append(&key("a"), &body(&["x"])).unwrap();
        // A folder in the way: it cannot be removed as a file.
        fs::rename(&temporary, folder.path().join("away")).unwrap();
        fs::create_dir(&temporary).unwrap();
        assert!(store.delete(&key("a")).is_err());
        fs::remove_dir(&temporary).unwrap();
        fs::rename(folder.path().join("away"), &temporary).unwrap();
        assert!(Torn::is(&store.put(&key("a"), &body(&["y"])).unwrap_err()));
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
    fn a_folder_that_is_a_link_is_not_followed() {
        let (folder, mut store) = store();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("live")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("live/a")).unwrap();
        assert!(store.put(&key("a"), &body(&["x"])).unwrap_err().to_string().contains("symbolic link"));
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
        fs::remove_file(folder.path().join("live/a")).unwrap();
        store.put(&key("a"), &body(&["x"])).unwrap();
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
    fn a_folder_that_was_removed_is_made_again_and_told_about() {
        let (folder, mut store) = store();
        store.put(&key("a"), &body(&["x"])).unwrap();
        assert!(!store.take_vanished(), "the first time it is only new");
        fs::remove_dir_all(folder.path().join("live")).unwrap();
        store.put(&key("a"), &body(&["y"])).unwrap();
        assert!(store.take_vanished() && !store.take_vanished());
        assert_eq!(fs::read_to_string(folder.path().join("live/a/index.m3u8")).unwrap(), "y");
    }

    #[test]
    fn what_was_appended_in_a_removed_folder_is_never_completed() {
        let (folder, mut store) = store();
        store.append(&key("a"), &body(&["one "])).unwrap();
        fs::remove_dir_all(folder.path().join("live")).unwrap();
        assert_eq!(store.put(&key("a"), &body(&["two"])).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(store.take_vanished());
        assert!(Torn::is(&store.put(&key("a"), &body(&["two"])).unwrap_err()));
        store.delete(&key("a")).unwrap();
        store.put(&key("a"), &body(&["anew"])).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("live/a/index.m3u8")).unwrap(), "anew");
    }

    #[test]
    fn p11_a_file_is_on_the_disk_before_it_gets_its_name_and_its_name_before_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let tell = Arc::clone(&told);
        let fail = Arc::new(move |operation: &str| {
            tell.lock().unwrap().push(operation.to_owned());
            Ok(())
        });
        let mut store = DiskStore::failing(folder.path().into(), Durability::Power, fail);
        store.append(&key("a"), &body(&["one "])).unwrap();
        store.put(&key("a"), &body(&["two"])).unwrap();
        let made = ["open", "create_dir", "sync folder", "sync folder", "open"];
        let written = ["write", "write", "sync", "rename", "sync folder"];
        assert_eq!(*told.lock().unwrap(), [made.as_slice(), written.as_slice()].concat());
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
