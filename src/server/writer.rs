//! One publisher's way to its store: actions in order, in batches, at most one batch in flight.
//!
//! A batch is done at once where this may block, as on the work queue, and otherwise sent there. While it is in flight,
//! actions queue up; when they are too many, the publisher is to stop reading ([`Writer::is_full`]), which slows its
//! encoder through TCP and nobody else. That a batch is done wakes its publisher only if something waits for it.
//!
//! When the store fails, its batch is tried again for a while. Then segments that still cannot be written are lost, which
//! the core is told ([`Writer::take_lost`]) so that it lists gaps; headers and playlists wait until they can be written,
//! of each playlist the newest. The order is then: segments, headers, playlists, deletes. So what is on the disk is valid
//! at every moment: a listed object is whole.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::landing::{Flight, Landing, Wanted};
use super::store::{MakeStore, Store, Torn};
use super::undeleted::Undeleted;
use super::work_queue::WorkQueue;
use crate::action::{Action, Key, ObjectKind};

/// More than this in the queue and in flight, in bytes, and the publisher has to wait: what a stalled disk costs.
const MOST_QUEUED_BYTES: usize = 512 << 10;
/// A batch of so many bytes is done at once: a live stream makes smaller ones, and somebody waits for it.
const LARGE_BATCH_BYTES: usize = 128 << 10;
/// What an action counts for beside its body, in bytes, so that many empty ones fill the queue too.
const ACTION_BYTES: usize = 256;
/// How long after a failure the next try comes.
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// A store that takes longer for a playlist does not answer.
const STALLED_AFTER: Duration = Duration::from_millis(250);
/// For how long from the first failure nothing is given up. After that each action gets one try.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long after the last failure the trouble is over, and the next one another.
const CALM: Duration = Duration::from_secs(30);
/// The most log lines on one trouble.
const MOST_LOG_LINES: u32 = 8;
/// How long a broadcast that ends waits for its store at most.
const SETTLE_WITHIN: Duration = Duration::from_secs(8);
/// Lost objects that are remembered, until no more of them can be on the way.
const MOST_LOST: usize = 64;

/// Performs actions without blocking the task that owns it.
pub(super) struct Writer {
    make_store: Arc<MakeStore>,
    work: WorkQueue,
    /// `None` while a batch is in flight.
    store: Option<Box<dyn Store>>,
    /// Where what became of the batch in flight is found.
    landing: Arc<Landing<Outcome>>,
    queue: VecDeque<Action>,
    queued_bytes: usize,
    in_flight_bytes: usize,
    /// Since when there was always a playlist queued or in flight.
    playlists_wait_since: Option<Instant>,
    /// Since when they had waited for a store that has answered late, which was not told.
    stalled_since: Option<Instant>,
    trouble: Option<Trouble>,
    undeleted: Undeleted,
    /// Segments that are not whole and never will be, the oldest first.
    lost: VecDeque<Key>,
    /// Those of which the core has not been told.
    untold: Vec<Key>,
    has_vanished: bool,
}

/// What became of a batch.
struct Outcome {
    store: Box<dyn Store>,
    /// What is left to do; if there is an error, the first of it failed.
    left: VecDeque<Action>,
    error: Option<io::Error>,
    has_vanished: bool,
}

/// The store fails, or did a moment ago.
struct Trouble {
    began: Instant,
    /// Nothing has worked for long since.
    since: Instant,
    retry_at: Instant,
    failed_at: Instant,
    is_healed: bool,
    log_at: Instant,
    log_lines: u32,
    lost_segments: u64,
}

impl Trouble {
    fn new(now: Instant) -> Self {
        Self {
            began: now,
            since: now,
            retry_at: now,
            failed_at: now,
            is_healed: false,
            log_at: now,
            log_lines: 0,
            lost_segments: 0,
        }
    }

    /// Whether there may be another log line on what goes on. The pause before the next doubles.
    fn may_repeat(&mut self, now: Instant) -> bool {
        let may = now >= self.log_at && self.may_log();
        if may {
            self.log_at = now + CALM * 2_u32.pow(self.log_lines);
        }
        may
    }

    /// Whether there may be another log line.
    fn may_log(&mut self) -> bool {
        let may = self.log_lines < MOST_LOG_LINES;
        self.log_lines += u32::from(may);
        may
    }
}

