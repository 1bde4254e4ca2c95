//! Workers that are forked, killed and forked again thousands of times.
//!
//! This is a program of its own, so that it can be compiled with optimization for a longer soak:
//! see `soak.rs`.

#[macro_use]
#[path = "../common/mod.rs"]
mod common;

mod soak;
mod storms;

fn main() {
    common::forked::run(&[("soak", soak::SUITE), ("storms", storms::SUITE)]);
}
