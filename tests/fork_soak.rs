//! Workers that are forked, killed and forked again, thousands of times: what `fork_server.rs` has no time for.
//!
//! A program of its own, because it is compiled with optimisation, too, for a longer soak: see `worker_soak.rs`.

// Each file has `common` as its own, because each is a program of its own, too.
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
