//! A broadcast: the machine that packages it, the way to its files, and its life after the connection.
//!
//! ```text
//!   publishing ──goodbye──────────────────────────────→ finish ──→ linger: due deletions
//!       │ ↑                                               ↑
//!       │ └──the publisher comes back── keep ──grace over─┘
//!       └──the connection breaks────────↑
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::Context;
use super::clock::Clock;
use super::governor::{Ended, Governor};
use super::registry::{Claim, Offer, Request};
use super::stop::Stop;
use super::writer::Writer;
use crate::action::StreamName;
use crate::config::AtStop;
use crate::flv::Tag;
use crate::hls::Resumed;
use crate::media::Moment;
use crate::packager::{Notice, Packager, Totals};

/// The longest name of an encoder that is logged, in characters.
const LONGEST_ENCODER: usize = 64;

/// A broadcast that goes on, is interrupted or has ended.
pub(super) struct Broadcast {
    name: StreamName,
    clock: Clock,
    packager: Packager,
    writer: Writer,
    governor: Arc<Governor>,
    at_stop: AtStop,
    /// Something of it is on its way to the disk, or there.
    has_output: bool,
    /// The packager was told of an outage that it does not know to be over.
    is_failing: bool,
    /// Who publishes, for the log.
    source: String,
    /// What the publisher is to be told is left out.
    left_out: Vec<String>,
}

impl Broadcast {
    /// A broadcast that begins now.
    pub(super) fn begin(name: StreamName, context: &Context) -> Box<Self> {
        Self::of(Packager::new(name.clone(), context.begin(), context.settings), name, context)
    }

    /// A broadcast that a former process left.
    pub(super) fn resume(name: StreamName, resumed: &Resumed, context: &Context) -> Box<Self> {
        let packager = Packager::resume(name.clone(), resumed, context.settings, context.clock.now());
        let mut broadcast = Self::of(packager, name, context);
        broadcast.has_output = true;
        broadcast
    }

    fn of(packager: Packager, name: StreamName, context: &Context) -> Box<Self> {
        let Context { clock, at_stop, ref make_store, ref work, ref governor, .. } = *context;
        Box::new(Self {
            name,
            clock,
            packager,
            writer: Writer::new(Arc::clone(make_store), work.clone()),
            governor: Arc::clone(governor),
            at_stop,
            has_output: false,
            is_failing: false,
            source: String::new(),
            left_out: Vec::new(),
        })
    }

    /// The name it has.
    pub(super) fn name(&self) -> &StreamName {
        &self.name
    }

    /// Says who publishes, for the log.
    pub(super) fn set_source(&mut self, source: String) {
        self.source = source;
    }

    /// Whether anything came of it yet.
    pub(super) fn has_output(&self) -> bool {
        self.has_output
    }

    /// What came of it so far, in words.
    pub(super) fn summary(&self) -> String {
        let Totals { segments, bytes, samples, gaps, dropped, late } = self.packager.totals();
        let dropped = late + dropped.total();
        let mut words = format!("{segments} segments, {samples} samples, {bytes} bytes so far");
        for (count, what) in [(gaps, "gaps"), (dropped, "messages left out")] {
            if count > 0 {
                words += &format!(", {count} {what}");
            }
        }
        words
    }

    /// How many configurations its tracks have had.
    pub(super) fn configurations(&self) -> u64 {
        self.packager.configurations()
    }

    /// Takes a tag from the publisher; [`pass_on`](Self::pass_on) comes once behind those that came together.
    pub(super) fn handle_tag(&mut self, tag: Tag, received_at: Moment) {
        self.packager.handle_tag(tag, received_at);
    }

