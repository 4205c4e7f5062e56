//! Keeps the output folder within its bounds: how long ended broadcasts stay, how large the folder gets, how much of the
//! disk is left for others.
//!
//! ```text
//!   ended ──retained long enough, or room is needed──→ leaving: no index.m3u8 ──its lifetime──→ gone
//! ```
//!
//! A broadcast leaves in two steps, because viewers who hold a playlist may ask for what it lists as long as that lasts
//! (RFC 8216bis 6.2.2). When there is nothing to remove and no room, segments are refused as by a full disk: they become
//! gaps, and what leaves the playlists makes room. Time is monotonic: a wall clock that jumps removes nothing.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::broadcast::Broadcast;
use super::folder;
use super::registry::Registry;
use super::store::{MakeStore, Store};
use crate::action::{Action, BroadcastId, ObjectKind, StreamName};
use crate::config::Config;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Room is made when less than this part of a bound is left.
const MARGIN: u64 = 10;
/// What disks give files by, in bytes: so much may be lost at the end of each.
const BLOCK_BYTES: u64 = 4096;
/// The largest multivariant playlist that is looked into, in bytes.
const MOST_INDEX_BYTES: u64 = 1 << 20;

/// What the operator allows.
#[derive(Debug, Clone, Copy, Default)]
struct Bounds {
    /// How long an ended broadcast stays.
    retain: Option<Duration>,
    /// What the folder may hold, in bytes.
    max_disk: Option<u64>,
    /// What has to stay free on its disk, in bytes.
    min_free: Option<u64>,
}

/// Knows the broadcasts that have ended, and how much more may be written.
#[derive(Debug)]
pub(super) struct Governor {
    out: Arc<Path>,
    bounds: Bounds,
    ended: Mutex<VecDeque<Ended>>,
    room: Arc<Room>,
}

/// A broadcast that has ended.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub(super) name: StreamName,
    pub(super) broadcast: BroadcastId,
    /// How long viewers may ask for what its playlists list.
    pub(super) lifetime: Duration,
    /// When.
    pub(super) at: Instant,
}

/// A broadcast that nobody new can find.
#[derive(Debug)]
struct Leaving {
    path: PathBuf,
    bytes: u64,
    /// When nobody asks for it any more.
    gone_at: Instant,
}

impl Governor {
    /// For the folder and the bounds of `config`.
    pub(super) fn new(config: &Config) -> Arc<Self> {
        let bounds = Bounds { retain: config.retain.0, max_disk: config.max_disk.0, min_free: config.min_free.0 };
        let room = Arc::new(Room { written: AtomicU64::new(0), most: AtomicU64::new(u64::MAX) });
        Arc::new(Self { out: config.out.0.as_path().into(), bounds, ended: Mutex::default(), room })
    }

    /// Takes note of a broadcast that has ended.
    pub(super) fn note(&self, ended: Ended) {
        let mut all = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let position = all.partition_point(|other| other.at <= ended.at);
        all.insert(position, ended);
    }

    /// Whether there is no room for another broadcast.
    pub(super) fn is_full(&self) -> bool {
        self.room.left() == 0
    }

    /// Makes stores that refuse segments for which there is no room.
    pub(super) fn bound(&self, make_store: Arc<MakeStore>) -> Arc<MakeStore> {
        if self.bounds.max_disk.is_none() && self.bounds.min_free.is_none() {
            return make_store;
        }
        let room = Arc::clone(&self.room);
        Arc::new(move || Box::new(Bounded { store: make_store(), room: Arc::clone(&room) }))
    }

    /// Works for ever.
    pub(super) async fn run(self: Arc<Self>, registry: Arc<Registry<Box<Broadcast>>>) {
        let mut leaving = Vec::new();
        loop {
            sleep(LOOK_EVERY).await;
            // Work that comes each second would keep every thread that ever worked from its rest.
            if !self.has_to_look(&leaving) {
                continue;
            }
            let (this, names) = (Arc::clone(&self), Arc::clone(&registry));
            let looked = spawn_blocking(move || {
                this.look(&names, &mut leaving);
                leaving
            });
            // An error is a panic, which has been reported.
            leaving = looked.await.unwrap_or_default();
        }
    }

    fn has_to_look(&self, leaving: &[Leaving]) -> bool {
        let now = Instant::now();
        let Bounds { retain, max_disk, min_free } = self.bounds;
        let is_over = |ended: &Ended| retain.is_some_and(|retain| now >= ended.at + retain);
        max_disk.is_some()
            || min_free.is_some()
            || leaving.iter().any(|leaving| now >= leaving.gone_at)
            || self.ended.lock().unwrap_or_else(PoisonError::into_inner).front().is_some_and(is_over)
    }

