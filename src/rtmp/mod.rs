//! RTMP: bytes from a publisher to messages, and our answers back.
//!
//! | document | version | what of it |
//! |---|---|---|
//! | [Adobe's Real Time Messaging Protocol](https://rtmp.veriskope.com/pdf/rtmp_specification_1.0.pdf) | 1.0, 2012 | the server's side of publishing |
//! | [Enhanced RTMP](https://github.com/veovera/enhanced-rtmp) | v2 | what `connect` negotiates; the bodies are `flv`'s |
//!
//! ```text
//! bytes ─handshake→ ─chunk→ RawMessage ─session→ Event
//!                           (assembly)    │ command: AMF0 in, replies out
//! ```
//!
//! [`Connection`] joins the stages and is all that callers need. It does no I/O and reads no clock: bytes go in with
//! [`Connection::handle_bytes`]; [`Connection::poll_event`] and [`Connection::poll_output`] are drained after each input.
//! Deadlines (handshake, silence) are the caller's. It knows nothing of what is inside audio and video bodies, and it
//! plays nothing: `play` is refused.

mod assembly;
mod chunk;
mod command;
mod connection;
mod error;
mod handshake;
mod message;
mod reply;
mod session;

pub use connection::{Connection, Counters};
pub use error::{Error, Violation};
pub use message::{Message, MessageKind};
pub use session::{Connect, Event, Publish, PublishKind};

/// What a peer may make us keep.
pub mod limits {
    /// The longest message, and the most that all unfinished messages of a connection may hold together, in bytes.
    /// A key frame of 4 MiB each second would be 34 Mbit/s in key frames alone. One message may be on its way to the disk
    /// while the next one comes, the allocator keeps what was freed for a while, and a publisher is to cost no more than
    /// 16 MiB in all.
    pub const MESSAGE_BYTES: usize = 4 * 1024 * 1024;
    /// The most that a connection may hold before its first accepted publish, in bytes, looked at before each input.
    /// The largest `connect` seen in the field has 700.
    pub const BYTES_BEFORE_PUBLISH: usize = 16 * 1024;
    /// The most that may wait for the answer to a `Connect` or `Publish`, in bytes, looked at before each input.
    pub const WAITING_BYTES: usize = 256 * 1024;
    /// Messages in an aggregate message; those seen in the field have some ten.
    pub const AGGREGATED_MESSAGES: usize = 4096;
    /// Chunk streams on a connection; encoders use up to 6.
    pub const CHUNK_STREAMS: usize = 32;
    /// The largest chunk, in bytes: no message is longer (RTMP 1.0 §5.4.1). Larger sizes are taken and mean the same.
    pub const CHUNK_BYTES: u32 = 0xFF_FFFF;
    /// The longest text from a caller that goes into a reply, in bytes.
    pub const REPLY_TEXT_BYTES: usize = 1024;
}
