//! Blocking work of all broadcasts: one queue, and as few threads as get on with it.
//!
//! To wake a thread for each piece of work would cost more than the work: small writes, many of them at every beat. So
//! one thread does what has queued up, and looks once more after a rest before it goes. Large work ends the rest. Work
//! that does not come back (a disk that stalls) keeps its thread to itself: another one goes on with what is left.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::spawn_blocking;

/// How long a thread without work stays for more. A paused clock of a test stands still meanwhile.
const REST: Duration = Duration::from_micros(if cfg!(test) { 100 } else { 10_000 });
/// Work that takes longer than this holds up nobody any more.
const STUCK_AFTER: Duration = Duration::from_millis(50);

/// A queue of work to which everybody may add.
#[derive(Clone)]
pub(super) struct WorkQueue(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Large work ends a thread's rest.
    large: Condvar,
    /// Something waits for a thread that is at work.
    waits: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Work>,
    /// Since when each thread has been at what it does.
    threads: BTreeMap<u64, Instant>,
    /// The number of the last thread.
    last: u64,
}

type Work = Box<dyn FnOnce() + Send>;

impl WorkQueue {
    /// A queue that is worked off as long as the runtime runs.
    pub(super) fn start() -> Self {
        let shared = Arc::new(Shared { state: Mutex::default(), large: Condvar::new(), waits: Notify::new() });
        tokio::spawn(watch(Arc::clone(&shared)));
        Self(shared)
    }

    /// Has `work` done soon, after all that was pushed before has at least begun; at once if it is large.
    pub(super) fn push(&self, is_large: bool, work: impl FnOnce() + Send + 'static) {
        let mut state = self.0.lock();
        state.waiting.push_back(Box::new(work));
        if !self.0.help(&mut state) {
            self.0.waits.notify_one();
            if is_large {
                self.0.large.notify_one();
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts another thread if work waits and all threads are stuck; whether it did.
    fn help(self: &Arc<Self>, state: &mut State) -> bool {
        let is_needed = !state.waiting.is_empty() && state.threads.values().all(|since| since.elapsed() > STUCK_AFTER);
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
        let mut has_rested = false;
        loop {
            match self.take() {
                Some(work) => {
                    has_rested = false;
                    work();
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
                    let state = self.shared.lock();
                    // Woken early or not: it looks once more.
                    drop(self.shared.large.wait_timeout(state, REST));
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
        // After a panic, which has been reported.
        self.shared.lock().threads.remove(&self.thread);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_is_done_in_order_by_one_thread() {
        let queue = WorkQueue::start();
        let (tell, told) = mpsc::channel();
        let (done, is_done) = oneshot::channel();
        let (release, released) = mpsc::channel::<()>();
        queue.push(false, move || released.recv().unwrap());
        for number in 0..100 {
            let tell = tell.clone();
            queue.push(false, move || tell.send((number, std::thread::current().id())).unwrap());
        }
        queue.push(false, move || done.send(()).unwrap());
        release.send(()).unwrap();
        is_done.await.unwrap();
        let told: Vec<_> = told.try_iter().collect();
        assert!(told.iter().map(|(number, _)| *number).eq(0..100));
        assert!(told.iter().all(|(_, thread)| *thread == told[0].1));
        tokio::time::sleep(STUCK_AFTER).await;
        assert!(queue.0.lock().threads.is_empty(), "nobody stays where there is no work");
    }

    #[tokio::test]
    async fn large_work_does_not_wait_for_a_thread_that_rests() {
        let queue = WorkQueue::start();
        let began = Instant::now();
        const TURNS: u32 = 1_000;
        for _ in 0..TURNS {
            let (done, is_done) = oneshot::channel();
            queue.push(true, move || done.send(()).unwrap());
            is_done.await.unwrap();
        }
        assert!(began.elapsed() < REST * TURNS, "{:?}", began.elapsed());
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
