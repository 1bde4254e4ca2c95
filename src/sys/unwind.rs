//! Panics of foreign code that must not keep other work from being done.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::Waker;

/// The payload of a panic.
pub(crate) type PanicPayload = Box<dyn Any + Send>;

/// Drops the payload of a panic that is not resumed. A payload whose drop panics is leaked, and so
/// is the payload of that panic.
pub(crate) fn discard(payload: PanicPayload) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
}

/// Calls `act` with each item, also after it has panicked with an earlier one. Then resumes the
/// first panic, unless this thread is unwinding already.
pub(crate) fn for_each<T>(items: impl IntoIterator<Item = T>, mut act: impl FnMut(T)) {
    let mut first = None;
    for item in items {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| act(item))) {
            match first {
                None => first = Some(payload),
                Some(_) => discard(payload),
            }
        }
    }
    match first {
        Some(payload) if !std::thread::panicking() => resume_unwind(payload),
        Some(payload) => discard(payload),
        None => {}
    }
}

/// Wakes all of these wakers, the rest also after one has panicked.
///
/// Every place that wakes several wakers calls this, and holds no lock: a waker is foreign code,
/// which may poll, drop or inspect what woke it.
pub(crate) fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    for_each(wakers, Waker::wake);
}

/// Wakes all of these wakers, and discards their panics, which the panic hook has reported: for
/// code that no task of the program called, such as background tasks. Holds no lock either.
pub(crate) fn wake_all_and_go_on(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
            discard(payload);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::panic::panic_any;

    use super::*;

    /// A payload whose drop panics.
    struct Bad;

    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("the drop of a payload");
        }
    }

    #[test]
    fn a_payload_whose_drop_panics_is_leaked() {
        let payload = catch_unwind(|| panic_any(Bad)).unwrap_err();
        discard(payload);
    }

    #[test]
    fn every_item_is_visited_although_several_panic_and_the_first_panic_is_resumed() {
        let visited = Cell::new(0);
        let visit = |item: u32| {
            visited.set(visited.get() + 1);
            match item {
                1 => panic_any(1),
                2 => panic_any(Bad),
                _ => {}
            }
        };
        let all = AssertUnwindSafe(|| for_each([0, 1, 2, 3], visit));
        let payload = catch_unwind(all).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&1));
        assert_eq!(visited.get(), 4);
    }

    #[test]
    fn a_panic_during_unwinding_is_dropped() {
        struct Visits<'a>(&'a Cell<u32>);
        impl Drop for Visits<'_> {
            fn drop(&mut self) {
                for_each([0, 1], |_| {
                    self.0.set(self.0.get() + 1);
                    panic!("in a drop");
                });
            }
        }
        let visited = Cell::new(0);
        let unwinds = AssertUnwindSafe(|| {
            let _visits = Visits(&visited);
            panic_any(7);
        });
        let payload = catch_unwind(unwinds).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&7));
        assert_eq!(visited.get(), 2);
    }
}
