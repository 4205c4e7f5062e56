//! What a store could not delete, which is tried again ever more rarely, and holds up nothing meanwhile.

use std::time::Duration;

use tokio::time::Instant;

use crate::action::{Action, Key};

/// As many as two renditions may have left behind.
const MOST: usize = 2_048;
/// How long the next try waits at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// Objects that could not be deleted.
#[derive(Debug)]
pub(super) struct Undeleted {
    keys: Vec<Key>,
    /// When they are tried again.
    at: Option<Instant>,
    pause: Duration,
}

impl Undeleted {
    pub(super) fn new() -> Self {
        Self { keys: Vec::new(), at: None, pause: FIRST_PAUSE }
    }

    /// Remembers an object; one too many stays until its broadcast is removed.
    pub(super) fn add(&mut self, key: Key, now: Instant) {
        if self.keys.len() < MOST {
            self.keys.push(key);
            self.at.get_or_insert(now + self.pause);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// When [`take_due`](Self::take_due) has something.
    pub(super) fn at(&self) -> Option<Instant> {
        self.at
    }

    /// What is to be tried again now.
    pub(super) fn take_due(&mut self) -> impl Iterator<Item = Action> {
        let is_due = self.at.take_if(|at| Instant::now() >= *at).is_some();
        if is_due {
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
        let due = if is_due { std::mem::take(&mut self.keys) } else { Vec::new() };
        due.into_iter().map(|key| Action::Delete { key })
    }
}
