//! Panics of jobs: caught, described, and kept quiet.
//!
//! A job that panics must print nothing in the worker, and its caller wants message, place and backtrace. The payload
//! alone has only the message, so a panic hook is needed, put before the one that the program has. It describes a panic
//! only while the serving thread is inside [`catch`], and hands every other one (of a job's own threads, say) to the
//! program's hook. Whatever may be a process's last words is handed on as well: a second panic while the first unwinds,
//! and every panic of a program built with `panic = "abort"`.
//!
//! A hook cannot tell whether an earlier panic still unwinds or was caught by the job itself, so a second one is described
//! and handed on, and which of the two ended the job is told by its payload.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};

use crate::transport::job::panic_report::PanicReport;

thread_local! {
    static CATCHING: RefCell<Catching> = const { RefCell::new(Catching::No) };
}

/// Whether this thread's panics are to be described instead of printed.
enum Catching {
    No,
    Quiet,
    /// One has been described, and is unwinding, or was caught by the job, or is about to be taken. Of several, the last
    /// but one and the last.
    Described(Option<PanicReport>, PanicReport),
}

/// Puts our hook before the program's. To be called once in a worker.
pub(crate) fn install_hook() {
    let before = take_hook();
    set_hook(Box::new(move |info| {
        if !describe(info) {
            before(info);
        }
    }));
}

/// Calls `f`; if it panics, returns a description, and nothing has been printed.
///
/// Whatever `f` has left half-done is its own: a worker's jobs share only what they chose to share.
pub(crate) fn catch<T>(f: impl FnOnce() -> T) -> Result<T, PanicReport> {
    CATCHING.set(Catching::Quiet);
    let outcome = catch_unwind(AssertUnwindSafe(f));
    let described = CATCHING.replace(Catching::No);
    outcome.map_err(|payload| {
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
    })
}

/// Describes a panic for `catch`; `false` if that is not wanted, or not enough.
fn describe(info: &PanicHookInfo<'_>) -> bool {
    if !cfg!(panic = "unwind") {
        return false;
    }
    // A panic raised by dropping the thread's own variables, after `CATCHING` is gone, is not a job's.
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

/// Describes a panic that no hook saw: the job replaced the hook, or resumed a payload.
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

/// Drops a payload, whose `Drop` is a job's code and may panic in turn, with a payload that may again, and so on: the
/// second is forgotten.
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
