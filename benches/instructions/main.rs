//! A fixed input through the pipeline, for instruction counts: `instructions ROUNDS [PIECE_BYTES]`.
//!
//! Run under `valgrind --tool=callgrind` with two numbers of rounds, the difference is what the media costs, without
//! start and end; `benches/compare instructions` does that.

#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "shared with programs that need other parts")]
mod common;

use anyhow::Context as _;

use self::common::media::{Profile, Program};
use self::common::pipeline::Pipeline;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let rounds = arguments.next().context("how many rounds?")??;
    let piece_bytes = arguments.next().transpose()?;
    let program = Program::new(Profile::Large)?;
    let mut pipeline = Pipeline::publishing(&program)?;
    for _ in 0..rounds {
        pipeline.handle_round(&program, piece_bytes)?;
    }
    println!("{rounds} rounds of {} messages, {} bytes", program.messages.len(), program.round.len());
    Ok(())
}
