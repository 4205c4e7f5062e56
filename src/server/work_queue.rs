//! Where work may block: one queue for all broadcasts, and as few threads as get on with it.
//!
//! To wake a thread for each piece of work would cost more than the work: small writes, many of them at every beat. So
//! one thread does what has queued up, and looks once more after a rest before it goes; many cores share what is much. Work
//! that does not come back (a disk that stalls) keeps its thread to itself: another one goes on with what is left.
//!
//! A publisher [runs](WorkQueue::run) here as a whole. What it received is parsed and written in one
//! go, while it is in the cache; a disk that stalls holds up its reading, and nobody else.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use tokio::task::spawn_blocking;

/// How long a thread without work stays for more. A paused clock of a test stands still meanwhile.
const REST: Duration = Duration::from_micros(if cfg!(test) { 100 } else { 10_000 });
/// Work that takes longer than this holds up nobody any more.
const STUCK_AFTER: Duration = Duration::from_millis(50);
/// How often it is looked whether all is done, at the end.
const LOOK: Duration = Duration::from_millis(5);
/// So much work for one thread is shared with another core.
const MUCH: usize = 64;

thread_local! {
    /// Work may block here.
    static MAY_BLOCK: Cell<bool> = const { Cell::new(false) };
}

/// A queue of work to which everybody may add.
#[derive(Clone)]
pub(super) struct WorkQueue(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// A thread that rests is to look again.
    more: Condvar,
    /// Something waits for a thread that is at work.
    waits: Notify,
    /// The most threads that get on.
    cores: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Work>,
    /// Since when each thread has been at what it does.
    threads: BTreeMap<u64, Instant>,
    /// The number of the last thread.
    last: u64,
    /// Threads without work that can be called back.
    resting: usize,
}

enum Work {
    Once(Box<dyn FnOnce() + Send>),
    Step(Arc<Task>),
}

