//! Who holds which name: a live name belongs to its publisher.
//!
//! ```text
//!              claim                     offer
//!   (nobody) ────────→ held by a Claim ────────→ Offer: free for the next, who may take over what is handed on
//!       ↑                  │ dropped                │ withdrawn, or claimed by the next
//!       └──────────────────┴────────────────────────┘
//! ```
//!
//! A name is claimed before any file of it is touched. A [`Claim`] that is dropped, by a panic too, frees its name.
//! Knows nothing of connections or files: what is handed over is any `T`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::action::StreamName;

/// All names that are held or offered.
#[derive(Debug)]
pub(super) struct Registry<T> {
    names: Mutex<Names<T>>,
}

#[derive(Debug)]
struct Names<T> {
    holders: HashMap<StreamName, Holder<T>>,
    next_id: u64,
}

#[derive(Debug)]
struct Holder<T> {
    id: u64,
    /// Where to ask for what is handed on; `None` while it belongs to its publisher.
    offer: Option<oneshot::Sender<Request<T>>>,
}

/// Somebody else is publishing under this name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken;

impl<T> Registry<T> {
    /// A registry in which every name is free.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { names: Mutex::new(Names { holders: HashMap::new(), next_id: 0 }) })
    }

    /// Takes a name, with the hand-over from the one who offered it, if somebody did.
    pub(super) fn claim(self: &Arc<Self>, name: &StreamName) -> Result<(Claim<T>, Option<Handover<T>>), Taken> {
        let mut names = self.lock();
        let offer = match names.holders.get_mut(name) {
            Some(Holder { offer: None, .. }) => return Err(Taken),
            Some(Holder { offer, .. }) => offer.take(),
            None => None,
        };
        let id = names.next_id;
        names.next_id += 1;
        names.holders.insert(name.clone(), Holder { id, offer: None });
        drop(names);
        let handover = offer.and_then(|offer| {
            let (answer, handover) = oneshot::channel();
            // Nobody there any more: nothing is handed on.
            offer.send(Request(answer)).is_ok().then_some(Handover(handover))
        });
        Ok((Claim { registry: Arc::clone(self), name: name.clone(), id }, handover))
    }

    /// The names that belong to a publisher now, in no order.
    pub(super) fn live(&self) -> Vec<StreamName> {
        let names = self.lock();
        names.holders.iter().filter(|(_, holder)| holder.offer.is_none()).map(|(name, _)| name.clone()).collect()
    }

    /// How many other names belong to a publisher, or are kept for one.
    pub(super) fn count_besides(&self, name: &StreamName) -> usize {
        let names = self.lock();
        names.holders.len() - usize::from(names.holders.contains_key(name))
    }

    fn lock(&self) -> MutexGuard<'_, Names<T>> {
        // Each change is one insert or remove, so the map is whole whoever panicked.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to publish under a name, until it is dropped.
#[derive(Debug)]
pub(super) struct Claim<T> {
    registry: Arc<Registry<T>>,
    name: StreamName,
    id: u64,
}

impl<T> Claim<T> {
    /// Lets the next publisher have the name, and ask for what is handed on.
    pub(super) fn offer(self) -> Offer<T> {
        let (sender, requests) = oneshot::channel();
        if let Some(holder) = self.registry.lock().holders.get_mut(&self.name).filter(|holder| holder.id == self.id) {
            holder.offer = Some(sender);
        }
        Offer { requests, claim: self }
    }
}

impl<T> Drop for Claim<T> {
    fn drop(&mut self) {
        let mut names = self.registry.lock();
        if names.holders.get(&self.name).is_some_and(|holder| holder.id == self.id) {
            names.holders.remove(&self.name);
        }
    }
}

/// A name that the next publisher may have.
#[derive(Debug)]
pub(super) struct Offer<T> {
    requests: oneshot::Receiver<Request<T>>,
    claim: Claim<T>,
}

impl<T> Offer<T> {
    /// Waits until the next publisher has taken the name. Cancel safe; to be called once.
    pub(super) async fn asked(&mut self) -> Request<T> {
        match (&mut self.requests).await {
            Ok(request) => request,
            // The sender lives in the registry as long as our claim does.
            Err(_) => std::future::pending().await,
        }
    }

