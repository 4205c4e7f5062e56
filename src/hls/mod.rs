//! HLS playlists: which segments are listed, for how long, and the text that lists them.
//!
//! | Document | Version |
//! |---|---|
//! | draft-pantos-hls-rfc8216bis, HTTP Live Streaming | 22 |
//! | HLS Authoring Specification for Apple Devices | 2024 |
//!
//! ```text
//! OUT/APP/NAME/index.m3u8                 multivariant playlist, the one address that others rely on
//! OUT/APP/NAME/~1763834098123/            one broadcast, named after the time at which it began
//!     video.m3u8  video-init-0.mp4  video-0.mp4  video-1.mp4 …
//!     audio.m3u8  audio-init-0.mp4  audio-0.mp4  audio-1.mp4 …
//! ```

mod date_range;
mod leaving;
mod media_playlist;
mod multivariant;
mod object;
mod presentation;
mod render;
mod rendition;
mod reread;
mod resumed;

pub use media_playlist::Window;
pub use object::Object;
pub use presentation::Presentation;
pub use reread::MOST_PLAYLIST_BYTES;
pub use resumed::{Found, Resumed, Unreadable};
