//! What performs the core's actions: today the disk; in tests one that fails on demand.

mod disk;

pub(super) use disk::DiskStore;

use std::io;

use bytes::Bytes;

use crate::action::{Action, Key};

/// Performs one publisher's actions, one after the other, in the calling thread.
///
/// An action that fails has changed nothing that a viewer can see, and may be tried again.
pub(super) trait Store: Send + 'static {
    /// Adds to an object that nobody can see yet.
    fn append(&mut self, key: &Key, body: &[Bytes]) -> io::Result<()>;

    /// Completes an object and makes it visible, whole.
    fn put(&mut self, key: &Key, body: &[Bytes]) -> io::Result<()>;

    /// Removes an object, or what was appended to it; one that is not there is fine.
    fn delete(&mut self, key: &Key) -> io::Result<()>;

    /// Performs an action.
    fn perform(&mut self, action: &Action) -> io::Result<()> {
        match action {
            Action::Append { key, body } => self.append(key, body),
            Action::Put { key, body, .. } => self.put(key, body),
            Action::Delete { key } => self.delete(key),
        }
    }
}

/// Makes the store of a new broadcast.
pub(super) type MakeStore = dyn Fn() -> Box<dyn Store> + Send + Sync;
