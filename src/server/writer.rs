//! One publisher's way to its store: actions in order, in batches, at most one batch in flight.
//!
//! A batch runs on a thread for blocking work. While it runs, actions queue up; when they are too many, the publisher
//! is to stop reading ([`Writer::is_full`]), which slows its encoder through TCP and nobody else. What viewers cannot
//! see yet (appends) is gathered to larger writes.
//!
//! When the store fails, its batch is tried again for a while. What still cannot be written is lost, and a playlist
//! that names a lost object is not written: a listed object is whole.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use super::store::{MakeStore, Store};
use crate::action::{Action, Key, ObjectKind};

/// More than this in the queue and in flight, in bytes, and the publisher has to wait: what a stalled disk costs.
const MOST_QUEUED_BYTES: usize = 2 << 20;
/// What an action counts for beside its body, in bytes, so that many empty ones fill the queue too.
const ACTION_BYTES: usize = 256;
/// Appends wait until there are this many bytes, or until something is to become visible.
const WRITE_BYTES: usize = 128 << 10;
/// How long after a failure the next try comes.
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// For how long from the first failure nothing is given up. After that each action gets one try.
const PATIENCE: Duration = Duration::from_secs(5);
/// The least time between two log lines on the same trouble.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// Performs actions without blocking the task that owns it.
pub(super) struct Writer {
    make_store: Arc<MakeStore>,
    /// `None` while a batch is in flight.
    store: Option<Box<dyn Store>>,
    in_flight: Option<JoinHandle<Outcome>>,
    queue: VecDeque<Action>,
    queued_bytes: usize,
    in_flight_bytes: usize,
    trouble: Option<Trouble>,
    /// Objects that are not whole and never will be.
    lost: HashSet<Key>,
}

/// What became of a batch.
struct Outcome {
    store: Box<dyn Store>,
    /// What is left to do; the first of it failed.
    left: VecDeque<Action>,
    error: Option<io::Error>,
}

/// The store fails.
struct Trouble {
    since: Instant,
    retry_at: Instant,
    log_at: Instant,
    lost_objects: u64,
}

impl Writer {
    /// A writer to a store of its own.
    pub(super) fn new(make_store: Arc<MakeStore>) -> Self {
        Self {
            store: Some(make_store()),
            make_store,
            in_flight: None,
            queue: VecDeque::new(),
            queued_bytes: 0,
            in_flight_bytes: 0,
            trouble: None,
            lost: HashSet::new(),
        }
    }

    /// Queues an action.
    pub(super) fn push(&mut self, action: Action) {
        if !self.is_in_vain(&action) {
            self.queued_bytes += cost(&action);
            join_or_push(&mut self.queue, action);
        }
    }

    /// Starts to perform what is queued, if it is worth a write and nothing is in flight.
    pub(super) fn start(&mut self) {
        if self.queued_bytes >= WRITE_BYTES || self.queue.back().is_some_and(|a| !matches!(a, Action::Append { .. })) {
            self.start_now();
        }
    }

    /// Whether the publisher has to wait.
    pub(super) fn is_full(&self) -> bool {
        self.queued_bytes + self.in_flight_bytes > MOST_QUEUED_BYTES
    }

    /// Waits until something has changed: a batch is done, or it was time for another try. Cancel safe.
    pub(super) async fn progress(&mut self) {
        if let Some(in_flight) = &mut self.in_flight {
            let joined = in_flight.await;
            self.in_flight = None;
            self.in_flight_bytes = 0;
            match joined {
                Ok(outcome) => self.finish_batch(outcome),
                // A panic, which has been reported: its store is gone, and with it what was appended.
                Err(_) => self.store = Some((self.make_store)()),
            }
            self.start();
        } else if let Some(trouble) = self.trouble.as_ref().filter(|_| !self.queue.is_empty()) {
            sleep_until(trouble.retry_at).await;
            self.start_now();
        } else {
            std::future::pending().await
        }
    }

    /// Performs all that is queued.
    pub(super) async fn settle(&mut self) {
        self.start_now();
        while self.in_flight.is_some() || !self.queue.is_empty() {
            self.progress().await;
            self.start_now();
        }
    }

    fn start_now(&mut self) {
        if self.queue.is_empty() || self.trouble.as_ref().is_some_and(|trouble| Instant::now() < trouble.retry_at) {
            return;
        }
        let Some(mut store) = self.store.take() else { return };
        let mut left = std::mem::take(&mut self.queue);
        self.in_flight_bytes = std::mem::take(&mut self.queued_bytes);
        self.in_flight = Some(spawn_blocking(move || {
            while let Some(action) = left.front() {
                if let Err(error) = store.perform(action) {
                    return Outcome { store, left, error: Some(error) };
                }
                left.pop_front();
            }
            Outcome { store, left, error: None }
        }));
    }

