//! Workers that are forked, killed and forked again thousands of times.
//!
//! This is a program of its own, so that it can be compiled with optimization for a longer soak:
//! see `soak.rs`.

#[macro_use]
#[path = "../common/mod.rs"]
mod common;

mod soak;
mod storms;

use common::modes::{self, Mode};

fn main() {
    modes::run(
        modes::processors(),
        &[(
            &[Mode::Forked],
            &[("soak", soak::SUITE), ("storms", storms::SUITE)],
        )],
    );
}
