//! Worker processes, started in both ways: each test of most files runs with spawned workers, as
//! under libtest, and with forked ones. See `common::modes`.
//!
//! Each test runs alone in the process, and fails if it leaves something behind: see
//! `common::test`.

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
mod runs;
mod shared_memory;
mod signals;
mod soak;
mod start;
mod statistics;
mod storms;
mod surroundings;
mod time_limits;
mod tracing;
mod wakers;

use common::modes::{self, BOTH, Mode};

/// Returns the number of processes that run tests at the same time: two for each processor, as many
/// tests wait, or what `RUST_TEST_THREADS` says, as under libtest.
///
/// A program that contains the name of that variable is one of libtest for the library, which
/// therefore accepts a hook on a thread with the name of a test.
fn processes_at_once() -> usize {
    let asked = std::env::var("RUST_TEST_THREADS").ok();
    asked.map_or_else(|| 2 * modes::processors(), |asked| asked.parse().unwrap())
}

fn main() {
    let both = &[
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
        ("map::ends", map::ends::SUITE),
        ("map::failures", map::failures::SUITE),
        ("map::results", map::results::SUITE),
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
    ];
    let spawned = &[
        ("runs", runs::SUITE),
        ("signals", signals::OF_SPAWNED),
        ("soak", soak::SUITE),
        ("start", start::SUITE),
        ("storms", storms::SUITE),
    ];
    let forked = &[
        ("forked", forked::SUITE),
        ("forked::hostile", forked::hostile::SUITE),
        ("forked::unable", forked::unable::SUITE),
    ];
    modes::run(
        processes_at_once(),
        &[
            (BOTH, both),
            (&[Mode::Spawned], spawned),
            (&[Mode::Forked], forked),
        ],
    );
}
