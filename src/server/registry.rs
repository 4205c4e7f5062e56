//! Who holds which name: a live name belongs to its publisher.
//!
//! ```text
//!              claim                              offer
//!   (nobody) ────────→ live: held by a Claim ─────────────→ Offer: free for the next
//!       ↑                │   │ the same publisher again,       │ withdrawn, or claimed by the next,
//!       │ dropped        │   │ or another after silence        │ who may take over what is handed on
//!       └────────────────┴───┴─────────────────────────────────┘
//! ```
//!
//! A name is claimed before any file of it is touched. A [`Claim`] that is dropped, by a panic too, frees its name. Whoever
//! held it is asked to hand on what there is, and may still write until he answers. Who wants a live name has its holder look
//! first whether its publisher is still there: that a connection broke may not have been read yet. Knows nothing of
//! connections or files: what is handed over is any `T`.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

use super::auth::Credential;
use crate::action::StreamName;
use crate::config::OnDuplicate;

/// A live publisher that was not heard for longer is not there any more, if somebody else wants the name.
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(3);

/// How long the holder of a name may take to look whether its publisher is still there.
const LOOK_WITHIN: Duration = Duration::from_millis(500);

/// All names that are held or offered.
#[derive(Debug)]
pub(super) struct Registry<T> {
    on_duplicate: OnDuplicate,
    start: Instant,
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
    credential: Credential,
    heard: Arc<Heard>,
    attention: Arc<Attention>,
    /// It belongs to its publisher, and is not offered.
    is_live: bool,
    /// Where to ask for what is handed on.
    ask: oneshot::Sender<Request<T>>,
}

/// When a publisher was heard last, in milliseconds since the registry began.
#[derive(Debug)]
struct Heard(AtomicU64);

impl Heard {
    /// Nobody can be heard: we do not listen.
    const NOT_LISTENING: u64 = u64::MAX;
}

/// When a publisher was heard, as [`Heard`] has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeardAt(u64);

/// Between the holder of a name and those who want it.
#[derive(Debug, Default)]
struct Attention {
    wanted: Mutex<Wanted>,
    /// The publisher is still there, or its name is not its own any more.
    has_looked: Notify,
}

#[derive(Debug, Default)]
struct Wanted {
    /// Somebody wants the name.
    is_wanted: bool,
    /// Whom to tell.
    holder: Option<Waker>,
}

impl Attention {
    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn want(&self) {
        let mut wanted = self.lock();
        wanted.is_wanted = true;
        let holder = wanted.holder.take();
        drop(wanted);
        if let Some(holder) = holder {
            holder.wake();
        }
    }

