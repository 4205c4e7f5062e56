//! Why a connection ended, in the words of the log.

use std::fmt;
use std::io;

use super::broadcast::Broadcast;
use super::limits::Reached;
use super::publisher::{PUBLISH_WITHIN, SILENCE};
use super::registry::Request;
use crate::rtmp;

/// Why a connection ended.
pub(super) enum Ending {
    /// The peer closed it.
    Closed,
    /// The network or the peer broke it.
    Broken(io::Error),
    /// The peer broke the protocol.
    Protocol(rtmp::Error),
    /// No publish in time.
    Unpublished,
    /// Nothing came in time.
    Silent,
    /// A limit of ours.
    Limit(Reached),
    /// Another connection goes on with the broadcast.
    TakenOver(Request<Box<Broadcast>>),
    /// The server stops.
    Stopped,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the connection was closed without a goodbye"),
            Self::Broken(error) => write!(f, "the connection broke: {error}"),
            Self::Protocol(error) => error.fmt(f),
            Self::Unpublished => write!(f, "no publish within {PUBLISH_WITHIN:?}"),
            Self::Silent => write!(f, "nothing came for {SILENCE:?}"),
            Self::Limit(reached) => reached.fmt(f),
            Self::TakenOver(_) => f.write_str("another connection has taken over"),
            Self::Stopped => f.write_str("the server stops"),
        }
    }
}
