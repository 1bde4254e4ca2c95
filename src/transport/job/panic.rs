//! Catches and describes the panics of jobs.
//!
//! A job that panics must print nothing in the worker, and its caller wants message, location and
//! backtrace. The panic payload has only the message, so a panic hook is installed before the
//! program's. It describes a panic only while the serving thread is inside [`catch`]; every other
//! panic (of a job's own threads, for example) goes to the program's hook. A panic that may abort
//! the process goes there as well: a second panic while the first unwinds, and every panic of a
//! program built with `panic = "abort"`.
//!
//! A hook cannot tell whether an earlier panic still unwinds or was caught by the job itself. So a
//! second panic is described and passed on; the payload tells which of the two ended the job.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};

use crate::transport::job::panic_report::PanicReport;

thread_local! {
    static CATCHING: RefCell<Catching> = const { RefCell::new(Catching::No) };
}

/// Whether panics of this thread are described instead of printed.
enum Catching {
    No,
    Quiet,
    /// A panic has been described. It unwinds, was caught by the job, or is about to be taken. The
    /// last two panics are kept.
    Described(Option<PanicReport>, PanicReport),
}

/// Installs the hook before the program's. Called once in a worker.
pub(crate) fn install_hook() {
    let before = take_hook();
    set_hook(Box::new(move |info| {
        if !describe(info) {
            before(info);
        }
    }));
}

/// Calls `f`. If it panics, returns a description; nothing is printed.
///
/// State that `f` leaves half-done stays so: the jobs of a worker share only what they chose to
/// share.
pub(crate) fn catch<T>(f: impl FnOnce() -> T) -> Result<T, PanicReport> {
    CATCHING.set(Catching::Quiet);
    let outcome = catch_unwind(AssertUnwindSafe(f));
    let described = CATCHING.replace(Catching::No);
    outcome.map_err(|payload| report_of(payload, described))
}

/// Calls `f` within a call of [`catch`], as that does, and at less cost. Panics between such calls
/// are described, too.
pub(crate) fn catch_within<T>(f: impl FnOnce() -> T) -> Result<T, PanicReport> {
    CATCHING.with_borrow_mut(|catching| {
        if !matches!(catching, Catching::Quiet) {
            *catching = Catching::Quiet;
        }
    });
    let outcome = catch_unwind(AssertUnwindSafe(f));
    outcome.map_err(|payload| report_of(payload, CATCHING.replace(Catching::Quiet)))
}

/// Describes a panic that was caught, of which the hook has seen this.
fn report_of(payload: Box<dyn Any + Send>, described: Catching) -> PanicReport {
    let descriptions = match described {
        Catching::Described(before, last) => [Some(last), before],
        Catching::No | Catching::Quiet => [None, None],
    };
    let is_of_payload = |report: &PanicReport| report.message == message(&*payload);
    match descriptions.into_iter().flatten().find(is_of_payload) {
        Some(report) => {
            drop_quietly(payload);
            report
        }
        None => report_of_payload(payload),
    }
}

/// Describes a panic for `catch`. Returns `false` if the panic must also go to the program's hook.
fn describe(info: &PanicHookInfo<'_>) -> bool {
    if !cfg!(panic = "unwind") {
        return false;
    }
    // `CATCHING` is gone while the thread drops its thread-locals; a panic then does not belong to
    // a job.
    CATCHING
        .try_with(|catching| {
            let before = match catching.replace(Catching::No) {
                Catching::No => return false,
                Catching::Quiet => None,
                Catching::Described(_, last) => Some(last),
            };
            let is_first = before.is_none();
            catching.replace(Catching::Described(before, report(info)));
            is_first
        })
        .unwrap_or(false)
}

fn report(info: &PanicHookInfo<'_>) -> PanicReport {
    let backtrace = Backtrace::capture();
    PanicReport {
        message: message(info.payload()).to_owned(),
        location: info.location().map(ToString::to_string),
        backtrace: (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string()),
    }
}

/// Describes a panic that the hook did not see, because the job replaced the hook or resumed a
/// payload.
fn report_of_payload(payload: Box<dyn Any + Send>) -> PanicReport {
    let report = PanicReport {
        message: message(&*payload).to_owned(),
        location: None,
        backtrace: None,
    };
    drop_quietly(payload);
    report
}

fn message(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "(a payload that is not a string)"
    }
}

/// Drops a payload. Its `Drop` is code of the job, which may panic with another payload, and so on:
/// the second one is forgotten.
fn drop_quietly(payload: Box<dyn Any + Send>) {
    CATCHING.set(Catching::Quiet);
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    CATCHING.set(Catching::No);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{panic_any, resume_unwind};

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic_any(Bomb);
        }
    }

    #[test]
    fn every_payload_is_described_and_safely_dropped() {
        assert_eq!(catch(|| 7).unwrap(), 7);
        assert_eq!(catch(|| panic!("plain")).unwrap_err().message, "plain");
        assert_eq!(
            catch(|| panic!("with {}", 3)).unwrap_err().message,
            "with 3"
        );
        assert_eq!(
            catch(|| resume_unwind(Box::new("quiet")))
                .unwrap_err()
                .message,
            "quiet"
        );
        let odd = "(a payload that is not a string)";
        assert_eq!(catch(|| panic_any(7)).unwrap_err().message, odd);
        assert_eq!(
            catch(|| resume_unwind(Box::new(Bomb))).unwrap_err().message,
            odd
        );
    }
}
