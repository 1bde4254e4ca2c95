//! Calling into a run: the order of calls, the end of the run, panics, threads that wait, and
//! statistics.

#[path = "../common/panics.rs"]
mod panics;
#[path = "../common/polling.rs"]
mod polling;

mod calls;
mod end;
mod statistics;
mod waiting;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use seedbed::run::RunHandle;

const SECOND: Duration = Duration::from_secs(1);

/// The events, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn add(&self, what: impl ToString) {
        self.0.lock().unwrap().push(what.to_string());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Queues a call that adds to the log.
fn soon(handle: &RunHandle, log: &Log, what: &'static str) {
    let log = log.clone();
    handle.call_soon(move || log.add(what)).unwrap();
}
