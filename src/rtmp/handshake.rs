//! The handshake (RTMP 1.0 §5.2), simple or with digests.
//!
//! ```text
//! C0 C1 ──────────→
//!       ←────────── S0 S1 S2     at once: clients in the field hang when S2 waits for C2
//! C2 ─────────────→              never looked at: echoes in the field are partial
//! ```

use rml_rtmp::handshake::{Handshake as Answer, HandshakeProcessResult, PeerType};

use super::error::Error;

/// The server's side of one handshake. Holds no memory before the first byte and none after C1.
#[derive(Debug)]
pub(super) enum Handshake {
    /// C0 and C1, so far.
    Hello(Vec<u8>),
    /// Answered; this many bytes of C2 are still to come.
    Echo {
        /// Bytes of C2 still to come.
        left: usize,
    },
}

impl Handshake {
    /// Bytes from the client, C0 to C2.
    pub(super) const BYTES: u64 = 1 + 2 * 1536;

    pub(super) fn new() -> Self {
        Self::Hello(Vec::new())
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Echo { left: 0 })
    }

    /// Takes its part of `input`; returns S0, S1 and S2 when C1 is whole.
    ///
    /// # Errors
    /// [`Error::NotRtmp`] when the first byte is not the version 3.
    pub(super) fn read(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Self::Hello(hello) => {
                if hello.is_empty() {
                    match input.first() {
                        None => return Ok(None),
                        Some(&VERSION) => hello.reserve_exact(HELLO_BYTES),
                        Some(&first_byte) => return Err(Error::NotRtmp { first_byte }),
                    }
                }
                let (now, rest) = input.split_at(input.len().min(HELLO_BYTES - hello.len()));
                hello.extend_from_slice(now);
                *input = rest;
                if hello.len() < HELLO_BYTES {
                    return Ok(None);
                }
                let reply = answer(hello)?;
                *self = Self::Echo { left: PACKET_BYTES };
                Ok(Some(reply))
            }
            Self::Echo { left } => {
                let now = input.len().min(*left);
                *left -= now;
                *input = &input[now..];
                Ok(None)
            }
        }
    }
}

/// S0, S1 and S2 for C0 and C1. S2 echoes C1, or is signed if C1 has a digest.
fn answer(hello: &[u8]) -> Result<Vec<u8>, Error> {
    let (Ok(HandshakeProcessResult::InProgress { response_bytes: mut reply })
    | Ok(HandshakeProcessResult::Completed { response_bytes: mut reply, .. })) =
        Answer::new(PeerType::Server).process_bytes(hello)
    else {
        return Err(Error::NotRtmp { first_byte: hello[0] });
    };
    // §5.2.3: this field is zero; only clients that sign theirs expect a version and a digest in S1.
    if hello[C1_VERSION] == [0; 4]
        && let Some(version) = reply.get_mut(C1_VERSION)
    {
        version.fill(0);
    }
    Ok(reply)
}

/// C0: plain RTMP.
const VERSION: u8 = 3;
/// C1, C2, S1, S2.
const PACKET_BYTES: usize = 1536;
/// C0 and C1.
const HELLO_BYTES: usize = 1 + PACKET_BYTES;
/// Where in C0 and C1 a client that signs says which version it is; S0 and S1 are laid out alike.
const C1_VERSION: std::ops::Range<usize> = 5..9;

#[cfg(test)]
mod tests {
    use super::*;

    fn simple_hello() -> Vec<u8> {
        let mut hello = vec![VERSION, 0, 0, 1, 2, 0, 0, 0, 0];
        hello.extend((0..1528u32).map(|i| u8::try_from(i * 7 % 251).unwrap()));
        hello
    }

    #[test]
    fn a_simple_handshake_is_answered_before_c2() {
        let hello = simple_hello();
        let mut handshake = Handshake::new();
        let mut reply = None;
        for byte in &hello {
            assert_eq!(reply, None);
            reply = handshake.read(&mut &[*byte][..]).unwrap();
        }
        let reply = reply.unwrap();
        assert_eq!(reply.len(), 1 + 2 * PACKET_BYTES);
        assert_eq!(reply[0], VERSION);
        assert_eq!(reply[C1_VERSION], [0; 4]);
        assert_eq!(reply[1 + PACKET_BYTES..], hello[1..], "S2 echoes C1");
        assert!(!handshake.is_done());
        let mut rest = &[9; PACKET_BYTES + 5][..];
        assert_eq!(handshake.read(&mut rest), Ok(None));
        assert!(handshake.is_done());
        assert_eq!(rest, [9; 5]);
    }

    #[test]
    fn a_client_that_signs_gets_a_signed_answer() {
        let mut client = Answer::new(PeerType::Client);
        let hello = client.generate_outbound_p0_and_p1().unwrap();
        let reply = Handshake::new().read(&mut &hello[..]).unwrap().unwrap();
        assert_ne!(reply[C1_VERSION], [0; 4]);
        assert_ne!(reply[1 + PACKET_BYTES..], hello[1..]);
        assert!(matches!(client.process_bytes(&reply), Ok(HandshakeProcessResult::Completed { .. })));
    }

    #[test]
    fn a_wrong_first_byte_is_an_error_at_once() {
        for first_byte in [0, 0x16, b'G', 6] {
            assert_eq!(Handshake::new().read(&mut &[first_byte][..]), Err(Error::NotRtmp { first_byte }));
        }
    }

    #[test]
    fn nothing_is_held_before_the_first_byte() {
        let Handshake::Hello(hello) = Handshake::new() else { unreachable!() };
        assert_eq!(hello.capacity(), 0);
    }
}
