//! Nurseries: who lives how long, who ends whom, what the block returns. Polled by hand; no test sleeps or has a timeout.
//!
//! One program, because each test program costs a link; a module per subject.

#[path = "../common/polling.rs"]
mod polling;
mod said;

mod early;
mod errors;
mod every_poll;
mod found;
mod length;
mod panics;
mod service;
mod shuffle;
mod start;
mod tasks;
mod threads;
mod trio;
