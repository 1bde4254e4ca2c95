//! Panics and their messages.

#![allow(dead_code)] // each test program uses its own part of this

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Returns the message of a panic from its payload.
pub fn message(payload: Box<dyn Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => payload
            .downcast_ref::<&str>()
            .expect("the payload is a message")
            .to_string(),
    }
}

/// Calls a function that must panic, and returns the message.
#[track_caller]
pub fn panic_of<T>(act: impl FnOnce() -> T) -> String {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(_) => panic!("expected a panic"),
        Err(payload) => message(payload),
    }
}
