//! What a panic says.

#![allow(dead_code)] // each test program uses its own part of this

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The text that a panic carries.
pub fn message(payload: Box<dyn Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => payload
            .downcast_ref::<&str>()
            .expect("a panic says something")
            .to_string(),
    }
}

/// Does something that must panic, and returns what the panic says.
#[track_caller]
pub fn panic_of<T>(act: impl FnOnce() -> T) -> String {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(_) => panic!("expected a panic"),
        Err(payload) => message(payload),
    }
}
