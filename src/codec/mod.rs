//! Decoder configuration records and RFC 6381 strings: one file a codec, one closed enum.
/// placeholder
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Configuration {}
