#![no_main]

#[path = "../bodies.rs"]
#[allow(dead_code, reason = "shared with the other targets")]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::sei(data));
