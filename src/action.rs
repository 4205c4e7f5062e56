//! What leaves the core: verbs to perform, in the order in which they must be done, on objects named by keys.
//!
//! "An object is put before a playlist lists it" is an order that a test can read.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use bytes::Bytes;

/// What to do next to the place where viewers look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Adds bytes to an object that nobody can see yet; the `Put` of the same key completes it.
    Append {
        /// The object.
        key: Key,
        /// Bytes to add behind those appended before, in pieces.
        body: Vec<Bytes>,
    },
    /// Makes an object visible, whole: the bytes appended to it so far, then `body`. Replaces what the key held.
    Put {
        /// The object.
        key: Key,
        /// What it is.
        kind: ObjectKind,
        /// Its bytes (behind those appended before), in pieces.
        body: Vec<Bytes>,
    },
    /// Removes an object, or drops what was appended to one that was never put.
    Delete {
        /// The object.
        key: Key,
    },
}

impl Action {
    /// The object it is about.
    pub fn key(&self) -> &Key {
        match self {
            Self::Append { key, .. } | Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// A CMAF header (`EXT-X-MAP`).
    Header,
    /// A CMAF segment.
    Segment,
    /// A playlist, the only kind that is ever replaced.
    Playlist,
}

/// A relative path with `/` between its parts, made only from a [`StreamName`] and names of ours: it cannot leave the
/// output folder.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    /// The path, relative to the output folder.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder it lies in, relative to the output folder, and its name there.
    pub(crate) fn split(&self) -> (&str, &str) {
        self.0.rsplit_once('/').unwrap_or(("", &self.0))
    }

    /// Its name in its folder.
    pub(crate) fn file_name(&self) -> &str {
        self.split().1
    }

    /// Whether it is that of a multivariant playlist.
    pub fn is_index(&self) -> bool {
        self.file_name() == INDEX
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0)
    }
}

/// A stream's public name: `APP/NAME`, each part 1 to 128 of `A–Z a–z 0–9 . _ -` and not starting with a dot.
/// The app may have an instance path (`live/room7`), up to [`StreamName::MOST_PARTS`] parts in all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName(Arc<str>);

impl StreamName {
    /// The longest part, in characters.
    pub const LONGEST_PART: usize = 128;
    /// The most parts of app and name together.
    pub const MOST_PARTS: usize = 5;

    /// Parses an RTMP app and a stream key without its query.
    ///
    /// # Errors
    /// [`BadName`], which says in words what is wrong with which part.
    pub fn parse(app: &str, name: &str) -> Result<Self, BadName> {
        let app = app.trim_end_matches('/');
        let parts = app.split('/').chain([name]);
        let mut path = String::with_capacity(app.len() + 1 + name.len());
        for (count, part) in parts.enumerate() {
            if count == Self::MOST_PARTS {
                return Err(BadName::TooDeep);
            }
            check_part(part)?;
            if count > 0 {
                path.push('/');
            }
            path.push_str(part);
        }
        Ok(Self(path.into()))
    }

    /// `APP/NAME`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The RTMP app and the name in it.
    pub fn split(&self) -> (&str, &str) {
        self.0.rsplit_once('/').expect("a name has an app")
    }

    /// The key of the multivariant playlist, the one address that others may rely on.
    pub fn index(&self) -> Key {
        Key(format!("{}/{INDEX}", self.0).into())
    }

    /// The key of a file of one broadcast of this stream.
    pub(crate) fn file(&self, broadcast: BroadcastId, file: fmt::Arguments<'_>) -> Key {
        let mut path = String::with_capacity(self.0.len() + FILE_BYTES);
        path.push_str(&self.0);
        let _ = write!(path, "/{broadcast}/{file}");
        Key(path.into())
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names one broadcast of a stream and its folder. Made from the time at which it began, so that no two are ever the
/// same, over restarts and lost folders too. It starts with `~`, which no [`StreamName`] can contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BroadcastId {
    /// When the broadcast began, in milliseconds since 1970.
    pub unix_ms: u64,
}

impl BroadcastId {
    /// Later than any clock will say: what is beyond it is not of our making. A day in the year 5138.
    const LAST_UNIX_MS: u64 = 100_000_000_000_000;

