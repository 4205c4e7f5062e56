//! Where message bodies grow.
//!
//! Audio bodies are cut from one block after the other, video bodies from others: far less than one allocation a
//! message, and audio, which is held back longer than video, keeps no video alive.
//!
//! ```text
//! block  ┌────────┬──────┬───────────┬─────────────────┐
//!        │ sent   │ sent │ growing   │ spare           │
//!        └────────┴──────┴───────────┴─────────────────┘
//! ```

use std::mem;

use bytes::{Bytes, BytesMut};

use super::message::type_id;

/// The spare ends of the blocks from which bodies are cut.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    audio: BytesMut,
    video: BytesMut,
    /// Whether to take whole blocks: not before somebody was let publish.
    pub(super) takes_blocks: bool,
}

impl Assembly {
    /// An empty buffer for a body of `length` bytes. What is reserved is bounded whatever `length` is.
    pub(super) fn begin(&mut self, type_id: u8, length: usize) -> BytesMut {
        let Some((spare, block_bytes)) = self.arena(type_id) else {
            return BytesMut::with_capacity(length.min(FIRST_BYTES));
        };
        if length > block_bytes {
            return BytesMut::with_capacity(length.min(LARGE_BYTES));
        }
        let mut body = mem::take(spare);
        if body.capacity() < length && !body.try_reclaim(length) {
            body = BytesMut::with_capacity(block_bytes);
        }
        body
    }

    /// Adds `payload` to a body that will be `length` bytes long. It grows by no more than it has already; a large one
    /// gets room for all that was announced, once, because half-size copies on the way would cost more: pages that
    /// nothing was written to are not there.
    pub(super) fn extend(body: &mut BytesMut, payload: &[u8], length: usize) {
        if body.capacity() - body.len() < payload.len() {
            let missing = length.saturating_sub(body.len()).max(payload.len());
            let more = if body.len() >= LARGE_BYTES / 2 { missing } else { body.len().max(FIRST_BYTES) };
            body.reserve(more.clamp(payload.len(), missing));
        }
        body.extend_from_slice(payload);
    }

    /// The finished body; what is left of its block becomes the spare, if it is more than the spare at hand.
    pub(super) fn finish(&mut self, type_id: u8, body: &mut BytesMut) -> Bytes {
        let mut body = mem::take(body);
        match self.arena(type_id) {
            Some((spare, _)) => {
                let finished = body.split().freeze();
                if body.capacity() > spare.capacity() {
                    *spare = body;
                }
                finished
            }
            None => body.freeze(),
        }
    }

    /// Throws an unfinished body away, but not its block.
    pub(super) fn abandon(&mut self, type_id: u8, body: &mut BytesMut) {
        body.clear();
        self.finish(type_id, body);
    }

    fn arena(&mut self, type_id: u8) -> Option<(&mut BytesMut, usize)> {
        match type_id {
            type_id::AUDIO if self.takes_blocks => Some((&mut self.audio, AUDIO_BLOCK_BYTES)),
            type_id::VIDEO if self.takes_blocks => Some((&mut self.video, VIDEO_BLOCK_BYTES)),
            _ => None,
        }
    }
}

/// About a second of AAC.
const AUDIO_BLOCK_BYTES: usize = 16 * 1024;
/// About a quarter of a second of video at 4 Mbit/s.
const VIDEO_BLOCK_BYTES: usize = 128 * 1024;
/// Reserved for a body outside the blocks before its first byte.
const FIRST_BYTES: usize = 256;
/// Reserved for a body larger than a block: most key frames fit, so they do not move while they grow.
const LARGE_BYTES: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_a_kind_are_neighbours_in_one_block() {
        let mut assembly = Assembly { takes_blocks: true, ..Assembly::default() };
        let mut bodies = Vec::new();
        for _ in 0..10 {
            let mut body = assembly.begin(type_id::AUDIO, 300);
            Assembly::extend(&mut body, &[1; 300], 300);
            bodies.push(assembly.finish(type_id::AUDIO, &mut body));
        }
        for pair in bodies.windows(2) {
            assert_eq!(pair[0].as_ptr().wrapping_add(300), pair[1].as_ptr());
        }
    }

    #[test]
    fn an_announced_length_reserves_little() {
        let mut assembly = Assembly::default();
        assert!(assembly.begin(type_id::VIDEO, 8 << 20).capacity() <= 2 * FIRST_BYTES);
        assembly.takes_blocks = true;
        assert!(assembly.begin(type_id::VIDEO, 8 << 20).capacity() <= 2 * LARGE_BYTES);
        assert!(assembly.begin(type_id::COMMAND_AMF0, 8 << 20).capacity() <= 2 * FIRST_BYTES);
    }

    #[test]
    fn an_abandoned_body_gives_its_block_back() {
        let mut assembly = Assembly { takes_blocks: true, ..Assembly::default() };
        let mut body = assembly.begin(type_id::VIDEO, 1000);
        Assembly::extend(&mut body, &[1; 500], 1000);
        let start = body.as_ptr();
        assembly.abandon(type_id::VIDEO, &mut body);
        assert_eq!(assembly.begin(type_id::VIDEO, 1000).as_ptr(), start);
    }
}
