//! Bytes from the fuzzer, given to all that reads frames. What must hold is said where they are read:
//! `src/worker/fuzzed.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| seedbed::worker::read_frames(bytes));