    /// Whether somebody has wanted the name since this was last asked.
    fn poll_wanted(&self, cx: &Context<'_>) -> Poll<()> {
        let mut wanted = self.lock();
        if std::mem::take(&mut wanted.is_wanted) {
            return Poll::Ready(());
        }
        match &mut wanted.holder {
            Some(holder) => holder.clone_from(cx.waker()),
            None => wanted.holder = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

/// Somebody else is publishing under this name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken;

impl<T> Registry<T> {
    /// A registry in which every name is free.
    pub(super) fn new(on_duplicate: OnDuplicate) -> Arc<Self> {
        let names = Mutex::new(Names { holders: HashMap::new(), next_id: 0 });
        Arc::new(Self { on_duplicate, start: Instant::now(), names })
    }

    /// Takes a name by the right of `credential`, with the hand-over from the one who held or offered it, if somebody did.
    pub(super) fn claim(
        self: &Arc<Self>,
        name: &StreamName,
        credential: Credential,
    ) -> Result<(Claim<T>, Option<Handover<T>>), Taken> {
        let mut names = self.lock();
        if names.holders.get(name).is_some_and(|holder| holder.is_live && !self.has_to_give_way(holder, &credential)) {
            return Err(Taken);
        }
        let (claim, before) = self.take(&mut names, name, credential, true);
        drop(names);
        let handover = before.and_then(|before| {
            let (answer, handover) = oneshot::channel();
            // Nobody there any more: nothing is handed on.
            before.ask.send(Request(answer)).is_ok().then_some(Handover(handover))
        });
        Ok((claim, handover))
    }

    /// As [`claim`](Self::claim), once the holder has seen whether its publisher is still there.
    pub(super) async fn claim_if_gone(
        self: &Arc<Self>,
        name: &StreamName,
        credential: Credential,
    ) -> Result<(Claim<T>, Option<Handover<T>>), Taken> {
        if let Some(attention) = self.in_the_way(name, &credential) {
            let mut has_looked = pin!(attention.has_looked.notified());
            has_looked.as_mut().enable();
            attention.want();
            // A holder that is busy for so long is there.
            let _ = timeout(LOOK_WITHIN, has_looked).await;
        }
        self.claim(name, credential)
    }

    /// How to reach the holder that keeps `credential` from a name.
    fn in_the_way(&self, name: &StreamName, credential: &Credential) -> Option<Arc<Attention>> {
        let names = self.lock();
        let holder = names.holders.get(name).filter(|holder| holder.is_live)?;
        (!self.has_to_give_way(holder, credential)).then(|| Arc::clone(&holder.attention))
    }

    /// Offers a name that nobody holds or offers.
    pub(super) fn offer_free(self: &Arc<Self>, name: &StreamName) -> Option<Offer<T>> {
        let mut names = self.lock();
        let is_free = !names.holders.contains_key(name);
        is_free.then(|| Offer(self.take(&mut names, name, Credential::None, false).0))
    }

    /// Whether a name belongs to a publisher, or is kept for one.
    pub(super) fn is_held(&self, name: &StreamName) -> bool {
        self.lock().holders.contains_key(name)
    }

    fn take(
        self: &Arc<Self>,
        names: &mut Names<T>,
        name: &StreamName,
        credential: Credential,
        is_live: bool,
    ) -> (Claim<T>, Option<Holder<T>>) {
        let id = names.next_id;
        names.next_id += 1;
        let heard = Arc::new(Heard(AtomicU64::new(self.millis(Instant::now()))));
        let attention = Arc::new(Attention::default());
        let (ask, requests) = oneshot::channel();
        let holder =
            Holder { id, credential, heard: Arc::clone(&heard), attention: Arc::clone(&attention), is_live, ask };
        let before = names.holders.insert(name.clone(), holder);
        (Claim { registry: Arc::clone(self), name: name.clone(), id, heard, attention, requests }, before)
    }

    fn has_to_give_way(&self, holder: &Holder<T>, to: &Credential) -> bool {
        let silence_ms = self.millis(Instant::now()).saturating_sub(holder.heard.0.load(Ordering::Relaxed));
        match self.on_duplicate {
            OnDuplicate::Reject => false,
            OnDuplicate::Takeover => {
                holder.credential.proves_the_same(to) || Duration::from_millis(silence_ms) > SILENT_AFTER
            }
        }
    }

    /// Milliseconds since the registry began.
    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }

    /// The names that belong to a publisher now, in no order.
    pub(super) fn live(&self) -> Vec<StreamName> {
        let names = self.lock();
        names.holders.iter().filter(|(_, holder)| holder.is_live).map(|(name, _)| name.clone()).collect()
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

/// The right to publish under a name, until it is dropped or somebody else has to be given way.
#[derive(Debug)]
pub(super) struct Claim<T> {
    registry: Arc<Registry<T>>,
    name: StreamName,
    id: u64,
    heard: Arc<Heard>,
    attention: Arc<Attention>,
    requests: oneshot::Receiver<Request<T>>,
}

impl<T> Claim<T> {
    /// The publisher was heard `now`.
    pub(super) fn mark_heard(&self, now: Instant) {
        self.heard.0.store(self.registry.millis(now), Ordering::Relaxed);
    }

    /// From now until the next [`mark_heard`](Self::mark_heard) or [`listen_again`](Self::listen_again), the silence is not
    /// the publisher's. Returns when it was heard.
    pub(super) fn stop_listening(&self) -> HeardAt {
        HeardAt(self.heard.0.swap(Heard::NOT_LISTENING, Ordering::Relaxed))
    }

    /// The publisher was heard at `heard_at`, and not listened to for a while.
    pub(super) fn listen_again(&self, HeardAt(heard_ms): HeardAt, deaf: Duration) {
        let deaf_ms = u64::try_from(deaf.as_millis()).unwrap_or(u64::MAX);
        self.heard.0.store(heard_ms.saturating_add(deaf_ms), Ordering::Relaxed);
    }

    /// Whether somebody else has taken the name, or wants it; not to be called again after it was taken.
    pub(super) fn poll_called(&mut self, cx: &mut Context<'_>) -> Poll<Call<T>> {
        match Pin::new(&mut self.requests).poll(cx) {
            Poll::Ready(Ok(request)) => Poll::Ready(Call::Taken(request)),
            // The sender lives in the registry as long as our claim does.
            Poll::Ready(Err(_)) | Poll::Pending => self.attention.poll_wanted(cx).map(|()| Call::Wanted),
        }
    }

    /// All that has come was read: the publisher is still there.
    pub(super) fn mark_looked(&self) {
        self.attention.has_looked.notify_waiters();
    }

    /// Lets the next publisher have the name, and ask for what is handed on.
    pub(super) fn offer(self) -> Offer<T> {
        if let Some(holder) = self.registry.lock().holders.get_mut(&self.name).filter(|holder| holder.id == self.id) {
            holder.is_live = false;
        }
        self.attention.has_looked.notify_waiters();
        Offer(self)
    }
}

impl<T> Drop for Claim<T> {
    fn drop(&mut self) {
        let mut names = self.registry.lock();
        if names.holders.get(&self.name).is_some_and(|holder| holder.id == self.id) {
            names.holders.remove(&self.name);
        }
        self.attention.has_looked.notify_waiters();
    }
}

/// What others want of the one who holds a name.
#[derive(Debug)]
pub(super) enum Call<T> {
    /// Somebody has taken the name.
    Taken(Request<T>),
    /// Somebody would take it, if the publisher is gone: see [`Claim::mark_looked`].
    Wanted,
}

/// A name that the next publisher may have.
#[derive(Debug)]
pub(super) struct Offer<T>(Claim<T>);

impl<T> Offer<T> {
    /// Waits until the next publisher has taken the name, as [`Claim::poll_called`].
    pub(super) async fn asked(&mut self) -> Request<T> {
        loop {
            if let Call::Taken(request) = poll_fn(|cx| self.0.poll_called(cx)).await {
                return request;
            }
        }
    }

    /// Frees the name; what is returned came just before.
    pub(super) fn withdraw(mut self) -> Option<Request<T>> {
        self.0.requests.close();
        self.0.requests.try_recv().ok()
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
    use tokio::time::advance;

    use super::*;

    fn name(name: &str) -> StreamName {
        StreamName::parse("live", name).unwrap()
    }

    #[test]
    fn a_live_name_is_refused_to_others_until_its_claim_is_dropped() {
        let registry = Registry::<u8>::new(OnDuplicate::Takeover);
        let (claim, handover) = registry.claim(&name("a"), Credential::None).unwrap();
        assert!(handover.is_none());
        assert_eq!(registry.claim(&name("a"), Credential::None).err(), Some(Taken));
        assert!(registry.claim(&name("b"), Credential::None).is_ok());
        assert_eq!(registry.live(), [name("a")]);
        drop(claim);
        assert!(registry.claim(&name("a"), Credential::None).is_ok());
    }

    #[test]
    fn a_panicking_holder_frees_its_name() {
        let registry = Registry::<u8>::new(OnDuplicate::Takeover);
        let in_thread = Arc::clone(&registry);
        let ended = std::thread::spawn(move || {
            let _claim = in_thread.claim(&name("a"), Credential::None).unwrap();
            panic!("as a task might");
        });
        assert!(ended.join().is_err());
        assert!(registry.claim(&name("a"), Credential::None).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_live_name_is_given_to_the_same_publisher_at_once_and_to_another_after_silence() {
        let key = |number| Credential::Key([number; 32]);
        let registry = Registry::new(OnDuplicate::Takeover);
        let (mut first, _) = registry.claim(&name("a"), key(1)).unwrap();
        assert_eq!(registry.claim(&name("a"), key(2)).err(), Some(Taken));
        let (second, handover) = registry.claim(&name("a"), key(1)).unwrap();
        let Call::Taken(request) = poll_fn(|cx| first.poll_called(cx)).await else { panic!("it is taken") };
        request.answer(Some(7)).unwrap();
        drop(first);
        assert_eq!(handover.unwrap().receive().await, Some(7));

        advance(SILENT_AFTER).await;
        assert_eq!(registry.claim(&name("a"), key(2)).err(), Some(Taken), "it takes more than that");
        second.mark_heard(Instant::now());
        advance(SILENT_AFTER).await;
        second.stop_listening();
        advance(SILENT_AFTER).await;
        assert_eq!(registry.claim(&name("a"), Credential::None).err(), Some(Taken), "the silence is ours");
        second.mark_heard(Instant::now());
        advance(SILENT_AFTER + Duration::from_millis(1)).await;
        assert!(registry.claim(&name("a"), Credential::None).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_live_name_is_refused_to_everybody_if_so_told() {
        let registry = Registry::<u8>::new(OnDuplicate::Reject);
        let _claim = registry.claim(&name("a"), Credential::Signed).unwrap();
        advance(SILENT_AFTER * 2).await;
        assert_eq!(registry.claim(&name("a"), Credential::Signed).err(), Some(Taken));
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_a_name_looks_whether_its_publisher_is_there_when_somebody_wants_it() {
        let registry = Registry::<u8>::new(OnDuplicate::Reject);
        let (mut claim, _) = registry.claim(&name("a"), Credential::None).unwrap();
        let want = || {
            let registry = Arc::clone(&registry);
            tokio::spawn(async move { registry.claim_if_gone(&name("a"), Credential::None).await.map(|_| ()) })
        };
        let start = Instant::now();
        let refused = want();
        assert!(matches!(poll_fn(|cx| claim.poll_called(cx)).await, Call::Wanted));
        claim.mark_looked();
        assert_eq!(refused.await.unwrap(), Err(Taken));
        let let_in = want();
        assert!(matches!(poll_fn(|cx| claim.poll_called(cx)).await, Call::Wanted));
        let _offer = claim.offer();
        assert_eq!(let_in.await.unwrap(), Ok(()));
        assert_eq!(start.elapsed(), Duration::ZERO);

        let _busy = registry.claim(&name("a"), Credential::None).unwrap();
        assert_eq!(want().await.unwrap(), Err(Taken));
        assert_eq!(start.elapsed(), LOOK_WITHIN);
    }

    #[tokio::test]
    async fn what_was_offered_is_handed_to_the_next() {
        let registry = Registry::new(OnDuplicate::Takeover);
        let (claim, _) = registry.claim(&name("a"), Credential::None).unwrap();
        let mut offer = claim.offer();
        assert!(registry.live().is_empty());

        let (claim, handover) = registry.claim(&name("a"), Credential::None).unwrap();
        assert_eq!(registry.claim(&name("a"), Credential::None).err(), Some(Taken), "the next one holds it already");
        offer.asked().await.answer(Some(7)).unwrap();
        drop(offer);
        assert_eq!(handover.unwrap().receive().await, Some(7));
        assert_eq!(registry.live(), [name("a")], "the old offer's end does not free it");
        drop(claim);
        assert!(registry.claim(&name("a"), Credential::None).is_ok());
    }

    #[tokio::test]
    async fn a_withdrawn_offer_frees_the_name_or_tells_who_came_before() {
        let registry = Registry::<u8>::new(OnDuplicate::Takeover);
        let offer = registry.claim(&name("a"), Credential::None).unwrap().0.offer();
        assert!(offer.withdraw().is_none());
        let (claim, handover) = registry.claim(&name("a"), Credential::None).unwrap();
        assert!(handover.is_none());

        let offer = claim.offer();
        let (_claim, handover) = registry.claim(&name("a"), Credential::None).unwrap();
        offer.withdraw().unwrap().answer(None).unwrap();
        assert_eq!(handover.unwrap().receive().await, None);
        assert_eq!(registry.claim(&name("a"), Credential::None).err(), Some(Taken));
    }

    #[tokio::test]
    async fn an_offerer_that_vanished_hands_on_nothing() {
        let registry = Registry::<u8>::new(OnDuplicate::Takeover);
        let offer = registry.claim(&name("a"), Credential::None).unwrap().0.offer();
        let (_claim, handover) = registry.claim(&name("a"), Credential::None).unwrap();
        drop(offer);
        assert_eq!(handover.unwrap().receive().await, None);
    }

    #[tokio::test]
    async fn what_nobody_takes_comes_back() {
        let registry = Registry::new(OnDuplicate::Takeover);
        let mut offer = registry.claim(&name("a"), Credential::None).unwrap().0.offer();
        let (claim, handover) = registry.claim(&name("a"), Credential::None).unwrap();
        drop((claim, handover));
        assert_eq!(offer.asked().await.answer(Some(7)), Err(Some(7)));
    }
}