    fn finish_batch(&mut self, Outcome { mut store, mut left, error }: Outcome) {
        let now = Instant::now();
        match error {
            None => {
                if let Some(trouble) = self.trouble.take() {
                    let seconds = now.duration_since(trouble.since).as_secs();
                    tracing::info!(lost_objects = trouble.lost_objects, "writing works again after {seconds} s");
                }
            }
            Some(error) => {
                if let Some(failed) = left.front().map(Described::from) {
                    let trouble =
                        self.trouble.get_or_insert(Trouble { since: now, retry_at: now, log_at: now, lost_objects: 0 });
                    trouble.retry_at = now + RETRY_AFTER;
                    if now >= trouble.log_at {
                        trouble.log_at = now + LOG_EVERY;
                        tracing::warn!("failed to {failed}: {error}; trying again");
                    }
                    if now >= trouble.since + PATIENCE
                        && let Some(action) = left.pop_front()
                    {
                        trouble.lost_objects += 1;
                        self.give_up(store.as_mut(), &action);
                        left.retain(|action| !self.is_in_vain(action));
                    }
                }
                left.append(&mut self.queue);
                self.queue = left;
                self.queued_bytes = self.queue.iter().map(cost).sum();
            }
        }
        self.store = Some(store);
    }

    /// Makes sure that nobody will see the object half.
    fn give_up(&mut self, store: &mut dyn Store, action: &Action) {
        match action {
            // The next one is newer anyway.
            Action::Put { kind: ObjectKind::Playlist, .. } => {}
            Action::Append { key, .. } | Action::Put { key, .. } => {
                self.lost.insert(key.clone());
                tracing::error!("{key} is lost, and so is what would list it");
            }
            Action::Delete { key } => tracing::error!("{key} stays, though its time is over"),
        }
        // Removes the temporary file; if that fails too, it is at least never renamed.
        let _ = store.delete(action.key());
    }

    /// Whether an action is about a lost object, or would list one.
    fn is_in_vain(&self, action: &Action) -> bool {
        if self.lost.is_empty() {
            return false;
        }
        match action {
            Action::Put { kind: ObjectKind::Playlist, body, .. } => {
                let text = body.concat();
                self.lost.iter().any(|lost| names(&text, lost))
            }
            Action::Append { key, .. } | Action::Put { key, .. } => self.lost.contains(key),
            Action::Delete { .. } => false,
        }
    }
}

/// Whether a playlist names an object, by the last part of its key.
fn names(playlist: &[u8], key: &Key) -> bool {
    let file = key.as_str().rsplit('/').next().unwrap_or(key.as_str()).as_bytes();
    playlist.windows(file.len()).any(|window| window == file)
}

/// Appends to the same object become one write.
fn join_or_push(queue: &mut VecDeque<Action>, action: Action) {
    match (queue.back_mut(), action) {
        (Some(Action::Append { key: last, body }), Action::Append { key, body: more }) if *last == key => {
            body.extend(more);
        }
        (Some(Action::Append { key: last, body }), Action::Put { key, kind, body: rest }) if *last == key => {
            let mut body = std::mem::take(body);
            body.extend(rest);
            queue.pop_back();
            queue.push_back(Action::Put { key, kind, body });
        }
        (_, action) => queue.push_back(action),
    }
}

fn cost(action: &Action) -> usize {
    let bytes = match action {
        Action::Append { body, .. } | Action::Put { body, .. } => body.iter().map(Bytes::len).sum(),
        Action::Delete { .. } => 0,
    };
    ACTION_BYTES + bytes
}

/// An action in the words of a log line: "write segment live/cam1/…".
struct Described {
    verb: &'static str,
    key: Key,
}

impl From<&Action> for Described {
    fn from(action: &Action) -> Self {
        let verb = match action {
            Action::Append { .. } => "write a part of",
            Action::Put { kind: ObjectKind::Header, .. } => "write header",
            Action::Put { kind: ObjectKind::Segment, .. } => "write segment",
            Action::Put { kind: ObjectKind::Playlist, .. } => "write playlist",
            Action::Delete { .. } => "delete",
        };
        Self { verb, key: action.key().clone() }
    }
}