    /// Frees the name; what is returned came just before.
    pub(super) fn withdraw(self) -> Option<Request<T>> {
        let Self { mut requests, claim } = self;
        drop(claim);
        requests.try_recv().ok()
    }
}

/// The next publisher waits for what is handed on, and for nothing to be written by us any more.
#[derive(Debug)]
pub(super) struct Request<T>(oneshot::Sender<Option<T>>);

impl<T> Request<T> {
    /// Hands it on, or `None` when there is nothing to go on with. Gives it back when the next publisher has left.
    pub(super) fn answer(self, handed_on: Option<T>) -> Result<(), Option<T>> {
        self.0.send(handed_on)
    }
}

/// What the one before hands on.
#[derive(Debug)]
pub(super) struct Handover<T>(oneshot::Receiver<Option<T>>);

impl<T> Handover<T> {
    /// Waits until the one before has written everything.
    pub(super) async fn receive(self) -> Option<T> {
        self.0.await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> StreamName {
        StreamName::parse("live", name).unwrap()
    }

    #[test]
    fn a_live_name_is_refused_to_others_until_its_claim_is_dropped() {
        let registry = Registry::<u8>::new();
        let (claim, handover) = registry.claim(&name("a")).unwrap();
        assert!(handover.is_none());
        assert_eq!(registry.claim(&name("a")).err(), Some(Taken));
        assert!(registry.claim(&name("b")).is_ok());
        assert_eq!(registry.live(), [name("a")]);
        drop(claim);
        assert!(registry.claim(&name("a")).is_ok());
    }

    #[test]
    fn a_panicking_holder_frees_its_name() {
        let registry = Registry::<u8>::new();
        let in_thread = Arc::clone(&registry);
        let ended = std::thread::spawn(move || {
            let _claim = in_thread.claim(&name("a")).unwrap();
            panic!("as a task might");
        });
        assert!(ended.join().is_err());
        assert!(registry.claim(&name("a")).is_ok());
    }

    #[tokio::test]
    async fn what_was_offered_is_handed_to_the_next() {
        let registry = Registry::new();
        let (claim, _) = registry.claim(&name("a")).unwrap();
        let mut offer = claim.offer();
        assert!(registry.live().is_empty());

        let (claim, handover) = registry.claim(&name("a")).unwrap();
        assert_eq!(registry.claim(&name("a")).err(), Some(Taken), "the next one holds it already");
        offer.asked().await.answer(Some(7)).unwrap();
        drop(offer);
        assert_eq!(handover.unwrap().receive().await, Some(7));
        assert_eq!(registry.live(), [name("a")], "the old offer's end does not free it");
        drop(claim);
        assert!(registry.claim(&name("a")).is_ok());
    }

    #[tokio::test]
    async fn a_withdrawn_offer_frees_the_name_or_tells_who_came_before() {
        let registry = Registry::<u8>::new();
        let offer = registry.claim(&name("a")).unwrap().0.offer();
        assert!(offer.withdraw().is_none());
        let (claim, handover) = registry.claim(&name("a")).unwrap();
        assert!(handover.is_none());

        let offer = claim.offer();
        let (_claim, handover) = registry.claim(&name("a")).unwrap();
        offer.withdraw().unwrap().answer(None).unwrap();
        assert_eq!(handover.unwrap().receive().await, None);
        assert_eq!(registry.claim(&name("a")).err(), Some(Taken));
    }

    #[tokio::test]
    async fn an_offerer_that_vanished_hands_on_nothing() {
        let registry = Registry::<u8>::new();
        let offer = registry.claim(&name("a")).unwrap().0.offer();
        let (_claim, handover) = registry.claim(&name("a")).unwrap();
        drop(offer);
        assert_eq!(handover.unwrap().receive().await, None);
    }

    #[tokio::test]
    async fn what_nobody_takes_comes_back() {
        let registry = Registry::new();
        let mut offer = registry.claim(&name("a")).unwrap().0.offer();
        let (claim, handover) = registry.claim(&name("a")).unwrap();
        drop((claim, handover));
        assert_eq!(offer.asked().await.answer(Some(7)), Err(Some(7)));
    }
}
