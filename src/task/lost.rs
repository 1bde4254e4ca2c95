//! Reports an `Err` that a child returned and no code takes.
//!
//! A child's result has any type, and Rust has no way to ask a generic value whether it is an
//! `Err`. The name of its type and its discriminant, as text, tell it. Neither text is guaranteed
//! by Rust. If one changes, no error is reported, and a test of this file fails.

use std::any::type_name;
use std::fmt::{self, Write as _};
use std::mem;

/// Logs a result that is about to be dropped, if it is an `Err`.
#[inline]
pub(super) fn report_lost<T>(result: &T, task_name: impl FnOnce() -> String) {
    // Known when this is compiled for a type, so other types cost nothing.
    if type_name::<T>().starts_with("core::result::Result<") && is_second_variant(result) {
        log(type_name::<T>(), &task_name());
    }
}

/// Returns whether the value of an enum is its second variant.
fn is_second_variant<T>(value: &T) -> bool {
    let mut expected = Expected("Discriminant(1)");
    write!(expected, "{:?}", mem::discriminant(value)).is_ok() && expected.0.is_empty()
}

/// Compares what is written with the rest of a text, without allocating.
struct Expected(&'static str);

impl fmt::Write for Expected {
    fn write_str(&mut self, written: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(written).ok_or(fmt::Error)?;
        Ok(())
    }
}

#[cold]
fn log(result_type: &str, task_name: &str) {
    tracing::warn!(
        target: "seedbed::nursery",
        result_type,
        "a nursery's child, `{task_name}`, returned an `Err`, which is dropped with its Task; await the Task, or use \
         Nursery::try_spawn"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_reported<T>(result: &T) -> bool {
        let mut is_reported = false;
        report_lost(result, || {
            is_reported = true;
            String::new()
        });
        is_reported
    }

    #[test]
    fn an_error_is_told_from_every_other_result_whatever_its_layout() {
        assert!(is_reported(&Err::<(), _>("an error")));
        assert!(is_reported(&Err::<u64, ()>(())));
        assert!(is_reported(&Err::<Box<u8>, ()>(())));
        assert!(is_reported(&Err::<(), Box<u8>>(Box::new(1))));
        assert!(is_reported(&Err::<Result<(), ()>, Option<bool>>(None)));
        assert!(!is_reported(&Ok::<_, &str>(())));
        assert!(!is_reported(&Ok::<Box<u8>, ()>(Box::new(1))));
        assert!(!is_reported(&Ok::<_, ()>(Err::<(), _>(1))));
        assert!(!is_reported(&Some(1)));
        assert!(!is_reported(&[Err::<(), _>(1)]));
        assert!(!is_reported(&()));
    }
}
