//! What the pipeline takes from the heap for each message, from the socket's bytes to actions.
//!
//! The counting allocator is a crate of its own; there is one test here, because it counts what the whole process does.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};

use common::media::{Profile, Program};
use common::pipeline::Pipeline;

#[path = "../benches/common/mod.rs"]
#[allow(dead_code, reason = "shared with programs that need other parts")]
mod common;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Rounds that count, behind one that does not.
const ROUNDS: usize = 4;

#[test]
fn a_message_costs_little_heap_and_its_bytes_are_copied_once() {
    // Where it stands, and little above: lower them when they can be. Keys and playlists are made for each chunk and
    // segment; the fewer bytes a message has, the more of them there are for each byte.
    for (profile, most_allocations, most_bytes_each) in
        [(Profile::Large, 1.4, 0.7), (Profile::Small, 1.2, 0.6), (Profile::Audio, 0.7, 1.0)]
    {
        let program = Program::new(profile).unwrap();
        for piece_bytes in [None, Some(16 << 10)] {
            let (stats, written) = count(&program, piece_bytes);
            #[expect(clippy::cast_precision_loss, reason = "for people")]
            let [messages, input, allocations, reallocations, bytes, actions, batches] = [
                ROUNDS * program.messages.len(),
                ROUNDS * program.round.len(),
                stats.allocations,
                stats.reallocations,
                stats.bytes_allocated,
                written.actions,
                written.batches,
            ]
            .map(|number| number as f64);
            println!(
                "{profile:?}, read by {}: a message {:.3} allocations, {:.3} reallocations, {:.3} actions, {:.3} \
                 batches; {:.3} bytes allocated for each byte of input",
                piece_bytes.map_or_else(|| "message".to_owned(), |bytes| format!("{bytes} bytes")),
                allocations / messages,
                reallocations / messages,
                actions / messages,
                batches / messages,
                bytes / input,
            );
            assert!((allocations + reallocations) / messages < most_allocations);
            // Where there is no room for a second copy, there is none.
            assert!(bytes / input < most_bytes_each);
        }
    }
}

fn count(program: &Program, piece_bytes: Option<usize>) -> (Stats, common::pipeline::Written) {
    let mut pipeline = Pipeline::publishing(program).unwrap();
    pipeline.handle_round(program, piece_bytes).unwrap();
    let before = pipeline.written;
    let region = Region::new(ALLOCATOR);
    for _ in 0..ROUNDS {
        pipeline.handle_round(program, piece_bytes).unwrap();
    }
    let stats = region.change();
    let mut written = pipeline.written;
    written.actions -= before.actions;
    written.batches -= before.batches;
    (stats, written)
}
