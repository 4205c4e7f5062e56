//! Where work that was sent off comes back to.
//!
//! One place for all the work of a sender, one piece after the other, so that none costs an allocation. The sender is woken
//! only by what it waits for: to wake it for each piece that went well would cost more than the work.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Where a sender finds what came of its work.
#[derive(Debug)]
pub(super) struct Landing<T>(Mutex<Runway<T>>);

#[derive(Debug)]
struct Runway<T> {
    landed: Option<Landed<T>>,
    /// Who waits, and for what.
    waiting: Option<(Waker, Wanted)>,
}

#[derive(Debug)]
struct Landed<T> {
    /// Nothing comes of work that panicked.
    outcome: Option<T>,
    is_well: bool,
}

/// What a sender waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// That the work is over.
    Any,
    /// That something was not right.
    Bad,
}

impl<T> Landing<T> {
    fn lock(&self) -> MutexGuard<'_, Runway<T>> {
        // Each change is one assignment, so the runway is whole whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has come back, if anything has: `Some(None)` of work that panicked.
    pub(super) fn take(&self) -> Option<Option<T>> {
        let mut runway = self.lock();
        runway.waiting = None;
        Some(runway.landed.take()?.outcome)
    }

    /// What comes back, once it is what is wanted; `None` of work that panicked.
    pub(super) fn poll(&self, wanted: Wanted, cx: &Context<'_>) -> Poll<Option<T>> {
        let mut runway = self.lock();
        if let Some(landed) = runway.landed.take_if(|landed| landed.is(wanted)) {
            runway.waiting = None;
            return Poll::Ready(landed.outcome);
        }
        match &mut runway.waiting {
            Some((waker, waits_for)) => {
                waker.clone_from(cx.waker());
                *waits_for = wanted;
            }
            None => runway.waiting = Some((cx.waker().clone(), wanted)),
        }
        Poll::Pending
    }

    fn land(&self, landed: Landed<T>) {
        let mut runway = self.lock();
        let waiting = runway.waiting.take_if(|(_, wanted)| landed.is(*wanted));
        runway.landed = Some(landed);
        drop(runway);
        if let Some((waker, _)) = waiting {
            waker.wake();
        }
    }
}

impl<T> Default for Landing<T> {
    fn default() -> Self {
        Self(Mutex::new(Runway { landed: None, waiting: None }))
    }
}

impl<T> Landed<T> {
    fn is(&self, wanted: Wanted) -> bool {
        wanted == Wanted::Any || !self.is_well
    }
}

/// Work on its way, which lands whatever happens.
#[derive(Debug)]
pub(super) struct Flight<T> {
    /// Until it has landed.
    to: Option<Arc<Landing<T>>>,
}

impl<T> Flight<T> {
    /// Work that will land there; nothing else is on its way.
    pub(super) fn to(landing: &Arc<Landing<T>>) -> Self {
        Self { to: Some(Arc::clone(landing)) }
    }

    /// The work is over, and went well or did not.
    pub(super) fn land(mut self, outcome: T, is_well: bool) {
        if let Some(landing) = self.to.take() {
            landing.land(Landed { outcome: Some(outcome), is_well });
        }
    }
}

impl<T> Drop for Flight<T> {
    fn drop(&mut self) {
        if let Some(landing) = self.to.take() {
            landing.land(Landed { outcome: None, is_well: false });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn awaited<T>(landing: &Landing<T>, wanted: Wanted) -> Option<T> {
        poll_fn(|cx| landing.poll(wanted, cx)).await
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_what_is_bad_sleeps_through_what_is_well() {
        let landing = Arc::new(Landing::default());
        let flight = Flight::to(&landing);
        let waits = tokio::spawn({
            let landing = Arc::clone(&landing);
            async move { timeout(Duration::from_secs(1), awaited(&landing, Wanted::Bad)).await.is_err() }
        });
        tokio::task::yield_now().await;
        flight.land("well", true);
        assert!(waits.await.unwrap());
        assert_eq!(awaited(&landing, Wanted::Any).await, Some("well"));
        Flight::to(&landing).land("bad", false);
        assert_eq!(awaited(&landing, Wanted::Bad).await, Some("bad"));
        assert_eq!(landing.take(), None);
    }

    #[tokio::test]
    async fn work_that_panics_lands_too() {
        let landing = Arc::new(Landing::<()>::default());
        drop(Flight::to(&landing));
        assert_eq!(awaited(&landing, Wanted::Bad).await, None);
    }
}
