//! One publisher's connection: handshake, chunk stream and session joined.

use bytes::Bytes;

use super::chunk::ChunkReader;
use super::error::Error;
use super::handshake::Handshake;
use super::limits;
use super::session::{Event, Session};

/// The server's side of one RTMP connection, as a machine: bytes in, events and bytes out.
///
/// After each [`handle_bytes`](Self::handle_bytes) and each answer, [`poll_event`](Self::poll_event) and
/// [`poll_output`](Self::poll_output) are drained. However the input is cut, the same events come out.
///
/// [`Event::Connect`] and [`Event::Publish`] wait for an answer; what the peer sends meanwhile waits behind them, up to
/// [`limits::WAITING_BYTES`], so read no further input until the answer is given.
pub struct Connection {
    handshake: Handshake,
    reader: ChunkReader,
    session: Session,
    received: u64,
    /// What was received when the last Acknowledgement was sent.
    acknowledged: u64,
    failure: Option<Error>,
}

/// What was passed over, for metrics and the log line at the end. None of it ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Unfinished messages that the peer aborted or began anew.
    pub abandoned_messages: u64,
    /// Media messages that belonged to no accepted publish.
    pub media_outside_publish: u64,
    /// Messages without a body, of an unknown type, or with a command that is unknown or unreadable.
    pub ignored_messages: u64,
}

impl Connection {
    /// A connection on which nothing has happened.
    pub fn new() -> Self {
        Self {
            handshake: Handshake::new(),
            reader: ChunkReader::new(Handshake::BYTES),
            session: Session::new(),
            received: 0,
            acknowledged: 0,
            failure: None,
        }
    }

    /// Takes all of `bytes`, which the peer sent.
    ///
    /// # Errors
    /// When the connection cannot go on. Events and output from before the error can still be polled; the same error comes
    /// back from then on, or that of an earlier message which had to wait for an answer.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let result = self.take(bytes);
        self.remember(result.clone());
        result
    }

    /// The next thing that the publisher did.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.session.poll_event()
    }

    /// Bytes to send to the peer.
    pub fn poll_output(&mut self) -> Option<Bytes> {
        self.session.replies.poll()
    }

    /// Answers the waiting [`Event::Connect`]: the peer may go on. Does nothing when none waits, as do the next three.
    pub fn accept_connect(&mut self) {
        let result = self.session.accept_connect();
        self.remember(result);
    }

    /// Answers the waiting [`Event::Connect`] with `NetConnection.Connect.Rejected`.
    pub fn reject_connect(&mut self, description: &str) {
        let result = self.session.reject_connect(description);
        self.remember(result);
    }

    /// Answers the waiting [`Event::Publish`] with `NetStream.Publish.Start`: its media follows.
    pub fn accept_publish(&mut self) {
        let result = self.session.accept_publish();
        self.remember(result);
        if self.session.has_published() {
            self.reader.expect_media();
        }
    }

    /// Answers the waiting [`Event::Publish`] with an error, such as `NetStream.Publish.BadName`.
    pub fn reject_publish(&mut self, code: &str, description: &str) {
        let result = self.session.reject_publish(code, description);
        self.remember(result);
    }

    /// Tells the publisher that something of its stream is left out, such as a codec; the rest goes on. At the level
    /// `warning`, as ffmpeg gives up at an `error`. Does nothing when nothing is published.
    pub fn warn_publish(&mut self, code: &str, description: &str) {
        self.session.warn_publish(code, description);
    }

    /// Ends the stream that is being published from our side, with `NetStream.Unpublish.Success` or an error code. No
    /// [`Event::Unpublish`] follows, and later media is dropped. Does nothing when nothing is published.
    pub fn end_publish(&mut self, code: &str, description: &str) {
        self.session.end_publish(code, description);
    }

    /// Bytes received, the handshake included.
    pub fn bytes_received(&self) -> u64 {
        self.received
    }

    /// What was passed over so far.
    pub fn counters(&self) -> Counters {
        Counters {
            abandoned_messages: self.reader.abandoned(),
            media_outside_publish: self.session.media_outside_publish,
            ignored_messages: self.session.ignored,
        }
    }

    fn take(&mut self, mut input: &[u8]) -> Result<(), Error> {
        self.check_held_bytes()?;
        self.received += input.len() as u64;
        while !self.handshake.is_done() {
            if let Some(reply) = self.handshake.read(&mut input)? {
                self.session.replies.send_raw(&reply);
            }
            if input.is_empty() {
                return Ok(());
            }
        }
        while let Some(message) = self.reader.read(&mut input)? {
            self.session.handle_message(message)?;
        }
        self.acknowledge();
        Ok(())
    }

    /// Looked at between inputs and not within one, so that it does not depend on where the input is cut whether a peer
    /// that sends everything at once has been answered.
    fn check_held_bytes(&self) -> Result<(), Error> {
        let waiting = self.session.waiting_bytes();
        let (what, held, limit) = if self.session.has_published() {
            ("bytes waiting for an answer", waiting, limits::WAITING_BYTES)
        } else {
            ("bytes before publishing", waiting + self.reader.unfinished_bytes(), limits::BYTES_BEFORE_PUBLISH)
        };
        if held > limit {
            return Err(Error::Limit { at: self.received, what, limit: limit as u64 });
        }
        Ok(())
    }

    /// RTMP 1.0 §5.4.3: the number counts all bytes, modulo 2^32.
    fn acknowledge(&mut self) {
        if self.received - self.acknowledged >= u64::from(self.session.window_bytes()) {
            self.acknowledged = self.received;
            let [_, _, _, _, low @ ..] = self.received.to_be_bytes();
            self.session.replies.acknowledgement(u32::from_be_bytes(low));
        }
    }

    /// Of two faults the first in the connection counts: one that waits behind a question is found after what follows it,
    /// which may be at the very next byte.
    fn remember(&mut self, result: Result<(), Error>) {
        if let Err(error) = result
            && self.failure.as_ref().is_none_or(|failure| error.at() <= failure.at())
        {
            self.failure = Some(error);
        }
    }
}

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_on_which_nothing_happened_is_small() {
        assert!(size_of::<Connection>() <= 1024);
    }
}
