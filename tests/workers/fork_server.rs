//! Forked workers: the tests that spawned workers pass too, and those of behaviour that only forked
//! workers have.
//!
//! libtest cannot run this, because a fork server must be single-threaded when it reaches the hook.
//! The tests that make thousands of calls are in `fork_soak.rs`, which can be compiled with
//! optimization.

// Each file declares `common`, because each is also a test program of its own.
#![allow(clippy::duplicate_mod)]

#[macro_use]
mod common;

mod forked;
#[path = "shared_memory.rs"]
mod shared_memory;
#[path = "worker_arena.rs"]
mod worker_arena;
#[path = "worker_async.rs"]
mod worker_async;
#[path = "worker_cache.rs"]
mod worker_cache;
#[path = "worker_calls.rs"]
mod worker_calls;
#[path = "worker_cancel.rs"]
mod worker_cancel;
#[path = "worker_causes.rs"]
mod worker_causes;
#[path = "worker_channels.rs"]
mod worker_channels;
#[path = "worker_deaths.rs"]
mod worker_deaths;
#[path = "worker_descriptors.rs"]
mod worker_descriptors;
#[path = "worker_ends.rs"]
mod worker_ends;
#[path = "worker_errors.rs"]
mod worker_errors;
#[path = "worker_faults.rs"]
mod worker_faults;
#[path = "worker_frames.rs"]
mod worker_frames;
#[path = "worker_groups.rs"]
mod worker_groups;
#[path = "worker_leftovers.rs"]
mod worker_leftovers;
#[path = "worker_limits.rs"]
mod worker_limits;
#[path = "worker_mailbox.rs"]
mod worker_mailbox;
#[path = "worker_map.rs"]
mod worker_map;
#[path = "worker_misdeeds.rs"]
mod worker_misdeeds;
#[path = "worker_programs.rs"]
mod worker_programs;
#[path = "worker_requests.rs"]
mod worker_requests;
#[path = "worker_signals.rs"]
mod worker_signals;
#[path = "worker_statistics.rs"]
mod worker_statistics;
#[path = "worker_surroundings.rs"]
mod worker_surroundings;
#[path = "worker_time_limits.rs"]
mod worker_time_limits;
#[path = "worker_tracing.rs"]
mod worker_tracing;

fn main() {
    common::forked::run(&[
        ("worker_arena", worker_arena::SUITE),
        ("worker_async", worker_async::SUITE),
        ("worker_cache", worker_cache::SUITE),
        ("worker_calls", worker_calls::SUITE),
        ("worker_cancel", worker_cancel::SUITE),
        ("worker_causes", worker_causes::SUITE),
        ("worker_channels", worker_channels::SUITE),
        ("worker_deaths", worker_deaths::SUITE),
        ("shared_memory", shared_memory::SUITE),
        ("worker_descriptors", worker_descriptors::SUITE),
        ("worker_ends", worker_ends::SUITE),
        ("worker_errors", worker_errors::SUITE),
        ("worker_faults", worker_faults::SUITE),
        ("worker_frames", worker_frames::SUITE),
        ("worker_groups", worker_groups::SUITE),
        ("worker_leftovers", worker_leftovers::SUITE),
        ("worker_limits", worker_limits::SUITE),
        ("worker_mailbox", worker_mailbox::SUITE),
        ("worker_map", worker_map::SUITE),
        ("worker_misdeeds", worker_misdeeds::SUITE),
        ("worker_programs", worker_programs::SUITE),
        ("worker_requests", worker_requests::SUITE),
        ("worker_signals", worker_signals::SUITE),
        ("worker_statistics", worker_statistics::SUITE),
        ("worker_surroundings", worker_surroundings::SUITE),
        ("worker_time_limits", worker_time_limits::SUITE),
        ("worker_tracing", worker_tracing::SUITE),
        ("forked", forked::SUITE),
        ("forked::hostile", forked::hostile::SUITE),
        ("forked::unable", forked::unable::SUITE),
    ]);
}