impl Writer {
    /// A writer to a store of its own.
    pub(super) fn new(make_store: Arc<MakeStore>, work: WorkQueue) -> Self {
        Self {
            store: Some(make_store()),
            make_store,
            work,
            landing: Arc::default(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            in_flight_bytes: 0,
            playlists_wait_since: None,
            stalled_since: None,
            trouble: None,
            undeleted: Undeleted::new(),
            lost: VecDeque::new(),
            untold: Vec::new(),
            has_vanished: false,
        }
    }

    /// Queues an action.
    pub(super) fn push(&mut self, action: Action) {
        if self.is_in_vain(&action) {
            return;
        }
        if self.trouble.is_some() && is_playlist(&action) {
            self.queue.retain(|queued| !(is_playlist(queued) && queued.key() == action.key()));
            self.queued_bytes = self.queue.iter().map(cost).sum();
        }
        if is_playlist(&action) {
            self.playlists_wait_since.get_or_insert_with(Instant::now);
        }
        self.queued_bytes += cost(&action);
        join_or_push(&mut self.queue, action);
        self.put_in_order();
    }

    /// While there is trouble: what is listed stands before what lists it, and nothing is deleted that may still be.
    fn put_in_order(&mut self) {
        if self.trouble.is_some() {
            self.queue.make_contiguous().sort_by_key(rank);
        }
    }

    /// Drops what is queued for an object.
    pub(super) fn forget(&mut self, key: &Key) {
        self.queue.retain(|queued| queued.key() != key);
    }

    /// Segments that are not whole and never will be, of which the core was not told. What it says from now on takes
    /// account of them.
    pub(super) fn take_lost(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.untold)
    }

    /// Whether all that was written was removed by somebody, of which the core was not told.
    pub(super) fn take_vanished(&mut self) -> bool {
        std::mem::take(&mut self.has_vanished)
    }

    /// Since when playlists wait for a store that fails, or does not answer.
    pub(super) fn failing_since(&mut self) -> Option<Instant> {
        self.look();
        if let Some(since) = self.stalled_since.take() {
            return Some(since.checked_sub(RETRY_AFTER).unwrap_or(since));
        }
        let is_trouble = self.trouble.as_ref().is_some_and(|trouble| !trouble.is_healed);
        let since = self.playlists_wait_since.filter(|since| is_trouble || since.elapsed() > STALLED_AFTER)?;
        // What left a playlist did so a moment before that was queued.
        Some(since.checked_sub(RETRY_AFTER).unwrap_or(since))
    }

    /// Everything is done, but for what could not be deleted.
    pub(super) fn is_idle(&self) -> bool {
        self.store.is_some() && self.queue.is_empty()
    }

    /// Whether something could not be deleted, which is tried again.
    pub(super) fn has_undeleted(&self) -> bool {
        !self.undeleted.is_empty()
    }

    /// Until when a broadcast that ends now waits for its store.
    pub(super) fn settles_until() -> Instant {
        Instant::now() + SETTLE_WITHIN
    }

    /// Whether the publisher has to wait.
    pub(super) fn is_full(&self) -> bool {
        self.queued_bytes + self.in_flight_bytes > MOST_QUEUED_BYTES
    }

    /// Waits until something has changed: a batch is done, or it was time for another try. Cancel safe.
    pub(super) async fn progress(&mut self) {
        if self.store.is_none() {
            poll_fn(|cx| self.poll_landed(cx, Wanted::Any)).await;
        } else if let Some(retry_at) = self.retry_at() {
            sleep_until(retry_at).await;
            self.start();
        } else {
            std::future::pending().await
        }
    }

    /// Whether a batch is done for which something waits, or with which something was wrong.
    pub(super) fn poll_progress(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.store.is_some() {
            return Poll::Pending;
        }
        let wanted = if self.queue.is_empty() && !self.is_full() { Wanted::Bad } else { Wanted::Any };
        self.poll_landed(cx, wanted)
    }

    fn poll_landed(&mut self, cx: &Context<'_>, wanted: Wanted) -> Poll<()> {
        self.landing.poll(wanted, cx).map(|outcome| {
            self.finish_batch(outcome);
            self.start();
        })
    }

