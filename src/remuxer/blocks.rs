//! How much memory is kept alive by frames that are kept.
//!
//! Frames are slices of larger blocks of messages. A small frame in a block of what is dropped would hold all of the block,
//! and very many of them far more memory than any limit counts. So whoever keeps little of much is copied:
//!
//! ```text
//! block  │ frame │ frame │ frame │ fra      no copies: what is kept is nearly all of it
//! block  │f│ dropped                        a copy: the block goes
//! ```

use std::ops::Range;

use bytes::Bytes;

/// The largest block that messages are cut from, in bytes; a larger message has a buffer of its own.
const BLOCK_BYTES: usize = 32 << 10;

/// How far a frame begins behind the one before, at most, to be its neighbour: their tags' headers lie between.
const NEIGHBOUR_BYTES: usize = 64;

/// So many bytes may be kept alive for each that is kept.
const ALIVE_FOR_EACH: usize = 2;

/// The blocks of one kind of frames.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// Where the last frame ends in memory.
    end: usize,
    /// Bytes that may be kept alive beyond those that are already.
    credit: usize,
}

impl Blocks {
    /// A frame's bytes, or a copy of them if too much would be kept alive.
    pub(super) fn detached(&mut self, data: Bytes) -> Bytes {
        let Range { start, end } = data.as_ptr_range();
        let is_neighbour = start.addr().wrapping_sub(self.end) <= NEIGHBOUR_BYTES;
        self.end = end.addr();
        self.credit = (self.credit + data.len() * ALIVE_FOR_EACH).min(BLOCK_BYTES * ALIVE_FOR_EACH);
        let cost = if is_neighbour || data.len() >= BLOCK_BYTES { 0 } else { BLOCK_BYTES };
        match self.credit.checked_sub(cost) {
            Some(rest) => {
                self.credit = rest;
                data
            }
            None => Bytes::copy_from_slice(&data),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of the frames, each the first bytes of a piece of a block, are copied.
    fn copied(frame_bytes: usize, piece_bytes: usize, count: usize) -> usize {
        let mut blocks = Blocks::default();
        let mut kept = Vec::new();
        let mut copies = 0;
        let mut block = Bytes::new();
        for _ in 0..count {
            if block.len() < piece_bytes {
                block = Bytes::from(vec![0; BLOCK_BYTES]);
            }
            let frame = block.split_to(piece_bytes).slice(..frame_bytes);
            let detached = blocks.detached(frame.clone());
            copies += usize::from(detached.as_ptr() != frame.as_ptr());
            kept.push(detached);
        }
        copies
    }

    #[test]
    fn frames_that_fill_their_blocks_are_not_copied() {
        assert_eq!(copied(20_000, 20_000, 1_000), 0, "one a block, a third unused");
        assert!(copied(300, 310, 10_000) <= 20, "{}", copied(300, 310, 10_000));
    }

    #[test]
    fn small_frames_among_much_that_is_dropped_are_copied() {
        assert!(copied(10, 30_000, 1_000) >= 999);
        assert!(copied(1_000, 15_000, 1_000) >= 900);
    }
}