impl WorkQueue {
    /// A queue that is worked off as long as the runtime runs.
    pub(super) fn start() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        let shared = Arc::new(Shared { state: Mutex::default(), more: Condvar::new(), waits: Notify::new(), cores });
        tokio::spawn(watch(Arc::clone(&shared)));
        Self(shared)
    }

    /// Has `work` done: now if this thread may block, otherwise soon, after all that was pushed before has at least begun;
    /// sooner if it is large.
    pub(super) fn push(&self, is_large: bool, work: impl FnOnce() + Send + 'static) {
        if MAY_BLOCK.get() {
            work();
        } else {
            self.0.push(Work::Once(Box::new(work)), is_large);
        }
    }

    /// Waits until nothing is waiting or at work, and the last thread has gone. Cancel safe.
    pub(super) async fn is_done(&self) {
        let is_busy = |state: &State| !(state.waiting.is_empty() && state.threads.is_empty());
        while is_busy(&self.0.lock()) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Runs a future of which each step may block, until it ends or what is returned is dropped: then after the step at
    /// hand. A panic of it is one of what is returned.
    pub(super) fn run(
        &self,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (tell, has_ended) = oneshot::channel();
        let run = Run { future: Box::pin(future), tell };
        let state = Mutex::new(TaskState { run: Some(run), phase: Phase::Queued });
        let task = Arc::new(Task { shared: Arc::clone(&self.0), state });
        let ends_with_us = EndOnDrop(Arc::clone(&task));
        self.0.push(Work::Step(task), true);
        async move {
            let _ends_with_us = ends_with_us;
            if has_ended.await.is_err() {
                resume_unwind(Box::new("a step of it panicked"));
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(self: &Arc<Self>, work: Work, is_urgent: bool) {
        let mut state = self.lock();
        state.waiting.push_back(work);
        if !self.help(&mut state) {
            if is_urgent && state.resting > 0 {
                state.resting -= 1;
                self.more.notify_one();
            }
            self.waits.notify_one();
        }
    }

    /// Starts another thread if work waits and all threads are stuck, or it is much and there is another core; whether it
    /// did.
    fn help(self: &Arc<Self>, state: &mut State) -> bool {
        let most = if state.waiting.len().is_multiple_of(MUCH) { self.cores } else { 1 };
        let is_needed = !state.waiting.is_empty()
            && (state.threads.len() < most || state.threads.values().all(|since| since.elapsed() > STUCK_AFTER));
        if is_needed {
            state.last += 1;
            let thread = state.last;
            state.threads.insert(thread, Instant::now());
            let shared = Arc::clone(self);
            spawn_blocking(move || Worker { shared, thread }.run());
        }
        is_needed
    }
}

/// Sees to it that nothing waits long for a thread that is stuck.
async fn watch(shared: Arc<Shared>) {
    loop {
        shared.waits.notified().await;
        loop {
            tokio::time::sleep(STUCK_AFTER).await;
            let mut state = shared.lock();
            if state.waiting.is_empty() {
                break;
            }
            shared.help(&mut state);
        }
    }
}

/// A thread at work; when it goes, it signs off.
struct Worker {
    shared: Arc<Shared>,
    thread: u64,
}

impl Worker {
    fn run(self) {
        MAY_BLOCK.set(true);
        let mut has_rested = false;
        loop {
            match self.take() {
                Some(work) => {
                    has_rested = false;
                    match work {
                        Work::Once(work) => work(),
                        Work::Step(task) => task.step(),
                    }
                }
                None if has_rested => {
                    let mut state = self.shared.lock();
                    // Whoever adds work from now on finds no thread here.
                    if state.waiting.is_empty() {
                        state.threads.remove(&self.thread);
                        return;
                    }
                }
                None => {
                    has_rested = true;
                    let mut state = self.shared.lock();
                    if state.waiting.is_empty() {
                        state.resting += 1;
                        // Woken early or not: it looks once more.
                        let (mut state, rest) =
                            self.shared.more.wait_timeout(state, REST).unwrap_or_else(PoisonError::into_inner);
                        if rest.timed_out() {
                            state.resting = state.resting.saturating_sub(1);
                        }
                    }
                }
            }
        }
    }

    fn take(&self) -> Option<Work> {
        let mut state = self.shared.lock();
        state.threads.insert(self.thread, Instant::now());
        state.waiting.pop_front()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        MAY_BLOCK.set(false);
        // After a panic, which has been reported.
        self.shared.lock().threads.remove(&self.thread);
    }
}

/// A future that runs here.
struct Task {
    shared: Arc<Shared>,
    state: Mutex<TaskState>,
}

struct TaskState {
    /// Elsewhere while it is at a step; gone once it has ended.
    run: Option<Run>,
    phase: Phase,
}

struct Run {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Dropped with the future if that panics.
    tell: oneshot::Sender<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waits to be woken.
    Asleep,
    /// Waits for a thread.
    Queued,
    AtWork,
    /// Was woken meanwhile.
    AtWorkAgain,
    Ended,
}

impl Task {
    fn lock(&self) -> MutexGuard<'_, TaskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(self: Arc<Self>) {
        let mut state = self.lock();
        let Some(mut run) = state.run.take() else { return };
        state.phase = Phase::AtWork;
        drop(state);
        let waker = Waker::from(Arc::clone(&self));
        let polled = run.future.as_mut().poll(&mut Context::from_waker(&waker));
        let mut state = self.lock();
        match (polled, state.phase) {
            (Poll::Pending, Phase::AtWork) => {
                state.run = Some(run);
                state.phase = Phase::Asleep;
            }
            (Poll::Pending, Phase::AtWorkAgain) => {
                state.run = Some(run);
                state.phase = Phase::Queued;
                drop(state);
                self.shared.push(Work::Step(Arc::clone(&self)), false);
            }
            (Poll::Ready(()), _) => {
                state.phase = Phase::Ended;
                drop(state);
                // Nobody waits any more: it was to end anyway.
                let _ = run.tell.send(());
            }
            (Poll::Pending, Phase::Ended | Phase::Asleep | Phase::Queued) => state.phase = Phase::Ended,
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        let mut state = self.lock();
        match state.phase {
            Phase::Asleep => state.phase = Phase::Queued,
            Phase::AtWork => {
                state.phase = Phase::AtWorkAgain;
                return;
            }
            Phase::Queued | Phase::AtWorkAgain | Phase::Ended => return,
        }
        drop(state);
        let shared = Arc::clone(&self.shared);
        shared.push(Work::Step(self), true);
    }
}

/// Ends a task whose end nobody waits for.
struct EndOnDrop(Arc<Task>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.phase = Phase::Ended;
        let run = state.run.take();
        drop(state);
        drop(run);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn work_that_is_not_much_is_done_in_order_by_one_thread() {
        /// With what goes before and behind it, too little to share.
        const NOT_MUCH: usize = MUCH - 3;
        let queue = WorkQueue::start();
        let (tell, told) = mpsc::channel();
        let (done, is_done) = oneshot::channel();
        let (release, released) = mpsc::channel::<()>();
        queue.push(false, move || released.recv().unwrap());
        for number in 0..NOT_MUCH {
            let tell = tell.clone();
            queue.push(false, move || tell.send((number, std::thread::current().id())).unwrap());
        }
        queue.push(false, move || done.send(()).unwrap());
        release.send(()).unwrap();
        is_done.await.unwrap();
        let told: Vec<_> = told.try_iter().collect();
        assert!(told.iter().map(|(number, _)| *number).eq(0..NOT_MUCH));
        assert!(told.iter().all(|(_, thread)| *thread == told[0].1));
        tokio::time::sleep(STUCK_AFTER).await;
        assert!(queue.0.lock().threads.is_empty(), "nobody stays where there is no work");
    }

    #[tokio::test]
    async fn large_work_does_not_wait_for_a_thread_that_rests() {
        const TURNS: u32 = 100;
        let queue = WorkQueue::start();
        // If it waited, no round would be faster, however busy the machine.
        let mut fastest = Duration::MAX;
        for _ in 0..10 {
            let began = Instant::now();
            for _ in 0..TURNS {
                let (done, is_done) = oneshot::channel();
                queue.push(true, move || done.send(()).unwrap());
                is_done.await.unwrap();
            }
            fastest = fastest.min(began.elapsed());
        }
        assert!(fastest < REST * TURNS, "{fastest:?}");
    }

    #[tokio::test]
    async fn a_future_that_blocks_holds_up_no_other_and_its_work_is_done_where_it_is() {
        let queue = WorkQueue::start();
        let (release, released) = mpsc::channel::<()>();
        let blocks = tokio::spawn({
            let queue = queue.clone();
            async move { queue.run(async move { released.recv().unwrap() }).await }
        });
        for _ in 0..3 {
            let began = Instant::now();
            let inner = queue.clone();
            let runs = queue.run(async move {
                for _ in 0..3 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    tokio::task::yield_now().await;
                }
                let (done, mut is_done) = oneshot::channel();
                inner.push(false, move || done.send(()).unwrap());
                assert_eq!(is_done.try_recv(), Ok(()));
            });
            runs.await;
            assert!(began.elapsed() < STUCK_AFTER * 6, "{:?}", began.elapsed());
        }
        release.send(()).unwrap();
        blocks.await.unwrap();
    }

    #[tokio::test]
    async fn a_future_ends_with_whoever_waits_for_it_and_its_panic_is_told() {
        let queue = WorkQueue::start();
        let (held, is_dropped) = oneshot::channel::<()>();
        let waits = tokio::spawn({
            let queue = queue.clone();
            async move {
                let hold = async move {
                    let _held = held;
                    std::future::pending().await
                };
                queue.run(hold).await
            }
        });
        tokio::time::sleep(Duration::from_millis(5)).await;
        waits.abort();
        assert!(is_dropped.await.is_err());
        let panics = tokio::spawn(async move { queue.run(async { panic!("as part of a test") }).await });
        assert!(panics.await.unwrap_err().is_panic());
    }

    #[tokio::test]
    async fn all_is_done_when_nothing_waits_or_is_at_work() {
        let queue = WorkQueue::start();
        queue.is_done().await;
        let (release, released) = mpsc::channel::<()>();
        queue.push(false, move || released.recv().unwrap());
        timeout(STUCK_AFTER, queue.is_done()).await.unwrap_err();
        let (done, is_done) = oneshot::channel();
        queue.push(false, move || done.send(()).unwrap());
        release.send(()).unwrap();
        queue.is_done().await;
        assert_eq!(is_done.await, Ok(()));
    }

    #[tokio::test]
    async fn work_that_is_stuck_or_panics_holds_up_nobody() {
        let queue = WorkQueue::start();
        let (release, released) = mpsc::channel::<()>();
        queue.push(false, move || released.recv().unwrap());
        for _ in 0..3 {
            queue.push(false, || panic!("as part of a test"));
            let (done, is_done) = oneshot::channel();
            queue.push(false, move || done.send(()).unwrap());
            let began = Instant::now();
            is_done.await.unwrap();
            assert!(began.elapsed() < STUCK_AFTER * 6, "{:?}", began.elapsed());
        }
        release.send(()).unwrap();
        tokio::time::sleep(STUCK_AFTER).await;
        assert!(queue.0.lock().threads.is_empty());
    }
}
