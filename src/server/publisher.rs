//! One connection: bytes to the RTMP machine, its events to a broadcast, its replies back.
//!
//! ```text
//!   connected ──Publish, name free──→ publishing ──Unpublish──→ connected …
//!       │ 10 s                            │ broken, silent for 15 s, or stop
//!       └──→ closed                       └──→ the broadcast is kept for a while, or ended
//! ```

mod publish;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};

use super::Context as Shared;
use super::broadcast::{self, Broadcast, printable, source};
use super::ending::Ending;
use super::limits::{Admission, Bitrate, Configurations, Reached};
use super::registry::{Call, Claim};
use super::socket::{Next, Pace};
use super::stop::Stop;
use super::tempo::{Speed, Tempo};
use super::wire::{MOST_UNSENT_BYTES, Wire};
use crate::flv::{self, TagBody};
use crate::media::Moment;
use crate::rtmp::{Connection, Event, Message, MessageKind, Publish};

/// From the connection, or from the end of a publish, to the publish: however the bytes are dripped, no longer.
pub(super) const PUBLISH_WITHIN: Duration = Duration::from_secs(10);
/// A publisher has to send a whole message, or [`SIGN_OF_LIFE_BYTES`], in this time.
pub(super) const SILENCE: Duration = Duration::from_secs(15);
/// What counts as not silent though it is no whole message: a large key frame on a slow uplink, but no dripping.
const SIGN_OF_LIFE_BYTES: u64 = 16 << 10;
/// How long a peer may take to read our last words.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// What is still read from a socket when the server stops, or somebody else wants the name, in bytes: what the system had
/// received for us.
const LAST_BYTES: u64 = 8 << 20;
/// How many pieces a connection is read before the next one's turn, and then what of the last read is left.
const PIECES_IN_A_ROW: u32 = 4;

/// Serves a connection, then keeps its broadcast as long as it may come back. `admission` ends with the connection.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Pace + Unpin>(
    socket: S,
    peer: SocketAddr,
    admission: Admission,
    context: Arc<Shared>,
    stop: Stop,
) {
    let mut session = Session::new(socket, peer, &context, admission.arrived);
    let ending = session.run(&stop).await;
    match &ending {
        Ending::Limit(_) => session.connection.end_publish(DENIED, &ending.to_string()),
        Ending::TakenOver(_) => session.connection.end_publish(BAD_NAME, &ending.to_string()),
        _ => {}
    }
    session.take_replies();
    session.tell_done();
    let Session { wire, live, .. } = session;
    let received = wire.received();
    match live {
        None => {
            log_unpublished(&context, peer, received, &ending);
            close(wire).await;
        }
        Some(Live { mut broadcast, claim, .. }) => {
            broadcast.interrupt();
            if broadcast.has_output() || context.gate.may_log() {
                let (stream, summary) = (broadcast.name(), broadcast.summary());
                tracing::info!(%stream, %peer, received_bytes = received, "gone: {ending}; {summary}");
            }
            let closed = async {
                close(wire).await;
                drop(admission);
            };
            let kept = async {
                match ending {
                    Ending::Stopped => broadcast::leave(broadcast, claim.offer(), stop).await,
                    Ending::TakenOver(by) => broadcast::give_way(broadcast, claim, by, stop).await,
                    // There is nothing to go on with where nothing came: strangers could fill us with that.
                    _ if !broadcast.has_output() => broadcast::end(broadcast, claim.offer(), stop).await,
                    _ => broadcast::keep(broadcast, claim, context.grace, stop).await,
                }
            };
            tokio::join!(closed, kept);
        }
    }
}

async fn close<S: AsyncRead + AsyncWrite + Unpin>(wire: Wire<S>) {
    // The connection is over; that our last words did not arrive changes nothing.
    let _ = timeout(CLOSE_WITHIN, wire.close()).await;
}

/// Port scanners and health checks come and go; who was closed by us is told about.
fn log_unpublished(context: &Shared, peer: SocketAddr, received: u64, ending: &Ending) {
    match ending {
        Ending::Protocol(_) | Ending::Unpublished | Ending::Limit(_) if context.gate.may_log() => {
            tracing::info!(%peer, received_bytes = received, "connection without a publish closed: {ending}");
        }
        _ => tracing::debug!(%peer, received_bytes = received, "connection without a publish closed: {ending}"),
    }
}