    /// Reads the name of a broadcast's folder.
    pub fn parse(folder: &str) -> Option<Self> {
        let broadcast = Self { unix_ms: folder.strip_prefix('~')?.parse().ok()? };
        (broadcast.unix_ms <= Self::LAST_UNIX_MS && broadcast.to_string() == folder).then_some(broadcast)
    }
}

impl fmt::Display for BroadcastId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "~{}", self.unix_ms)
    }
}

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadName {
    /// A part is empty.
    Empty,
    /// A part is longer than [`StreamName::LONGEST_PART`].
    TooLong,
    /// A part starts with a dot.
    LeadingDot,
    /// A character outside the allowed ones.
    Character(char),
    /// The app's instance path has too many parts.
    TooDeep,
    /// The name of a file of ours.
    Reserved,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the app or the stream key is empty"),
            Self::TooLong => write!(f, "a part of the name is longer than {} characters", StreamName::LONGEST_PART),
            Self::LeadingDot => f.write_str("a part of the name starts with a dot"),
            Self::Character(character) => {
                write!(f, "{character:?} in the name; allowed are A-Z a-z 0-9 . _ -")
            }
            Self::TooDeep => write!(f, "more than {} parts in app and name", StreamName::MOST_PARTS),
            Self::Reserved => write!(f, "{INDEX} is reserved"),
        }
    }
}

impl std::error::Error for BadName {}

fn check_part(part: &str) -> Result<(), BadName> {
    if part.is_empty() {
        return Err(BadName::Empty);
    }
    if part.len() > StreamName::LONGEST_PART {
        return Err(BadName::TooLong);
    }
    if part.starts_with('.') {
        return Err(BadName::LeadingDot);
    }
    if part == INDEX {
        return Err(BadName::Reserved);
    }
    match part.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
        Some(character) => Err(BadName::Character(character)),
        None => Ok(()),
    }
}

/// Room for what stands behind a stream's name in a key, in bytes.
const FILE_BYTES: usize = 48;

/// The multivariant playlist's file name.
const INDEX: &str = "index.m3u8";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_app_and_key_and_its_index_lies_in_it() {
        let name = StreamName::parse("live", "cam-1").unwrap();
        assert_eq!(name.as_str(), "live/cam-1");
        assert_eq!(name.index().as_str(), "live/cam-1/index.m3u8");
    }

    #[test]
    fn an_app_may_have_an_instance_path_and_a_trailing_slash() {
        let name = StreamName::parse("live/room7/", "a").unwrap();
        assert_eq!((name.as_str(), name.split()), ("live/room7/a", ("live/room7", "a")));
    }

    #[test]
    fn a_broadcast_folder_is_read_as_it_is_written() {
        let broadcast = BroadcastId { unix_ms: 1_763_834_098_123 };
        assert_eq!(BroadcastId::parse(&broadcast.to_string()), Some(broadcast));
        for folder in ["", "~", "1", "~01", "~+1", "~-1", "~x", "~100000000000001", "~99999999999999999999"] {
            assert_eq!(BroadcastId::parse(folder), None, "{folder}");
        }
    }

    #[test]
    fn what_could_leave_the_folder_or_enter_a_playlist_is_refused() {
        for (app, name) in [
            ("live", ".."),
            ("..", "a"),
            ("live", "a/b"),
            ("live", "a\nb"),
            ("live", "a\0"),
            ("", "a"),
            ("live", ""),
            ("live", "a b"),
            ("live", "~1"),
            ("live", "ü"),
            ("live//x", "a"),
            ("live", "index.m3u8"),
            ("a/b/c/d/e", "f"),
        ] {
            assert!(StreamName::parse(app, name).is_err(), "{app:?} {name:?}");
        }
        assert!(StreamName::parse("live", &"x".repeat(128)).is_ok());
        assert_eq!(StreamName::parse("live", &"x".repeat(129)), Err(BadName::TooLong));
    }
}
