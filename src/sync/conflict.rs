//! `ConflictDetector`: detects that two tasks run operations at once which must not overlap.
//!
//! `&mut self` is better where it is possible, because the compiler checks it. This is for async
//! operations on `&self`, on a value that is shared because *other* operations may overlap: for
//! example a connection that one task reads and another one writes. Two tasks that write are a
//! mistake, which should be an immediate error for the second one and not harm the first one.

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

/// Lets one task at a time enter; all others get an error immediately.
///
/// Use it in types whose async methods take `&self` and must not overlap. A
/// [`Mutex`](crate::sync::Mutex) would make the second call wait; the detector reports it as a
/// mistake. Where `&mut self` is possible, use that instead.
///
/// ```
/// use seedbed::sync::{BusyResourceError, ConflictDetector};
///
/// struct Line {
///     writing: ConflictDetector,
/// }
///
/// impl Line {
///     async fn write(&self, text: &str) -> Result<usize, BusyResourceError> {
///         let _writing = self.writing.try_enter()?;
///         seedbed::checkpoint().await; // the line is slow
///         Ok(text.len())
///     }
/// }
///
/// futures_lite::future::block_on(async {
///     let line = Line { writing: ConflictDetector::new() };
///     let (first, second) = futures_lite::future::zip(line.write("hello"), line.write("over you")).await;
///     assert_eq!(first, Ok(5));
///     assert!(second.is_err());
///     assert_eq!(line.write("again").await, Ok(5));
/// });
/// ```
#[derive(Debug, Default)]
pub struct ConflictDetector {
    busy: AtomicBool,
}

impl ConflictDetector {
    /// Creates a detector that no task has entered.
    ///
    /// ```
    /// static DETECTOR: seedbed::sync::ConflictDetector = seedbed::sync::ConflictDetector::new();
    /// assert!(DETECTOR.try_enter().is_ok());
    /// ```
    pub const fn new() -> Self {
        ConflictDetector {
            busy: AtomicBool::new(false),
        }
    }

    /// Enters until the guard is dropped.
    ///
    /// ```
    /// let detector = seedbed::sync::ConflictDetector::new();
    /// let inside = detector.try_enter().unwrap();
    /// assert!(detector.try_enter().is_err());
    /// drop(inside);
    /// assert!(detector.try_enter().is_ok());
    /// ```
    ///
    /// # Errors
    ///
    /// [`BusyResourceError`] if another task has entered; that task is not affected.
    pub fn try_enter(&self) -> Result<ConflictGuard<'_>, BusyResourceError> {
        if self.busy.swap(true, Ordering::Acquire) {
            Err(BusyResourceError { _private: () })
        } else {
            Ok(ConflictGuard { detector: self })
        }
    }
}

/// Keeps other tasks out; from [`ConflictDetector::try_enter`].
///
/// # Dropping
///
/// Lets the next task enter. A guard that is forgotten ([`std::mem::forget`]) keeps all tasks out
/// forever.
#[derive(Debug)]
#[must_use = "dropping the guard lets others in at once"]
pub struct ConflictGuard<'a> {
    detector: &'a ConflictDetector,
}

impl Drop for ConflictGuard<'_> {
    fn drop(&mut self) {
        self.detector.busy.store(false, Ordering::Release);
    }
}

/// Another task runs an operation that must not overlap; from [`ConflictDetector::try_enter`]. This
/// is Trio's `BusyResourceError`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BusyResourceError {
    _private: (),
}

impl fmt::Display for BusyResourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the operation did not begin: another task is in the middle of one that must not overlap with it; let one \
             task do both, or have them share a `Mutex`",
        )
    }
}

impl Error for BusyResourceError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn the_second_one_is_refused_and_the_first_one_unharmed() {
        let detector = ConflictDetector::new();
        let first = detector.try_enter().unwrap();
        assert!(detector.try_enter().is_err());
        assert!(detector.try_enter().is_err(), "a refusal lets nobody in");
        drop(first);
        assert!(detector.try_enter().is_ok());
    }

    #[test]
    fn whoever_is_cancelled_inside_lets_the_next_one_in() {
        let detector = ConflictDetector::new();
        let mut operation = Box::pin(async {
            let _inside = detector.try_enter().unwrap();
            std::future::pending::<()>().await;
        });
        assert!(crate::sync::test_waker::poll(&mut operation).is_pending());
        assert!(detector.try_enter().is_err());
        drop(operation);
        assert!(detector.try_enter().is_ok());
    }

    #[test]
    fn of_many_threads_one_is_in_at_a_time() {
        let rounds = if cfg!(miri) { 20 } else { 1000 };
        let (detector, inside) = (ConflictDetector::new(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..rounds {
                        if let Ok(_guard) = detector.try_enter() {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert!(detector.try_enter().is_ok());
    }
}