    /// When [`start`](Self::start) tries again what failed.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.store.as_ref()?;
        let trouble = self.trouble.as_ref().filter(|_| !self.queue.is_empty());
        trouble.map(|trouble| trouble.retry_at).or_else(|| self.undeleted.at())
    }

    /// Starts to perform what is queued, unless something is in flight.
    pub(super) fn start(&mut self) {
        self.look();
        for action in self.undeleted.take_due() {
            self.queued_bytes += cost(&action);
            self.queue.push_back(action);
        }
        if self.queue.is_empty() || self.trouble.as_ref().is_some_and(|trouble| Instant::now() < trouble.retry_at) {
            return;
        }
        let Some(store) = self.store.take() else { return };
        let batch = std::mem::take(&mut self.queue);
        self.in_flight_bytes = std::mem::take(&mut self.queued_bytes);
        let flight = Flight::to(&self.landing);
        self.work.push(self.in_flight_bytes >= LARGE_BATCH_BYTES, move || {
            let outcome = perform(store, batch);
            let is_well = outcome.error.is_none() && !outcome.has_vanished;
            flight.land(outcome, is_well);
        });
        // Where work may block it is done by now.
        self.look();
    }

    /// Takes account of the batch in flight, if it has landed.
    fn look(&mut self) {
        if self.store.is_none()
            && let Some(outcome) = self.landing.take()
        {
            self.finish_batch(outcome);
        }
    }

    /// Takes account of a batch that has landed; of one that panicked, which has been reported, there is no outcome.
    fn finish_batch(&mut self, outcome: Option<Outcome>) {
        self.in_flight_bytes = 0;
        self.stalled_since = self.playlists_wait_since.filter(|since| since.elapsed() > STALLED_AFTER);
        match outcome {
            Some(outcome) => self.take_back(outcome),
            // Its store is gone, and with it what was appended.
            None => self.store = Some((self.make_store)()),
        }
    }

    fn take_back(&mut self, Outcome { mut store, mut left, error, has_vanished }: Outcome) {
        let now = Instant::now();
        match error {
            None => self.heal(now),
            Some(error) => self.handle_failure(store.as_mut(), &mut left, &error, now),
        }
        if has_vanished {
            tracing::warn!("the output folder was removed: beginning it anew");
            self.has_vanished = true;
            // They list what is gone; the core says them anew.
            left.retain(|action| !is_playlist(action));
            self.queue.retain(|action| !is_playlist(action));
        }
        left.append(&mut self.queue);
        self.queue = left;
        self.put_in_order();
        if !self.queue.iter().any(is_playlist) {
            self.playlists_wait_since = None;
        }
        self.queued_bytes = self.queue.iter().map(cost).sum();
        self.store = Some(store);
    }

    /// All went well.
    fn heal(&mut self, now: Instant) {
        let Some(trouble) = &mut self.trouble else { return };
        if !std::mem::replace(&mut trouble.is_healed, true) && trouble.may_log() {
            let seconds = now.duration_since(trouble.began).as_secs();
            tracing::info!(lost_segments = trouble.lost_segments, "writing works again after {seconds} s");
        }
        if now >= trouble.failed_at + CALM {
            self.trouble = None;
        }
    }

    /// The first action of `left` failed.
    fn handle_failure(&mut self, store: &mut dyn Store, left: &mut VecDeque<Action>, error: &io::Error, now: Instant) {
        let Some(action) = left.front() else { return };
        if self.trouble.as_ref().is_some_and(|trouble| trouble.is_healed && now >= trouble.failed_at + CALM) {
            self.trouble = None;
        }
        let trouble = self.trouble.get_or_insert_with(|| Trouble::new(now));
        if std::mem::take(&mut trouble.is_healed) && now >= trouble.failed_at + PATIENCE {
            trouble.since = now;
        }
        trouble.failed_at = now;
        // Trying again does not help, and nothing else is known to be wrong.
        let is_torn = Torn::is(error);
        trouble.retry_at = if is_torn { now } else { now + RETRY_AFTER };
        if trouble.may_repeat(now) {
            tracing::warn!("failed to {}: {error}; trying again", Described::from(action));
        }
        if (is_torn || now >= trouble.since + PATIENCE)
            && let Some(action) = left.pop_front()
        {
            self.give_up(store, action, left, now);
            left.retain(|action| !self.is_in_vain(action));
            let queue = std::mem::take(&mut self.queue);
            self.queue = queue.into_iter().filter(|action| !self.is_in_vain(action)).collect();
        }
    }

    /// What cannot be written, for now or for ever, is out of the way of what comes behind it.
    fn give_up(&mut self, store: &mut dyn Store, action: Action, left: &mut VecDeque<Action>, now: Instant) {
        let Some(trouble) = &mut self.trouble else { return };
        match action {
            // Waits behind all else of its kind.
            Action::Put { kind: ObjectKind::Header, .. } => {
                left.push_back(action);
                return;
            }
            // The newest of each waits too.
            Action::Put { kind: ObjectKind::Playlist, .. } => {
                let mut behind = left.iter().chain(&self.queue);
                if !behind.any(|newer| is_playlist(newer) && newer.key() == action.key()) {
                    left.push_back(action);
                }
                return;
            }
            Action::Append { ref key, .. } | Action::Put { ref key, .. } => {
                trouble.lost_segments += 1;
                if trouble.lost_segments == 1 && trouble.may_log() {
                    tracing::error!("{key} is lost, and becomes a gap");
                }
                self.lost.push_back(key.clone());
                if self.lost.len() > MOST_LOST {
                    self.lost.pop_front();
                }
                self.untold.push(key.clone());
            }
            Action::Delete { ref key } => {
                if trouble.may_repeat(now) {
                    tracing::error!("{key} stays, though its time is over");
                }
            }
        }
        // Removes the temporary file; if that fails too, it is at least never renamed.
        if store.perform(&Action::Delete { key: action.key().clone() }).is_err() {
            self.undeleted.add(action.key().clone(), now);
        }
    }

    /// Whether an action is about a lost segment, or would list one that the core believes to be whole.
    fn is_in_vain(&self, action: &Action) -> bool {
        if self.lost.is_empty() {
            return false;
        }
        match action {
            Action::Put { kind: ObjectKind::Playlist, body, .. } => {
                let text = if self.untold.is_empty() { Vec::new() } else { body.concat() };
                self.untold.iter().any(|lost| names(&text, lost))
            }
            Action::Append { key, .. } | Action::Put { key, .. } => self.lost.contains(key),
            Action::Delete { .. } => false,
        }
    }
}

