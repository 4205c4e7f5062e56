//! What performs the core's actions: today the disk; in tests one that fails on demand.

mod disk;

#[cfg(test)]
pub(super) use disk::Failing;
pub(super) use disk::{DiskStore, Durability};

use std::fmt;
use std::io;

use crate::action::Action;

/// Performs one publisher's actions, one after the other, in the calling thread.
///
/// An action that fails has changed nothing that a viewer can see, and may be tried again.
pub(super) trait Store: Send + 'static {
    /// Performs an action. To delete what is not there is fine.
    fn perform(&mut self, action: &Action) -> io::Result<()>;

    /// Whether somebody has removed the folder with all that was put, since this was last asked.
    fn take_vanished(&mut self) -> bool {
        false
    }
}

/// What was appended to an object is lost: trying again does not help.
#[derive(Debug)]
pub(super) struct Torn;

impl fmt::Display for Torn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what was written before is lost")
    }
}

impl std::error::Error for Torn {}

impl Torn {
    /// Whether this is the error.
    pub(super) fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}

/// Makes the store of a new broadcast.
pub(super) type MakeStore = dyn Fn() -> Box<dyn Store> + Send + Sync;
