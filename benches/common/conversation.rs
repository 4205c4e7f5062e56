//! What a publisher says before its media, in OBS's order, and how the server's consent is recognised.

use super::media::{CHUNK_BYTES, MESSAGE_STREAM, write_length};

/// C0 and C1, RTMP 1.0 §5.2.2 and §5.2.3. Zeros say that it is the plain handshake.
pub(crate) fn hello() -> Vec<u8> {
    let mut hello = vec![0; HELLO_BYTES];
    hello[0] = 3;
    hello
}

/// C0 and C1, or S0 and S1.
pub(crate) const HELLO_BYTES: usize = 1 + HANDSHAKE_BYTES;
/// C1, C2, S1 or S2.
pub(crate) const HANDSHAKE_BYTES: usize = 1536;

/// From Set Chunk Size to `connect`.
pub(crate) fn connect(app: &str) -> Vec<u8> {
    let mut out = Vec::new();
    // Librtmp asks on chunk stream 2, then speaks on 3.
    command(2, 1, 0, &u32::try_from(CHUNK_BYTES).unwrap_or(u32::MAX).to_be_bytes(), &mut out);
    let mut body = Vec::new();
    text("connect", &mut body);
    number(1.0, &mut body);
    body.push(OBJECT);
    let url = format!("rtmp://localhost/{app}");
    for (name, value) in [("app", app), ("type", "nonprivate"), ("flashVer", "FMLE/3.0 (load)"), ("tcUrl", &url)] {
        bare_text(name, &mut body);
        text(value, &mut body);
    }
    body.extend([0, 0, OBJECT_END]);
    command(3, 20, 0, &body, &mut out);
    out
}

/// From `releaseStream` to `publish`.
pub(crate) fn publish(stream_key: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for (transaction, name) in [(2.0, "releaseStream"), (3.0, "FCPublish"), (4.0, "createStream"), (5.0, "publish")] {
        let mut body = Vec::new();
        text(name, &mut body);
        number(transaction, &mut body);
        body.push(NULL);
        if name != "createStream" {
            text(stream_key, &mut body);
        }
        if name == "publish" {
            text("live", &mut body);
        }
        command(3, 20, if name == "publish" { MESSAGE_STREAM } else { 0 }, &body, &mut out);
    }
    out
}

/// Whether what the server said holds its consent to publish.
pub(crate) fn is_publishing(said: &[u8]) -> bool {
    // A type 3 chunk header may stand inside the text; it is the only byte above 0xc0 there.
    let text: Vec<u8> = said.iter().copied().filter(|byte| *byte < 0xc0).collect();
    text.windows(CONSENT.len()).any(|window| window == CONSENT)
}

const CONSENT: &[u8] = b"NetStream.Publish.Start";

// AMF0 markers.
const NULL: u8 = 5;
const OBJECT: u8 = 3;
const OBJECT_END: u8 = 9;

fn text(text: &str, out: &mut Vec<u8>) {
    out.push(2);
    bare_text(text, out);
}

fn bare_text(text: &str, out: &mut Vec<u8>) {
    out.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(text.as_bytes());
}

fn number(number: f64, out: &mut Vec<u8>) {
    out.push(0);
    out.extend(number.to_be_bytes());
}

/// A message at time 0 in one chunk.
fn command(chunk_stream: u8, type_id: u8, message_stream: u8, body: &[u8], out: &mut Vec<u8>) {
    out.extend([chunk_stream, 0, 0, 0]);
    write_length(body, out);
    out.extend([type_id, message_stream, 0, 0, 0]);
    out.extend(body);
}
