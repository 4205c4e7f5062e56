//! What the measuring programs share.

pub(crate) mod conversation;
pub(crate) mod media;
pub(crate) mod pipeline;