struct Session<'a, S> {
    context: &'a Shared,
    peer: SocketAddr,
    wire: Wire<S>,
    connection: Connection,
    live: Option<Live>,
    /// What the peer says it is.
    encoder: Option<String>,
    /// When the connection is over, unless something comes.
    deadline: Instant,
    /// Bytes received when the deadline was last moved.
    alive_at: u64,
    /// Publishes that were refused.
    refusals: u32,
    /// The limit that ends the connection.
    reached: Option<Reached>,
}

/// What woke a session up.
enum Woken {
    /// So many bytes have come, or none will.
    Received(io::Result<usize>),
    /// Somebody else has taken the name, or wants it.
    Called(Call<Box<Broadcast>>),
    /// The disk has got on, or it is time for something.
    Due,
    /// All has to stop.
    Stopped,
}

/// A broadcast that is being published.
struct Live {
    broadcast: Box<Broadcast>,
    claim: Claim<Box<Broadcast>>,
    /// How it was asked for.
    publish: Publish,
    /// Tags that could not be read.
    bad_tags: u64,
    /// Bytes of the connection before.
    received_before: u64,
    most_bitrate: Option<u64>,
    bitrate: Bitrate,
    configurations: Configurations,
    tempo: Tempo,
}

impl<'a, S: AsyncRead + AsyncWrite + Pace + Unpin> Session<'a, S> {
    fn new(socket: S, peer: SocketAddr, context: &'a Shared, arrived: Instant) -> Self {
        Self {
            context,
            peer,
            wire: Wire::new(socket),
            connection: Connection::new(),
            live: None,
            encoder: None,
            deadline: arrived + PUBLISH_WITHIN,
            alive_at: 0,
            refusals: 0,
            reached: None,
        }
    }

