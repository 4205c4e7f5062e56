//! What the tests of the core share: no sockets, no clock, and of the disk only the samples.
//!
//! ```text
//! tags ──> packager ──actions──> memory (performs them) ──> judge (says what must hold of every sequence of actions)
//!                                   └──> listing (whole outputs as text)
//! ```

#![allow(dead_code, reason = "each test program uses a part of it")]
#![expect(clippy::disallowed_methods, reason = "samples and golden files are read from the disk")]

pub(crate) mod boxes;
pub(crate) mod judge;
pub(crate) mod listing;
pub(crate) mod memory;
pub(crate) mod steps;
pub(crate) mod tags;
