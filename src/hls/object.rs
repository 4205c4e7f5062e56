//! The names of a broadcast's files.

use std::fmt;

use crate::media::{TrackId, TrackKind};

/// A file in a broadcast's folder. Its name is what `Display` writes, and nothing else is one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Object {
    /// `video.m3u8`
    Playlist(TrackId),
    /// `video-init-0.mp4`
    Header(TrackId, u32),
    /// `video-0.mp4`
    Segment(TrackId, u64),
}

impl Object {
    /// The object with this file name, if it is one of ours.
    pub fn parse(name: &str) -> Option<Self> {
        let object = match name.strip_suffix(".mp4") {
            None => Self::Playlist(parse_track(name.strip_suffix(".m3u8")?)?),
            Some(stem) => match stem.split_once("-init-") {
                Some((track, number)) => Self::Header(parse_track(track)?, number.parse().ok()?),
                None => {
                    let (track, number) = stem.split_once('-')?;
                    Self::Segment(parse_track(track)?, number.parse().ok()?)
                }
            },
        };
        // "+1" and "01" are numbers too, but not as we write them.
        (object.to_string() == name).then_some(object)
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Playlist(track) => write!(f, "{track}.m3u8"),
            Self::Header(track, number) => write!(f, "{track}-init-{number}.mp4"),
            Self::Segment(track, number) => write!(f, "{track}-{number}.mp4"),
        }
    }
}

fn parse_track(text: &str) -> Option<TrackId> {
    [("video", TrackKind::Video), ("audio", TrackKind::Audio)].into_iter().find_map(|(word, kind)| {
        let index = match text.strip_prefix(word)? {
            "" => 0,
            index => index.parse().ok()?,
        };
        Some(TrackId { kind, index })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_no_other_way() {
        let third = TrackId { kind: TrackKind::Audio, index: 3 };
        for (object, name) in [
            (Object::Playlist(TrackId::VIDEO), "video.m3u8"),
            (Object::Header(third, 12), "audio3-init-12.mp4"),
            (Object::Segment(TrackId::VIDEO, u64::MAX), "video-18446744073709551615.mp4"),
        ] {
            assert_eq!(object.to_string(), name);
            assert_eq!(Object::parse(name), Some(object));
        }
        for name in [
            "",
            "index.m3u8",
            "video0.m3u8",
            "video-01.mp4",
            "video-+1.mp4",
            "video--1.mp4",
            "video-18446744073709551616.mp4",
            "audio256.m3u8",
            "video-init-0.m3u8",
            "video-init-.mp4",
            "video-1.m4s",
            ".video-1.mp4.tmp",
        ] {
            assert_eq!(Object::parse(name), None, "{name}");
        }
    }
}
