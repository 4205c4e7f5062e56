//! Where message bodies grow.
//!
//! Audio bodies are cut from one block after the other, video bodies from others: far less than one allocation a
//! message, and audio, which is held back longer than video, keeps no video alive. A key frame has a block of its own. A
//! block that is full is its thread's: once its bodies are all written it is used again, by whichever connection is read
//! there next, while the processor's cache still holds it.
//!
//! ```text
//! block  ┌────────┬──────┬───────────┬─────────────────┐
//!        │ sent   │ sent │ growing   │ spare           │
//!        └────────┴──────┴───────────┴─────────────────┘
//! ```

use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem;

use bytes::{Bytes, BytesMut};

use super::message::type_id;

/// The ends of the blocks from which bodies are cut.
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
        match self.spare(type_id) {
            None => BytesMut::with_capacity(length.min(FIRST_BYTES)),
            Some((_, Kind::Video)) if length > Kind::Video.block_bytes() => take_large(length),
            Some((_, kind)) if length > kind.block_bytes() => BytesMut::with_capacity(length.min(LARGE_BYTES)),
            Some((spare, kind)) => kind.take(spare, length),
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
        match self.spare(type_id) {
            Some((spare, kind)) => {
                let block_bytes = body.capacity();
                let finished = body.split().freeze();
                match kind {
                    Kind::Video if finished.len() > kind.block_bytes() => keep_large(body, block_bytes),
                    _ if body.capacity() > spare.capacity() => *spare = body,
                    _ => {}
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

    /// What is left of the block in use, and its kind.
    fn spare(&mut self, type_id: u8) -> Option<(&mut BytesMut, Kind)> {
        match type_id {
            type_id::AUDIO if self.takes_blocks => Some((&mut self.audio, Kind::Audio)),
            type_id::VIDEO if self.takes_blocks => Some((&mut self.video, Kind::Video)),
            _ => None,
        }
    }
}

/// A kind of blocks.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Audio,
    Video,
}

thread_local! {
    /// The ends of full blocks of each kind, the oldest first: each can be used again once nobody holds a body of it.
    static FULL: RefCell<[VecDeque<BytesMut>; 2]> = const { RefCell::new([VecDeque::new(), VecDeque::new()]) };
    /// The end of the block of one picture that is larger than other blocks, mostly a key frame, and that block's size.
    static LARGE: RefCell<(BytesMut, usize)> = RefCell::new((BytesMut::new(), 0));
}

impl Kind {
    /// About half a second of AAC; a sixteenth of a second of video at 4 Mbit/s, which is a frame or two.
    const fn block_bytes(self) -> usize {
        match self {
            Self::Audio => 8 << 10,
            Self::Video => 32 << 10,
        }
    }

    /// How many full ones are kept for another turn. Of video as many as hold what is read and written at once; a whole
    /// segment of audio is held back.
    const fn most_full(self) -> usize {
        match self {
            Self::Audio => 3,
            Self::Video => 8,
        }
    }

    /// An empty buffer with room for a body, cut from the spare if there is enough of it.
    fn take(self, spare: &mut BytesMut, length: usize) -> BytesMut {
        let mut block = mem::take(spare);
        if block.capacity() >= length || block.try_reclaim(length) {
            return block;
        }
        FULL.with_borrow_mut(|full| {
            let full = &mut full[self as usize];
            let free = full.iter_mut().position(|block| block.try_reclaim(length));
            let free = free.and_then(|position| full.remove(position));
            full.push_back(block);
            if full.len() > self.most_full() {
                full.pop_front();
            }
            free.unwrap_or_else(|| BytesMut::with_capacity(self.block_bytes()))
        })
    }
}

/// An empty buffer for a picture that is larger than blocks are: where the one before was, if that is written.
fn take_large(length: usize) -> BytesMut {
    LARGE.with_borrow_mut(|kept| {
        let is_free = kept.0.try_reclaim(length);
        if is_free { mem::take(kept).0 } else { BytesMut::with_capacity(length.min(LARGE_BYTES)) }
    })
}

/// Keeps the end of a large picture's block, unless a larger one is there.
fn keep_large(end: BytesMut, block_bytes: usize) {
    LARGE.with_borrow_mut(|kept| {
        if (kept.1..=LARGE_BYTES).contains(&block_bytes) {
            *kept = (end, block_bytes);
        }
    });
}

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

    /// A body that fills a block.
    fn fill(assembly: &mut Assembly) -> Bytes {
        let mut body = assembly.begin(type_id::VIDEO, Kind::Video.block_bytes());
        Assembly::extend(&mut body, &[1], 1);
        assembly.finish(type_id::VIDEO, &mut body)
    }

    #[test]
    fn a_block_whose_bodies_are_gone_is_used_again_by_whoever_is_read_next() {
        let [mut one, mut second, mut third] = [(); 3].map(|()| Assembly { takes_blocks: true, ..Assembly::default() });
        let first = fill(&mut one);
        let start = first.as_ptr();
        let _next = fill(&mut one);
        assert_ne!(fill(&mut second).as_ptr(), start, "somebody holds its body");
        drop(first);
        // The thread has the block still: nothing but its turn brings it back.
        assert_eq!(fill(&mut third).as_ptr(), start);
    }

    #[test]
    fn a_key_frame_is_where_the_one_before_was_if_that_is_written() {
        let [mut one, mut second] = [(); 2].map(|()| Assembly { takes_blocks: true, ..Assembly::default() });
        let key_frame = |assembly: &mut Assembly, length: usize| {
            let mut body = assembly.begin(type_id::VIDEO, length);
            Assembly::extend(&mut body, &[1].repeat(length), length);
            assembly.finish(type_id::VIDEO, &mut body)
        };
        let first = key_frame(&mut one, 300_000);
        let start = first.as_ptr();
        let held = key_frame(&mut second, 100_000);
        assert_ne!(held.as_ptr(), start, "somebody holds it");
        drop(first);
        assert_eq!(key_frame(&mut second, 200_000).as_ptr(), start);
        let larger = key_frame(&mut one, 400_000).as_ptr();
        assert_eq!(key_frame(&mut second, 100_000).as_ptr(), larger);
    }

    #[test]
    fn sound_that_is_held_back_keeps_no_key_frame_s_block() {
        let mut assembly = Assembly { takes_blocks: true, ..Assembly::default() };
        let mut body = |type_id: u8, length: usize| {
            let mut body = assembly.begin(type_id, length);
            Assembly::extend(&mut body, &[1].repeat(length), length);
            assembly.finish(type_id, &mut body)
        };
        let start = body(type_id::VIDEO, 300_000).as_ptr();
        let _sound = body(type_id::AUDIO, 20_000);
        assert_eq!(body(type_id::VIDEO, 300_000).as_ptr(), start);
    }

    #[test]
    fn no_more_full_blocks_are_kept_than_take_turns() {
        let mut assembly = Assembly { takes_blocks: true, ..Assembly::default() };
        let _held: Vec<Bytes> = (0..100).map(|_| fill(&mut assembly)).collect();
        assert_eq!(FULL.with_borrow(|[_, video]| video.len()), Kind::Video.most_full());
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