    fn look(&self, registry: &Arc<Registry<Box<Broadcast>>>, leaving: &mut Vec<Leaving>) {
        let now = Instant::now();
        leaving.retain(|leaving| {
            let is_over = now >= leaving.gone_at;
            if is_over {
                folder::remove_broadcast(&leaving.path, &self.out);
            }
            !is_over
        });
        let mut wanted = self.measure().saturating_sub(leaving.iter().map(|leaving| leaving.bytes).sum());
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ended.retain(|ended| {
            let is_over = self.bounds.retain.is_some_and(|retain| now >= ended.at + retain);
            if !is_over && wanted == 0 || !self.hide(ended, registry) {
                return false;
            }
            let path = self.out.join(ended.name.as_str()).join(ended.broadcast.to_string());
            let bytes = folder::objects(&path).iter().map(|(_, bytes)| bytes).sum();
            wanted = wanted.saturating_sub(bytes);
            tracing::info!(stream = %ended.name, "{} leaves: {}", ended.broadcast, if is_over { "its time is over" } else { "room is needed" });
            leaving.push(Leaving { path, bytes, gone_at: now + ended.lifetime });
            true
        });
        let left =
            |other: &Ended| ended.iter().any(|left| left.broadcast == other.broadcast && left.name == other.name);
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| !left(other));
    }

    /// Removes the multivariant playlist that leads to a broadcast; says whether none does any more.
    fn hide(&self, ended: &Ended, registry: &Arc<Registry<Box<Broadcast>>>) -> bool {
        let index = self.out.join(ended.name.index().as_str());
        let leads_to_it = || {
            let text = folder::read_file(&index, MOST_INDEX_BYTES).unwrap_or_default();
            String::from_utf8_lossy(&text).contains(&format!("{}/", ended.broadcast))
        };
        if !leads_to_it() {
            return true;
        }
        // Whoever begins meanwhile waits until we are done; whoever is there already will replace it himself.
        let Some(offer) = registry.offer_free(&ended.name) else { return false };
        let is_hidden = !leads_to_it() || fs::remove_file(&index).is_ok();
        if let Some(next) = offer.withdraw() {
            let _ = next.answer(None);
        }
        is_hidden
    }

    /// Measures how much more may be written, and says how many bytes should go to make room.
    pub(super) fn measure(&self) -> u64 {
        let Bounds { max_disk, min_free, .. } = self.bounds;
        let written = self.room.written.load(Ordering::Relaxed);
        let of_folder = max_disk.map(|most| (most, most.saturating_sub(folder::size(&self.out))));
        let of_disk = min_free.map(|least| (least, free(&self.out).saturating_sub(least)));
        let bounds = of_folder.iter().chain(&of_disk);
        let Some(left) = bounds.clone().map(|(_, left)| *left).min() else { return 0 };
        self.room.most.store(written + left, Ordering::Relaxed);
        bounds.map(|(bound, left)| (bound / MARGIN).saturating_sub(*left)).max().unwrap_or(0)
    }
}

/// What is free on the disk of a folder, in bytes. If that cannot be told, nothing is held back.
fn free(folder: &Path) -> u64 {
    rustix::fs::statvfs(folder).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// How much more may be written until the next measurement, which finds what was deleted meanwhile.
#[derive(Debug)]
struct Room {
    /// Bytes of segments, since the start.
    written: AtomicU64,
    /// What that may become.
    most: AtomicU64,
}

impl Room {
    fn left(&self) -> u64 {
        self.most.load(Ordering::Relaxed).saturating_sub(self.written.load(Ordering::Relaxed))
    }

    /// Takes room for what is added to an object, and for what is lost behind its end if it `ends` with that.
    fn take(&self, body: &[Bytes], ends: bool) -> io::Result<()> {
        let bytes = body.iter().map(|piece| piece.len() as u64).sum::<u64>() + if ends { BLOCK_BYTES } else { 0 };
        if bytes > self.left() {
            return Err(io::Error::new(ErrorKind::StorageFull, "no room is left (--max-disk, --min-free)"));
        }
        self.written.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

/// A store that refuses what there is no room for. Playlists and headers are small, and always taken.
struct Bounded {
    store: Box<dyn Store>,
    room: Arc<Room>,
}

impl Store for Bounded {
    fn take_vanished(&mut self) -> bool {
        self.store.take_vanished()
    }

    fn perform(&mut self, action: &Action) -> io::Result<()> {
        match action {
            Action::Append { body, .. } => self.room.take(body, false)?,
            Action::Put { kind: ObjectKind::Segment, body, .. } => self.room.take(body, true)?,
            Action::Put { .. } | Action::Delete { .. } => {}
        }
        self.store.perform(action)
    }
}
