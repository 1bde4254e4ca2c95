//! Uses a ring in shared memory that contains bytes from the fuzzer. `src/transport/ring/forged.rs`
//! says what must hold.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| seedbed::worker::use_forged_ring(bytes));
