//! Session files: what one TCP connection of a publisher carried.

use std::fs;
use std::path::Path;

use super::case::End;
use super::chunk::{ChunkParser, Message};

/// C0, C1 and C2 (or S0, S1 and S2) together, in bytes.
pub(crate) const HANDSHAKE_BYTES: usize = 1 + 1536 + 1536;

/// One recorded or crafted connection.
pub(crate) struct Session {
    /// What the client sent: C0, C1, C2, then the chunk stream.
    pub(crate) client: Vec<u8>,
    /// What the server that it was recorded against sent; empty when crafted.
    pub(crate) server: Vec<u8>,
    /// The client sends C2 only once it has S2, too.
    pub(crate) waits_for_s2: bool,
    /// How the connection ended.
    pub(crate) end: End,
}

impl Session {
    /// Reads a `.rec` file; its layout is in the corpus's README.
    pub(crate) fn read(path: &Path) -> Self {
        let file = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(&file[..8], b"RTMPREC1", "{}", path.display());
        let (header, mut rest) = take(&file[12..], number(&file[8..12]));
        let header: serde_json::Value = serde_json::from_slice(header).expect("the header is JSON");
        let mut session =
            Self { client: Vec::new(), server: Vec::new(), waits_for_s2: header["c2_after"] == "s2", end: End::Fin };
        while rest.len() >= 13 {
            let kind = rest[0];
            let (body, after) = take(&rest[13..], number(&rest[9..13]));
            match kind {
                b'C' => session.client.extend_from_slice(body),
                b'S' => session.server.extend_from_slice(body),
                b'R' | b'K' => session.end = End::Rst,
                _ => {}
            }
            rest = after;
        }
        session
    }

    /// The client's messages, with their places in `client`.
    pub(crate) fn messages(&self) -> Vec<Message> {
        ChunkParser::new(HANDSHAKE_BYTES).feed(&self.client[HANDSHAKE_BYTES..])
    }

    /// The recorded server's messages.
    pub(crate) fn server_messages(&self) -> Vec<Message> {
        match self.server.get(HANDSHAKE_BYTES..) {
            Some(bytes) => ChunkParser::new(HANDSHAKE_BYTES).feed(bytes),
            None => Vec::new(),
        }
    }
}

/// The big-endian number in `bytes`.
pub(crate) fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, &byte| number << 8 | usize::from(byte))
}

fn take(bytes: &[u8], length: usize) -> (&[u8], &[u8]) {
    bytes.split_at(length.min(bytes.len()))
}
