//! Worker processes, under libtest: it has several threads before a test reaches the hook, so the
//! workers are spawned. `fork_server.rs` runs most of these files with forked workers.
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
