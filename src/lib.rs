//! upscope: RTMP in, HLS out.
//!
//! ```text
//! bytes ─rtmp→ messages ─flv→ tags ─remuxer→ tracks, samples ─cmaf→ header, chunks, segments ─hls→ playlists ─server→ files
//! ```

pub mod action;
pub mod amf0;
pub mod codec;
pub mod flv;
pub mod isobmff;
pub mod media;
