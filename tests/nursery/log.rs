//! A log of events in order, and the messages of panics.

#[path = "../common/panics.rs"]
mod texts;

use std::sync::Mutex;

pub use texts::panic_of;

/// Records events in order.
#[derive(Default)]
pub struct Log(Mutex<Vec<&'static str>>);

impl Log {
    pub fn add(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }

    pub fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}