impl fmt::Display for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.key)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::action::{BroadcastId, StreamName};

    /// What a store was told, and how many of the next calls fail.
    #[derive(Default)]
    struct Told {
        done: Vec<String>,
        failures: usize,
    }

    struct Failing(Arc<Mutex<Told>>);

    impl Failing {
        fn tell(&self, what: String) -> io::Result<()> {
            let mut told = self.0.lock().unwrap();
            if told.failures > 0 {
                told.failures -= 1;
                return Err(io::ErrorKind::StorageFull.into());
            }
            told.done.push(what);
            Ok(())
        }
    }

    impl Store for Failing {
        fn append(&mut self, key: &Key, body: &[Bytes]) -> io::Result<()> {
            self.tell(format!("append {key} {}", String::from_utf8(body.concat()).unwrap()))
        }
        fn put(&mut self, key: &Key, body: &[Bytes]) -> io::Result<()> {
            self.tell(format!("put {key} {}", String::from_utf8(body.concat()).unwrap()))
        }
        fn delete(&mut self, key: &Key) -> io::Result<()> {
            self.tell(format!("delete {key}"))
        }
    }

    fn writer(failures: usize) -> (Writer, Arc<Mutex<Told>>) {
        let told = Arc::new(Mutex::new(Told { done: Vec::new(), failures }));
        let made = Arc::clone(&told);
        (Writer::new(Arc::new(move || Box::new(Failing(Arc::clone(&made))))), told)
    }

    fn key(file: &str) -> Key {
        StreamName::parse("l", "a").unwrap().file(BroadcastId { unix_ms: 1 }, format_args!("{file}"))
    }

    fn body(text: &'static str) -> Vec<Bytes> {
        vec![Bytes::from_static(text.as_bytes())]
    }

    fn append(file: &str, text: &'static str) -> Action {
        Action::Append { key: key(file), body: body(text) }
    }

    fn put(file: &str, kind: ObjectKind, text: &'static str) -> Action {
        Action::Put { key: key(file), kind, body: body(text) }
    }

    fn done(told: &Mutex<Told>) -> Vec<String> {
        told.lock().unwrap().done.clone()
    }

    #[tokio::test]
    async fn actions_are_done_in_order_and_appends_are_joined() {
        let (mut writer, told) = writer(0);
        writer.push(append("1.m4s", "a"));
        writer.push(append("1.m4s", "b"));
        writer.start();
        assert!(writer.in_flight.is_none(), "two bytes are not worth a write");
        writer.push(put("1.m4s", ObjectKind::Segment, "c"));
        writer.push(put("m.m3u8", ObjectKind::Playlist, "1.m4s"));
        writer.push(Action::Delete { key: key("0.m4s") });
        writer.start();
        writer.settle().await;
        assert_eq!(done(&told), ["put l/a/~1/1.m4s abc", "put l/a/~1/m.m3u8 1.m4s", "delete l/a/~1/0.m4s"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_action_is_tried_again_and_nothing_overtakes_it() {
        let (mut writer, told) = writer(3);
        writer.push(put("1.m4s", ObjectKind::Segment, "a"));
        writer.push(put("m.m3u8", ObjectKind::Playlist, "1.m4s"));
        writer.start();
        writer.settle().await;
        assert_eq!(done(&told), ["put l/a/~1/1.m4s a", "put l/a/~1/m.m3u8 1.m4s"]);
        assert!(writer.trouble.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_segment_is_never_listed_and_the_broadcast_goes_on_after_it() {
        let (mut writer, told) = writer(25);
        writer.push(put("1.m4s", ObjectKind::Segment, "a"));
        writer.push(put("m.m3u8", ObjectKind::Playlist, "1.m4s"));
        writer.settle().await;
        assert!(done(&told).is_empty());
        told.lock().unwrap().failures = 0;

        writer.push(put("2.m4s", ObjectKind::Segment, "b"));
        writer.push(put("m.m3u8", ObjectKind::Playlist, "1.m4s\n2.m4s"));
        writer.settle().await;
        writer.push(put("m.m3u8", ObjectKind::Playlist, "2.m4s"));
        writer.settle().await;
        assert_eq!(done(&told), ["put l/a/~1/2.m4s b", "put l/a/~1/m.m3u8 2.m4s"]);
    }

    #[tokio::test]
    async fn a_full_queue_says_so_until_it_is_written() {
        let (mut writer, _) = writer(0);
        writer.push(Action::Append { key: key("1.m4s"), body: vec![Bytes::from(vec![b'x'; MOST_QUEUED_BYTES])] });
        assert!(writer.is_full());
        writer.start();
        assert!(writer.is_full(), "it is in flight now");
        writer.settle().await;
        assert!(!writer.is_full());
    }
}
