//! What comes to nothing, counted.

/// What was received and is not in the output, in messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Media before its sequence header.
    pub before_configuration: u64,
    /// Pictures before the first key frame.
    pub before_first_key: u64,
    /// Messages without a coded picture or sound.
    pub empty: u64,
    /// Messages that could not be understood.
    pub malformed: u64,
    /// Sound before the first picture.
    pub early_audio: u64,
    /// Media in a codec that is not carried.
    pub unsupported: u64,
    /// Timed metadata, of which there was too much.
    pub events: u64,
}

impl Dropped {
    /// All of it.
    pub fn total(&self) -> u64 {
        let Self { before_configuration, before_first_key, empty, malformed, early_audio, unsupported, events } = self;
        before_configuration + before_first_key + empty + malformed + early_audio + unsupported + events
    }
}
