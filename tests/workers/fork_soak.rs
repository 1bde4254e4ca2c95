//! Workers that are forked, killed and forked again thousands of times.
//!
//! This is a program of its own, so that it can be compiled with optimization for a longer soak:
//! see `worker_soak.rs`.

// Each file declares `common`, because each is also a test program of its own.
#![allow(clippy::duplicate_mod)]

#[macro_use]
mod common;

#[path = "worker_soak.rs"]
mod worker_soak;
#[path = "worker_storms.rs"]
mod worker_storms;

fn main() {
    common::forked::run(&[
        ("worker_soak", worker_soak::SUITE),
        ("worker_storms", worker_storms::SUITE),
    ]);
}
