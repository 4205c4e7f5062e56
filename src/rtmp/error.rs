//! Why a connection ended: each variant says who is at fault, each message finds its byte.

use std::fmt;

use super::message::type_name;
use crate::amf0;

/// Why a connection cannot go on. All of these are the peer's doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The peer speaks another protocol.
    NotRtmp {
        /// What it sent first, where RTMP sends the version, 3.
        first_byte: u8,
    },
    /// The peer broke the protocol.
    Protocol {
        /// Bytes received before, the handshake included.
        at: u64,
        /// What it did.
        violation: Violation,
    },
    /// The peer wants more than it may have.
    Limit {
        /// Bytes received before, the handshake included.
        at: u64,
        /// What there is too much of.
        what: &'static str,
        /// The limit, in units of `what`.
        limit: u64,
    },
    /// A command is built to exhaust its reader.
    HostileCommand {
        /// Bytes received before the end of its message, the handshake included.
        at: u64,
        /// The limit it passed, and where in the message.
        source: amf0::Error,
    },
}

/// What a peer did against RTMP 1.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// §5.3.1.2: a chunk header that leans on one before, on a chunk stream that had none.
    NoHeaderBefore {
        /// The chunk stream.
        chunk_stream_id: u32,
        /// The header's type, 2 or 3.
        format: u8,
    },
    /// §5.4.1: a chunk size of 0.
    ZeroChunkSize,
    /// §5.4: a protocol control message that is too short for its value.
    ShortControlMessage {
        /// Its message type.
        type_id: u8,
    },
}

impl Error {
    /// Bytes received before.
    pub(super) fn at(&self) -> u64 {
        match self {
            Self::NotRtmp { .. } => 0,
            Self::Protocol { at, .. } | Self::Limit { at, .. } | Self::HostileCommand { at, .. } => *at,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRtmp { first_byte } => {
                write!(f, "the peer does not speak RTMP (first byte 0x{first_byte:02x}{})", guess(*first_byte))
            }
            Self::Protocol { at, violation } => write!(f, "protocol broken at byte {at}: {violation}"),
            Self::Limit { at, what, limit } => write!(f, "too much at byte {at}: at most {limit} {what}"),
            Self::HostileCommand { at, source } => {
                write!(f, "a command ending at byte {at} is beyond our limits: {source}")
            }
        }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoHeaderBefore { chunk_stream_id, format } => {
                write!(
                    f,
                    "type {format} chunk header on chunk stream {chunk_stream_id}, which had no full header before"
                )
            }
            Self::ZeroChunkSize => f.write_str("chunk size 0"),
            Self::ShortControlMessage { type_id } => write!(f, "{} message too short", type_name(type_id)),
        }
    }
}

/// What a peer may be that starts like this.
fn guess(first_byte: u8) -> &'static str {
    match first_byte {
        0x06 | 0x08 => ": RTMPE, which is not supported; use rtmp:// or rtmps://",
        0x16 => ": TLS, but this port expects plain RTMP; use rtmp:// instead of rtmps://",
        b'C' | b'D' | b'G' | b'H' | b'O' | b'P' => ": looks like HTTP",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_what_the_peer_seems_to_be() {
        assert_eq!(
            Error::NotRtmp { first_byte: b'G' }.to_string(),
            "the peer does not speak RTMP (first byte 0x47: looks like HTTP)"
        );
        assert!(Error::NotRtmp { first_byte: 0x16 }.to_string().contains("TLS"));
        assert!(Error::NotRtmp { first_byte: 0 }.to_string().ends_with("(first byte 0x00)"));
    }

    #[test]
    fn a_message_finds_its_byte() {
        let violation = Violation::NoHeaderBefore { chunk_stream_id: 7, format: 3 };
        assert_eq!(
            Error::Protocol { at: 3073, violation }.to_string(),
            "protocol broken at byte 3073: type 3 chunk header on chunk stream 7, which had no full header before"
        );
        let short = Error::Protocol { at: 9, violation: Violation::ShortControlMessage { type_id: 1 } };
        assert_eq!(short.to_string(), "protocol broken at byte 9: Set Chunk Size message too short");
    }
}
