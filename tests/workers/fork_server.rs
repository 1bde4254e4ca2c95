//! Forked workers: the tests that spawned workers pass too, and those of behaviour that only forked
//! workers have.
//!
//! libtest cannot run this, because a fork server must be single-threaded when it reaches the hook.
//! The tests that make thousands of calls are in `fork_soak.rs`, which can be compiled with
//! optimization.

#[macro_use]
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/polling.rs"]
mod polling;

mod arena;
mod async_jobs;
mod cache;
mod calls;
mod cancel;
mod causes;
mod channels;
mod deaths;
mod descriptors;
mod ends;
mod errors;
mod faults;
mod forked;
mod forwarding;
mod frames;
mod groups;
mod leftovers;
mod limits;
mod mailbox;
mod map;
mod misdeeds;
mod programs;
mod requests;
mod shared_memory;
mod signals;
mod statistics;
mod surroundings;
mod time_limits;
mod tracing;
mod wakers;

fn main() {
    common::forked::run(&[
        ("arena", arena::SUITE),
        ("async_jobs", async_jobs::SUITE),
        ("cache", cache::SUITE),
        ("calls", calls::SUITE),
        ("cancel", cancel::SUITE),
        ("causes", causes::SUITE),
        ("channels", channels::SUITE),
        ("deaths", deaths::SUITE),
        ("descriptors", descriptors::SUITE),
        ("ends", ends::SUITE),
        ("errors", errors::SUITE),
        ("faults", faults::SUITE),
        ("forwarding", forwarding::SUITE),
        ("frames", frames::SUITE),
        ("groups", groups::SUITE),
        ("leftovers", leftovers::SUITE),
        ("limits", limits::SUITE),
        ("mailbox", mailbox::SUITE),
        ("map", map::SUITE),
        ("misdeeds", misdeeds::SUITE),
        ("programs", programs::SUITE),
        ("requests", requests::SUITE),
        ("shared_memory", shared_memory::SUITE),
        ("signals", signals::SUITE),
        ("statistics", statistics::SUITE),
        ("surroundings", surroundings::SUITE),
        ("time_limits", time_limits::SUITE),
        ("tracing", tracing::SUITE),
        ("wakers", wakers::SUITE),
        ("forked", forked::SUITE),
        ("forked::hostile", forked::hostile::SUITE),
        ("forked::unable", forked::unable::SUITE),
    ]);
}
