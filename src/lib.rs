//! upscope: RTMP in, HLS out.
//!
//! ```text
//! bytes ─rtmp→ messages ─flv→ tags ─remuxer→ tracks, samples ─cmaf→ header, chunks, segments ─hls→ playlists ─server→ files
//! ```

pub mod action;
pub mod amf0;
pub mod cmaf;
pub mod codec;
pub mod flv;
pub mod hls;
pub mod isobmff;
pub mod media;
pub mod packager;
pub mod remuxer;
pub mod rtmp;
