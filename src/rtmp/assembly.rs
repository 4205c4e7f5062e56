//! Where message bodies grow.
//!
//! Audio bodies are cut from one block after the other, video bodies from others: far less than one allocation a
//! message, and audio, which is held back longer than video, keeps no video alive. A block whose bodies are all written
//! is used again: a few of a kind take turns.
//!
//! ```text
//! block  ┌────────┬──────┬───────────┬─────────────────┐
//!        │ sent   │ sent │ growing   │ spare           │
//!        └────────┴──────┴───────────┴─────────────────┘
//! ```

use std::collections::VecDeque;
use std::mem;

use bytes::{Bytes, BytesMut};

use super::message::type_id;

/// The blocks from which bodies are cut.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    audio: Blocks,
    video: Blocks,
    /// Whether to take whole blocks: not before somebody was let publish.
    pub(super) takes_blocks: bool,
}

/// What bodies of a kind are cut from.
#[derive(Debug, Default)]
struct Blocks {
    /// The end of the block in use.
    spare: BytesMut,
    /// The ends of the blocks before, the oldest first: each can be used again once nobody holds a body of it.
    full: VecDeque<BytesMut>,
}

impl Assembly {
    /// An empty buffer for a body of `length` bytes. What is reserved is bounded whatever `length` is.
    pub(super) fn begin(&mut self, type_id: u8, length: usize) -> BytesMut {
        match self.blocks(type_id) {
            None => BytesMut::with_capacity(length.min(FIRST_BYTES)),
            Some((_, Sizes { block_bytes, .. })) if length > block_bytes => {
                BytesMut::with_capacity(length.min(LARGE_BYTES))
            }
            Some((blocks, sizes)) => blocks.take(length, sizes),
        }
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
        match self.blocks(type_id) {
            Some((blocks, _)) => {
                let finished = body.split().freeze();
                if body.capacity() > blocks.spare.capacity() {
                    blocks.spare = body;
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

    /// The blocks of a kind, and how large and how many they are.
    fn blocks(&mut self, type_id: u8) -> Option<(&mut Blocks, Sizes)> {
        match type_id {
            type_id::AUDIO if self.takes_blocks => Some((&mut self.audio, AUDIO)),
            type_id::VIDEO if self.takes_blocks => Some((&mut self.video, VIDEO)),
            _ => None,
        }
    }
}

impl Blocks {
    /// An empty buffer with room for a body.
    fn take(&mut self, length: usize, Sizes { block_bytes, full_blocks }: Sizes) -> BytesMut {
        let mut block = mem::take(&mut self.spare);
        if block.capacity() >= length || block.try_reclaim(length) {
            return block;
        }
        if let Some(mut free) = self.full.pop_front_if(|block| block.try_reclaim(length)) {
            mem::swap(&mut free, &mut block);
            self.full.push_back(free);
            return block;
        }
        self.full.push_back(block);
        if self.full.len() > full_blocks {
            self.full.pop_front();
        }
        BytesMut::with_capacity(block_bytes)
    }
}

/// The blocks of a kind.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    block_bytes: usize,
    /// Full blocks that are kept for another turn.
    full_blocks: usize,
}

/// About half a second of AAC each; a whole segment of it is written at once.
const AUDIO: Sizes = Sizes { block_bytes: 8 << 10, full_blocks: 3 };
/// A sixteenth of a second of video at 4 Mbit/s each, which is a frame or two.
const VIDEO: Sizes = Sizes { block_bytes: 32 << 10, full_blocks: 2 };
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
    fn a_block_whose_bodies_are_gone_is_used_again() {
        let mut assembly = Assembly { takes_blocks: true, ..Assembly::default() };
        let mut held = VecDeque::new();
        let mut blocks = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let mut body = assembly.begin(type_id::VIDEO, VIDEO.block_bytes / 2);
            Assembly::extend(&mut body, &[1; VIDEO.block_bytes / 2], VIDEO.block_bytes / 2);
            held.push_back(assembly.finish(type_id::VIDEO, &mut body));
            blocks.insert(held.back().map(|body| body.as_ptr().addr()));
            if held.len() > 2 {
                held.pop_front();
            }
        }
        assert_eq!(blocks.len(), 4, "two halves of two blocks");
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
