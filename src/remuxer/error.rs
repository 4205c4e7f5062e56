//! Why a tag came to nothing.

use crate::flv::FourCc;
use crate::media::TrackId;

use super::MOST_TRACKS;

/// Why a tag came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The track's codec is not one that is carried; said once a track.
    UnsupportedCodec {
        /// The track that is left out.
        track: TrackId,
        /// Its codec.
        codec: FourCc,
    },
    /// A sequence header that no decoder could use.
    BadConfiguration {
        /// The track that keeps its former configuration, if it had one.
        track: TrackId,
        /// What is wrong with it.
        error: crate::codec::Error,
    },
    /// A coded frame that no decoder could use.
    BadFrame {
        /// The track that lacks it.
        track: TrackId,
        /// What is wrong with it.
        error: crate::codec::Error,
    },
    /// More tracks than are carried.
    TooManyTracks,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnsupportedCodec { track, codec } => {
                let name = codec.uncarried_name().map_or_else(|| codec.to_string(), str::to_owned);
                write!(f, "{track} is left out: HLS players do not take {name}")
            }
            Self::BadConfiguration { track, error } => write!(f, "the {track} sequence header is passed over: {error}"),
            Self::BadFrame { track, error } => write!(f, "a message of the {track} is passed over: {error}"),
            Self::TooManyTracks => write!(f, "more than {MOST_TRACKS} tracks: the others are left out"),
        }
    }
}

impl std::error::Error for Error {}