    /// Passes on what the packager has for the disk and for the log.
    pub(super) fn pass_on(&mut self) {
        self.tell_outage();
        self.drain();
        for lost in self.writer.take_lost() {
            self.packager.handle_lost(&lost);
        }
        if self.writer.take_vanished() {
            self.packager.handle_vanished();
        }
        self.drain();
        self.writer.start();
        while let Some(notice) = self.packager.poll_notice() {
            match notice {
                Notice::Started(_) => tracing::info!(stream = %self.name, "publishing from {}: {notice}", self.source),
                Notice::Advice(_) | Notice::PassedOver(_) | Notice::LeftOut(_) => {
                    tracing::warn!(stream = %self.name, "{notice}");
                }
            }
            if let Notice::LeftOut(words) = notice {
                self.left_out.push(words);
            }
        }
    }

    /// What the publisher is to be told is left out.
    pub(super) fn take_left_out(&mut self) -> Vec<String> {
        std::mem::take(&mut self.left_out)
    }

    /// Tells the packager whether viewers see its playlists now. Before anything that has it delete what has left them.
    pub(super) fn tell_outage(&mut self) {
        let failing_since = self.writer.failing_since().map(|instant| self.clock.monotonic(instant));
        if self.is_failing || failing_since.is_some() {
            self.is_failing = failing_since.is_some();
            self.packager.handle_outage(failing_since, self.clock.now());
        }
    }

    fn drain(&mut self) {
        while let Some(action) = self.packager.poll_action() {
            self.has_output = true;
            self.writer.push(action);
        }
    }

    /// Waits until everything is written, or the disk has had its time.
    async fn settle(&mut self) {
        let until = Writer::settles_until();
        self.pass_on();
        while !self.writer.is_idle() {
            if timeout_at(until, self.writer.progress()).await.is_err() {
                return;
            }
            self.pass_on();
        }
    }

    /// Whether there is something left to do, now or later.
    fn is_unfinished(&mut self) -> bool {
        self.tell_outage();
        self.due().is_some() || !self.writer.is_idle() || self.writer.has_undeleted()
    }

    /// Whether the disk is too far behind to take more.
    pub(super) fn is_behind(&self) -> bool {
        self.writer.is_full()
    }

    /// Whoever published is gone: everything received is listed, and the playlists stay open.
    pub(super) fn interrupt(&mut self) {
        self.tell_outage();
        self.packager.interrupt(self.clock.now());
        self.pass_on();
    }

    /// It is over: everything received is listed, and the playlists end.
    pub(super) fn close(&mut self) {
        self.tell_outage();
        self.packager.finish(self.clock.now());
        self.pass_on();
    }

    /// It has ended: the folder's bounds hold for it from now on.
    fn note_end(&self) {
        if let (broadcast, Some(lifetime)) = self.packager.broadcast() {
            self.governor.note(Ended { name: self.name.clone(), broadcast, lifetime, at: Instant::now() });
        }
    }

    /// When [`handle_time`](Self::handle_time) is to be called.
    pub(super) fn due(&self) -> Option<Instant> {
        self.packager.deadline().map(|deadline| self.clock.instant(deadline))
    }

    /// When [`handle_time`](Self::handle_time) has something to list.
    pub(super) fn lists_at(&self) -> Option<Instant> {
        self.packager.lists_at().map(|at| self.clock.instant(at))
    }

    /// Until when nothing that comes changes what viewers see, as far as can be foreseen.
    pub(super) fn quiet_until(&self) -> Option<Instant> {
        self.packager.quiet_until().map(|until| self.clock.instant(until))
    }

    /// Does what is due.
    pub(super) fn handle_time(&mut self) {
        self.tell_outage();
        self.packager.handle_time(self.clock.now());
    }

    /// Waits until the disk has got on. Cancel safe.
    pub(super) async fn progress(&mut self) {
        self.writer.progress().await;
    }

    /// Whether the disk has got on and there is more to do, or something went wrong.
    pub(super) fn poll_progress(&mut self, cx: &TaskContext<'_>) -> Poll<()> {
        self.writer.poll_progress(cx)
    }

