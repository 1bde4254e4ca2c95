//! Nurseries: when tasks end, what ends them, and what blocks return. All futures are polled by
//! hand: no test sleeps or has a time-out.
//!
//! One program with a module per subject, because each test program has to be linked.

mod log;
#[path = "../common/polling.rs"]
mod polling;
#[path = "../common/log.rs"]
mod warnings;

mod early;
mod errors;
mod every_poll;
mod lifetime;
mod panics;
mod regressions;
mod service;
mod shuffle;
mod start;
mod tasks;
mod threads;
mod trio;
