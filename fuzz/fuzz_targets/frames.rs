//! Passes bytes from the fuzzer to all readers of frames. `src/worker/fuzzed.rs` says what must
//! hold.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| seedbed::worker::read_frames(bytes));
