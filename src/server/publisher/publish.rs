//! How a publish begins, is refused, and ends.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::{BAD_NAME, DENIED, Live, PUBLISH_WITHIN, Session};
use crate::rtmp::Publish;
use crate::server::Context;
use crate::server::auth::{Grant, Wish};
use crate::server::broadcast::{self, Broadcast, printable, source};
use crate::server::limits::{Bitrate, Configurations, Reached};
use crate::server::registry::Taken;
use crate::server::socket::Pace;
use crate::server::stop::Stop;
use crate::server::tempo::Tempo;

/// How often a connection may be refused: one that goes on guesses.
const MOST_REFUSALS: u32 = 5;

impl<S: AsyncRead + AsyncWrite + Pace + Unpin> Session<'_, S> {
    /// Who may publish, what, or why not: the code and the words of the refusal.
    async fn ask_for(&mut self, publish: &Publish) -> Result<Grant, (&'static str, String)> {
        let Context { gate, door, registry, clock, governor, .. } = self.context;
        if let Err(reached) = gate.try_to_publish(self.peer.ip()) {
            return Err(self.over(reached));
        }
        let wish = wish(self.peer, self.encoder.as_deref(), publish);
        let grant =
            door.ask(wish, *clock, self.deadline).await.map_err(|refusal| (refusal.code(), refusal.to_string()))?;
        if governor.is_full() && !registry.is_held(&grant.name) {
            return Err((DENIED, "the server has no room for another broadcast".to_owned()));
        }
        let most_streams = gate.limits().streams;
        if registry.count_besides(&grant.name) >= most_streams {
            return Err(self.over(Reached::Streams(most_streams)));
        }
        Ok(grant)
    }

    pub(super) fn log_refused(&self, reason: &str) {
        if self.context.gate.may_log() {
            tracing::info!(peer = %self.peer, "refused: {reason}");
        }
    }

    /// The limit ends the connection; how that is told to the peer.
    fn over(&mut self, reached: Reached) -> (&'static str, String) {
        self.reached = Some(reached);
        (DENIED, reached.to_string())
    }

    fn refuse(&mut self, publish: &Publish, code: &str, reason: &str) {
        let Context { gate, door, .. } = self.context;
        // Of a limit the line at the end of the connection tells.
        if self.reached.is_none() && gate.may_log() {
            // What may be a key is not shown.
            let key = if door.has_secrets() { "…" } else { publish.stream_key.as_str() };
            let shown = printable(&format!("{}/{key}", publish.app));
            tracing::info!(peer = %self.peer, "refused to publish {shown}: {reason}");
        }
        self.refusals += 1;
        if self.refusals == MOST_REFUSALS {
            self.reached.get_or_insert(Reached::Refusals(MOST_REFUSALS));
        }
        self.connection.reject_publish(code, reason);
    }

    pub(super) async fn handle_publish(&mut self, publish: Publish) {
        let peer = self.peer;
        let Grant { name, bitrate, credential } = match self.ask_for(&publish).await {
            Ok(grant) => grant,
            Err((code, reason)) => return self.refuse(&publish, code, &reason),
        };
        let (claim, handover) = match self.context.registry.claim_if_gone(&name, credential).await {
            Ok(claimed) => claimed,
            Err(Taken) => {
                return self.refuse(&publish, BAD_NAME, &format!("{name} is already being published"));
            }
        };
        let handed_on = match handover {
            Some(handover) => handover.receive().await,
            None => None,
        };
        let mut broadcast = match handed_on {
            Some(broadcast) => {
                tracing::info!(stream = %name, %peer, "back");
                broadcast
            }
            None => Broadcast::begin(name, self.context),
        };
        broadcast.set_source(source(peer, self.encoder.as_deref()));
        let received = self.wire.received();
        let configurations = Configurations::new(broadcast.configurations(), self.context.clock.now().monotonic);
        self.live = Some(Live {
            broadcast,
            claim,
            publish,
            bad_tags: 0,
            received_before: received,
            most_bitrate: bitrate.or_else(|| self.context.gate.limits().bitrate),
            bitrate: Bitrate::new(received),
            configurations,
            tempo: Tempo::default(),
        });
        self.mark_alive(Instant::now());
        self.wire.pace(&self.context.rhythm);
        self.connection.accept_publish();
    }

    /// Tells the operator's callback that the publish is over.
    pub(super) fn tell_done(&self) {
        if let Some(live) = &self.live {
            let wish = wish(self.peer, self.encoder.as_deref(), &live.publish);
            self.context.door.tell_done(wish, live.broadcast.name(), self.wire.received() - live.received_before);
        }
    }

    pub(super) async fn handle_unpublish(&mut self, stop: &Stop) {
        self.tell_done();
        let Some(Live { mut broadcast, claim, .. }) = self.live.take() else { return };
        broadcast.close();
        // Who begins and ends again and again does not fill the log.
        if broadcast.has_output() || self.context.gate.may_log() {
            let (stream, summary) = (broadcast.name(), broadcast.summary());
            tracing::info!(%stream, peer = %self.peer, "ended by its publisher; {summary}");
        }
        self.deadline = Instant::now() + PUBLISH_WITHIN;
        broadcast::end(broadcast, claim.offer(), stop.clone()).await;
    }
}

fn wish<'a>(peer: SocketAddr, encoder: Option<&'a str>, publish: &'a Publish) -> Wish<'a> {
    let Publish { app, stream_key, query, .. } = publish;
    Wish { app, stream_key, query: query.as_deref(), peer, encoder }
}
