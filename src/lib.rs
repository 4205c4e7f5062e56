//! upscope: RTMP in, HLS out.
//!
//! ```text
//! bytes ─rtmp→ messages ─flv→ tags ─remuxer→ tracks, samples ─cmaf→ header, chunks, segments ─hls→ playlists ─server→ files
//! ```
//!
//! # Glossary
//!
//! - **Chunk**: inside [`rtmp`] an RTMP chunk; elsewhere a CMAF chunk, one `moof` and one `mdat`.
//! - **Segment**: what a media playlist lists: one or more CMAF chunks of one track, in one file.
//! - **Header**: a CMAF header (`ftyp`, `moov`), what `EXT-X-MAP` names.
//! - **Track**: one video or audio with one decoder configuration; **sample**: one coded picture or audio frame of it.
//! - **Rendition**: a track as viewers choose it, with its own media playlist.
//! - **Broadcast**: what one multivariant playlist shows from its first segment to `EXT-X-ENDLIST`; it may outlive its
//!   publisher's connections. **Stream**: the name under which broadcasts appear, one after another.
//! - **Epoch**: a stretch of a broadcast on which the publisher's clock runs on; between two lies a discontinuity.
//!
//! # Invariants
//!
//! - Imports point downwards only: `amf0 codec id3 scte35` < `rtmp media flv` < `remuxer isobmff` < `cmaf action` < `hls advice` <
//!   `packager` < `server`. `rtmp` and `flv` do not know each other, `isobmff` knows no HLS, `hls` knows no RTMP.
//!   [`inspect`] stands apart: it uses nothing of ours, so that it can judge what the others wrote.
//! - [`server`] is the only folder that touches the world. Elsewhere there is no socket, file or clock: bytes and time come
//!   in as arguments (`handle_*`), and what is to be done comes out (`poll_*`), drained after each input.
//! - An object is put before a playlist lists it, a name is never used for other content, and a sample's bytes are never
//!   changed but for the length prefixes of its NAL units.

// What the tests of the core share says `upscope`, here too.
#[cfg(test)]
extern crate self as upscope;

pub mod amf0;
pub mod codec;
pub mod id3;
pub mod scte35;

pub mod rtmp;

pub mod media;

pub mod flv;

pub mod remuxer;

pub mod isobmff;

pub mod action;
pub mod cmaf;

pub mod advice;
pub mod hls;

pub mod packager;

pub mod config;
pub mod inspect;
pub mod server;