/// Performs actions up to the first that fails.
fn perform(mut store: Box<dyn Store>, mut left: VecDeque<Action>) -> Outcome {
    while let Some(action) = left.front() {
        let result = store.perform(action);
        let has_vanished = store.take_vanished();
        if result.is_ok() {
            left.pop_front();
        }
        if result.is_err() || has_vanished {
            return Outcome { store, left, error: result.err(), has_vanished };
        }
    }
    Outcome { store, left, error: None, has_vanished: false }
}

fn is_playlist(action: &Action) -> bool {
    matches!(action, Action::Put { kind: ObjectKind::Playlist, .. })
}

/// The place of an action among those that wait: the multivariant playlist names the others.
fn rank(action: &Action) -> u8 {
    match action {
        Action::Append { .. } | Action::Put { kind: ObjectKind::Segment, .. } => 0,
        Action::Put { kind: ObjectKind::Header, .. } => 1,
        Action::Put { kind: ObjectKind::Playlist, key, .. } => 2 + u8::from(key.is_index()),
        Action::Delete { .. } => 4,
    }
}

/// Whether a playlist names an object, by the last part of its key.
fn names(playlist: &[u8], key: &Key) -> bool {
    let file = key.file_name().as_bytes();
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
        fn perform(&mut self, action: &Action) -> io::Result<()> {
            let text = |body: &[Bytes]| String::from_utf8(body.concat()).unwrap();
            self.tell(match action {
                Action::Append { key, body } => format!("append {key} {}", text(body)),
                Action::Put { key, body, .. } => format!("put {key} {}", text(body)),
                Action::Delete { key } => format!("delete {key}"),
            })
        }
    }

    fn writer(failures: usize) -> (Writer, Arc<Mutex<Told>>) {
        let told = Arc::new(Mutex::new(Told { done: Vec::new(), failures }));
        let made = Arc::clone(&told);
        let make_store = Arc::new(move || Box::new(Failing(Arc::clone(&made))) as Box<dyn Store>);
        (Writer::new(make_store, WorkQueue::start()), told)
    }

    async fn settle(writer: &mut Writer) {
        writer.start();
        while !writer.is_idle() {
            writer.progress().await;
            writer.start();
        }
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
        writer.push(put("1.m4s", ObjectKind::Segment, "c"));
        writer.push(put("m.m3u8", ObjectKind::Playlist, "1.m4s"));
        writer.push(Action::Delete { key: key("0.m4s") });
        writer.start();
        settle(&mut writer).await;
        assert_eq!(done(&told), ["put l/a/~1/1.m4s abc", "put l/a/~1/m.m3u8 1.m4s", "delete l/a/~1/0.m4s"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_action_is_tried_again_and_nothing_overtakes_it() {
        let (mut writer, told) = writer(3);
        writer.push(put("1.m4s", ObjectKind::Segment, "a"));
        writer.push(put("m.m3u8", ObjectKind::Playlist, "1.m4s"));
        writer.start();
        settle(&mut writer).await;
        assert_eq!(done(&told), ["put l/a/~1/1.m4s a", "put l/a/~1/m.m3u8 1.m4s"]);
        assert!(writer.trouble.is_some_and(|trouble| trouble.is_healed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_segment_is_told_and_what_would_list_it_is_dropped() {
        let (mut writer, told) = writer(21);
        writer.push(put("0.m4s", ObjectKind::Segment, "a"));
        writer.push(put("m.m3u8", ObjectKind::Playlist, "0.m4s"));
        settle(&mut writer).await;
        assert!(done(&told).iter().all(|done| done == "delete l/a/~1/0.m4s"), "{:?}", done(&told));
        told.lock().unwrap().failures = 0;
        assert_eq!(writer.take_lost(), [key("0.m4s")]);
        told.lock().unwrap().done.clear();

        writer.push(append("0.m4s", "more of what is lost"));
        writer.push(put("1.m4s", ObjectKind::Segment, "b"));
        writer.push(put("m.m3u8", ObjectKind::Playlist, "gap 0.m4s, 1.m4s"));
        settle(&mut writer).await;
        assert_eq!(done(&told), ["put l/a/~1/1.m4s b", "put l/a/~1/m.m3u8 gap 0.m4s, 1.m4s"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_playlist_waits_for_the_store_and_deletes_wait_for_it() {
        let (mut writer, told) = writer(usize::MAX);
        writer.push(put("m.m3u8", ObjectKind::Playlist, "old"));
        writer.start();
        let until = Instant::now() + PATIENCE * 4;
        while Instant::now() < until {
            writer.progress().await;
        }
        while writer.store.is_none() {
            let outcome = poll_fn(|cx| writer.landing.poll(Wanted::Any, cx)).await;
            writer.finish_batch(outcome);
        }
        writer.push(Action::Delete { key: key("0.m4s") });
        writer.push(put("m.m3u8", ObjectKind::Playlist, "new"));
        told.lock().unwrap().failures = 0;
        settle(&mut writer).await;
        assert_eq!(done(&told), ["put l/a/~1/m.m3u8 new", "delete l/a/~1/0.m4s"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_deleted_holds_up_nothing_and_is_tried_again_later() {
        let (mut writer, told) = writer(usize::MAX);
        writer.push(Action::Delete { key: key("0.m4s") });
        settle(&mut writer).await;
        assert!(writer.has_undeleted());
        told.lock().unwrap().failures = 0;
        writer.push(put("1.m4s", ObjectKind::Segment, "a"));
        settle(&mut writer).await;
        assert_eq!(done(&told), ["put l/a/~1/1.m4s a"]);
        let start = Instant::now();
        while writer.has_undeleted() || !writer.is_idle() {
            writer.progress().await;
        }
        assert_eq!(done(&told), ["put l/a/~1/1.m4s a", "delete l/a/~1/0.m4s"]);
        assert!(start.elapsed() <= CALM, "{:?}", start.elapsed());
    }

    #[test]
    fn what_lasts_is_repeated_ever_more_rarely() {
        let began = Instant::now();
        let mut trouble = Trouble::new(began);
        let lines = |trouble: &mut Trouble, hours: u64| {
            let tries = (0..hours * 3600).map(|second| began + Duration::from_secs(second));
            tries.filter(|now| trouble.may_repeat(*now)).count()
        };
        assert_eq!(lines(&mut trouble, 1), 6);
        assert_eq!(lines(&mut trouble, 100), 2);
    }

    #[tokio::test]
    async fn a_full_queue_says_so_until_it_is_written() {
        let (mut writer, _) = writer(0);
        writer.push(Action::Append { key: key("1.m4s"), body: vec![Bytes::from(vec![b'x'; MOST_QUEUED_BYTES])] });
        assert!(writer.is_full());
        writer.start();
        assert!(writer.is_full(), "it is in flight now");
        settle(&mut writer).await;
        assert!(!writer.is_full());
    }
}