    /// When [`pass_on`](Self::pass_on) is to be called, whatever else happens.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.writer.retry_at()
    }
}

/// Keeps an interrupted broadcast open until its publisher is back, or for `grace`; then ends it.
pub(super) async fn keep(mut broadcast: Box<Broadcast>, claim: Claim<Box<Broadcast>>, grace: Duration, mut stop: Stop) {
    let mut offer = claim.offer();
    let over = Instant::now() + grace;
    loop {
        broadcast.pass_on();
        let due = broadcast.due().map_or(over, |due| due.min(over));
        tokio::select! {
            request = offer.asked() => match request.answer(Some(broadcast)) {
                Ok(()) => return,
                // The one who came back is gone again, and the name with it.
                Err(returned) => match returned {
                    Some(returned) => { broadcast = returned; break }
                    None => return,
                },
            },
            () = sleep_until(due) => {
                if Instant::now() >= over {
                    tracing::info!(stream = %broadcast.name, "ended: the publisher did not come back in {grace:?}");
                    break;
                }
                broadcast.handle_time();
            }
            () = broadcast.progress() => {}
            () = stop.said() => return leave(broadcast, offer, stop).await,
        }
    }
    end(broadcast, offer, stop).await;
}

/// The server stops: an interrupted broadcast ends, or is left for the next server to go on with.
pub(super) async fn leave(mut broadcast: Box<Broadcast>, offer: Offer<Box<Broadcast>>, stop: Stop) {
    match broadcast.at_stop {
        AtStop::End => end(broadcast, offer, stop).await,
        AtStop::Keep => broadcast.settle().await,
    }
}

/// Hands a broadcast to the publisher who has taken its name.
pub(super) async fn give_way(
    broadcast: Box<Broadcast>,
    claim: Claim<Box<Broadcast>>,
    to: Request<Box<Broadcast>>,
    stop: Stop,
) {
    if let Err(Some(broadcast)) = to.answer(Some(broadcast)) {
        // He is gone again, and the name with him.
        end(broadcast, claim.offer(), stop).await;
    }
}

/// Ends a broadcast, and frees its name once everything is written. What remains to be done later is done elsewhere.
pub(super) async fn end(mut broadcast: Box<Broadcast>, offer: Offer<Box<Broadcast>>, stop: Stop) {
    broadcast.close();
    broadcast.settle().await;
    // The address is the next broadcast's.
    broadcast.writer.forget(&broadcast.name.index());
    if let Some(next) = offer.withdraw() {
        // The next publisher begins a new broadcast; if he has left already, so be it.
        let _ = next.answer(None);
    }
    broadcast.note_end();
    if broadcast.is_unfinished() {
        tokio::spawn(linger(broadcast, stop));
    }
}

/// Ends a broadcast that nobody can come back to, and removes its files whose time is over.
pub(super) async fn close_and_linger(mut broadcast: Box<Broadcast>, stop: Stop) {
    broadcast.close();
    broadcast.note_end();
    linger(broadcast, stop).await;
}

/// Removes the files of an ended broadcast whose time is over, as long as there are any.
async fn linger(mut broadcast: Box<Broadcast>, mut stop: Stop) {
    while broadcast.is_unfinished() {
        let due = broadcast.due();
        tokio::select! {
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => broadcast.handle_time(),
            () = broadcast.progress() => {}
            () = stop.said() => break,
        }
        broadcast.pass_on();
    }
    broadcast.settle().await;
}

/// Who publishes, for the log.
pub(super) fn source(peer: SocketAddr, encoder: Option<&str>) -> String {
    match encoder {
        Some(encoder) => format!("{peer} with {encoder}"),
        None => peer.to_string(),
    }
}

/// What a peer said, fit for a log line.
pub(super) fn printable(text: &str) -> String {
    text.chars().take(LONGEST_ENCODER).flat_map(char::escape_debug).collect()
}