    async fn run(&mut self, stop: &Stop) -> Ending {
        let mut alarm = pin!(sleep_until(self.deadline));
        let mut hearer = stop.clone();
        let mut stopped = pin!(hearer.said());
        let mut is_others_turn = false;
        let mut pieces = 0_u32;
        let mut has_looked_again = false;
        loop {
            // Bytes that never end take turns with other publishers too.
            if pieces >= PIECES_IN_A_ROW && !self.wire.has_unread() {
                pieces = 0;
                yield_now().await;
            }
            let next = self.next_alarm();
            // The timer is moved only when it has to be: not with each message.
            if next < alarm.deadline() || alarm.is_elapsed() {
                alarm.as_mut().reset(next);
            }
            let may_read = !self.live.as_ref().is_some_and(|live| live.broadcast.is_behind());
            if !may_read && let Some(live) = &self.live {
                live.claim.stop_listening();
            }
            let mut handled = Ok(());
            // One wake-up for many messages: most find bytes and look at nothing else. Bytes that never end take turns.
            let woken = poll_fn(|cx| {
                let Self { wire, connection, live, .. } = self;
                let mut poll_receive = |cx: &mut Context<'_>| {
                    let take = |bytes: &[u8]| handled = connection.handle_bytes(bytes);
                    wire.poll_receive(cx, may_read, take).map(Woken::Received)
                };
                // Theirs once, whether something is due or not: what is due may be that something is sent.
                let are_others_first = std::mem::take(&mut is_others_turn);
                if !are_others_first && let Poll::Ready(received) = poll_receive(cx) {
                    is_others_turn = true;
                    return Poll::Ready(received);
                }
                if let Some(Live { broadcast, claim, .. }) = live {
                    if let Poll::Ready(call) = claim.poll_called(cx) {
                        return Poll::Ready(Woken::Called(call));
                    }
                    if broadcast.poll_progress(cx).is_ready() {
                        return Poll::Ready(Woken::Due);
                    }
                }
                if alarm.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Woken::Due);
                }
                if stopped.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Woken::Stopped);
                }
                if are_others_first && let Poll::Ready(received) = poll_receive(cx) {
                    return Poll::Ready(received);
                }
                pieces = 0;
                Poll::Pending
            })
            .await;
            let mut has_received = false;
            match woken {
                Woken::Received(Ok(0)) => return Ending::Closed,
                Woken::Received(Ok(_)) => {
                    has_received = true;
                    pieces += 1;
                }
                Woken::Received(Err(error)) if error.kind() == io::ErrorKind::WriteZero => {
                    return Ending::Limit(Reached::UnreadReplies(MOST_UNSENT_BYTES));
                }
                Woken::Received(Err(error)) => return Ending::Broken(error),
                Woken::Called(Call::Taken(by)) => return Ending::TakenOver(by),
                Woken::Called(Call::Wanted) => match self.look(stop).await {
                    Some(ending) => return ending,
                    None => continue,
                },
                Woken::Due => {}
                Woken::Stopped => {
                    self.receive_last().await;
                    return Ending::Stopped;
                }
            }
            let now = Instant::now();
            if has_received {
                self.handle_events(stop, now).await;
            }
            if let Err(error) = handled {
                return Ending::Protocol(error);
            }
            // While our disk keeps us from reading, the silence is ours.
            if let Some(live) = self.live.as_ref().filter(|_| has_received || !may_read) {
                live.claim.mark_heard(now);
            }
            match self.handle_time(may_read, now) {
                // A server that is behind may not have looked for as long: whatever has come is read before.
                Some(Ending::Silent) if !std::mem::replace(&mut has_looked_again, true) => {
                    self.wire.hasten();
                }
                Some(ending) => return ending,
                None => has_looked_again = false,
            }
            if has_received || !may_read {
                self.pace(has_received);
            }
        }
    }

    /// All that came was handled, if anything could come: when the wire is looked at next, and when it is written to.
    fn pace(&mut self, has_received: bool) {
        let mut next = Next::Any;
        let mut quiet_until = None;
        if let Some(Live { tempo, broadcast, .. }) = &mut self.live {
            let now = Instant::now();
            if has_received {
                tempo.mark_received(now)
            } else {
                tempo.mark_deaf(now)
            }
            quiet_until = tempo.quiet_until();
            next = match tempo.speed() {
                Speed::Film => Next::Film,
                Speed::Live => broadcast.quiet_until().map_or(Next::Any, Next::QuietUntil),
                Speed::Unknown => Next::Any,
            };
        }
        self.wire.expect(next);
        self.wire.be_quiet_until(quiet_until);
    }

    /// Somebody wants the name: all that has come is read, for the publisher may be gone.
    async fn look(&mut self, stop: &Stop) -> Option<Ending> {
        let until = self.wire.received() + LAST_BYTES;
        while self.wire.received() < until && self.live.as_ref().is_some_and(|live| !live.broadcast.is_behind()) {
            let Self { wire, connection, .. } = self;
            let mut handled = Ok(());
            match wire.receive_ready(|bytes| handled = connection.handle_bytes(bytes)).await {
                Ok(None) => break,
                Ok(Some(0)) => return Some(Ending::Closed),
                Ok(Some(_)) => {}
                Err(error) => return Some(Ending::Broken(error)),
            }
            let now = Instant::now();
            self.live.iter().for_each(|live| live.claim.mark_heard(now));
            self.handle_events(stop, now).await;
            if let Err(error) = handled {
                return Some(Ending::Protocol(error));
            }
            if let Some(ending) = self.handle_time(true, now) {
                return Some(ending);
            }
        }
        self.live.iter().for_each(|live| live.claim.mark_looked());
        None
    }

    /// What has come before the word to stop is part of the broadcast.
    async fn receive_last(&mut self) {
        let until = self.wire.received() + LAST_BYTES;
        let received_at = self.context.clock.now();
        while self.live.is_some() && self.wire.received() < until {
            let Self { wire, connection, .. } = self;
            let mut handled = Ok(());
            let received = wire.receive_ready(|bytes| handled = connection.handle_bytes(bytes)).await;
            while let Some(event) = self.connection.poll_event() {
                // Nobody begins now.
                if let Event::Media(message) = event {
                    self.handle_media(&message, received_at);
                }
            }
            if !matches!(received, Ok(Some(1..))) || handled.is_err() {
                break;
            }
        }
    }

    fn next_alarm(&self) -> Instant {
        let Some(Live { broadcast, .. }) = &self.live else { return self.deadline };
        // Deletions wait for the next bytes, or until the publisher is silent.
        [broadcast.lists_at(), broadcast.retry_at(), self.wire.sends_at()]
            .into_iter()
            .flatten()
            .fold(self.deadline, Instant::min)
    }

    fn handle_time(&mut self, could_read: bool, now: Instant) -> Option<Ending> {
        if let Some(reached) = self.reached {
            return Some(Ending::Limit(reached));
        }
        let Some(live) = &mut self.live else {
            return (now >= self.deadline).then_some(Ending::Unpublished);
        };
        if live.broadcast.due().is_some_and(|due| now >= due) {
            live.broadcast.handle_time();
        }
        // Where this may block, a disk that stalls makes us deaf; the silence is not the publisher's.
        let heard_at = live.claim.stop_listening();
        live.broadcast.pass_on();
        let deaf = now.elapsed();
        live.claim.listen_again(heard_at, deaf);
        live.tempo.leave_out(deaf);
        self.deadline += deaf;
        for words in live.broadcast.take_left_out() {
            self.connection.warn_publish(UNSUPPORTED, &words);
            while let Some(bytes) = self.connection.poll_output() {
                self.wire.send(bytes);
            }
        }
        if let Some(most) = live.most_bitrate
            && let Err(reached) = live.bitrate.check(self.wire.received(), most)
        {
            return Some(Ending::Limit(reached));
        }
        if !could_read || self.wire.received() >= self.alive_at + SIGN_OF_LIFE_BYTES {
            self.mark_alive(now);
        }
        (now >= self.deadline).then_some(Ending::Silent)
    }

    fn mark_alive(&mut self, now: Instant) {
        self.deadline = now + SILENCE;
        self.alive_at = self.wire.received();
    }

    async fn handle_events(&mut self, stop: &Stop, now: Instant) {
        if let Some(live) = &mut self.live {
            live.broadcast.tell_outage();
        }
        let mut received_at = self.context.clock.moment(now);
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::Connect(connect) => {
                    self.encoder = connect.flash_ver.as_deref().map(printable);
                    self.connection.accept_connect();
                }
                Event::Publish(publish) => {
                    self.handle_publish(publish).await;
                    received_at = self.context.clock.now();
                }
                Event::Media(message) => {
                    self.handle_media(&message, received_at);
                    if self.live.is_some() {
                        self.mark_alive(now);
                    }
                }
                Event::Unpublish => self.handle_unpublish(stop).await,
                Event::Refused(reason) => self.log_refused(reason),
            }
        }
        self.take_replies();
    }

    fn take_replies(&mut self) {
        while let Some(bytes) = self.connection.poll_output() {
            self.wire.send(bytes);
        }
    }

    fn handle_media(&mut self, message: &Message, received_at: Moment) {
        let Some(live) = &mut self.live else { return };
        let Message { kind, timestamp, body } = message;
        live.tempo.handle_media(*timestamp);
        let parsed = match kind {
            MessageKind::Audio => flv::parse_audio(*timestamp, body),
            MessageKind::Video => flv::parse_video(*timestamp, body),
            MessageKind::Data => flv::parse_data(*timestamp, body),
        };
        match parsed {
            Ok(tags) => {
                for tag in tags {
                    if let TagBody::Metadata(metadata) = &tag.body
                        && let Some(encoder) = &metadata.encoder
                    {
                        live.broadcast.set_source(source(self.peer, Some(&printable(encoder))));
                    }
                    live.broadcast.handle_tag(tag, received_at);
                    if let Err(reached) =
                        live.configurations.check(live.broadcast.configurations(), received_at.monotonic)
                    {
                        self.reached = Some(reached);
                        return;
                    }
                }
            }
            Err(error) => {
                // One line a publisher: a codec that we lack comes again with each frame.
                if live.bad_tags == 0 {
                    let stream = live.broadcast.name();
                    tracing::warn!(%stream, timestamp, "{kind:?} message passed over: {error}");
                    if let flv::Error::Unsupported(_) = error {
                        self.connection.warn_publish(UNSUPPORTED, &format!("{kind:?} is left out: {error}"));
                    }
                }
                live.bad_tags += 1;
            }
        }
    }
}

/// The code of the refusal of a name; encoders show the text beside it.
const BAD_NAME: &str = "NetStream.Publish.BadName";
/// The code of the refusal of a publisher.
const DENIED: &str = "NetStream.Publish.Denied";

/// The code with which a publisher is told that a part of its stream is left out.
const UNSUPPORTED: &str = "NetStream.Publish.UnsupportedCodec";
