//! What was said, and in which order: panics, and a log.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

/// What a panic said.
pub fn message(payload: Box<dyn std::any::Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => payload.downcast::<&str>().map_or_else(
            |_| "not a string".to_string(),
            |message| message.to_string(),
        ),
    }
}

/// Runs code that is expected to panic, and returns what it said.
#[track_caller]
pub fn panic_of<T>(act: impl FnOnce() -> T) -> String {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(_) => panic!("expected a panic"),
        Err(payload) => message(payload),
    }
}

/// What happened, in order.
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
