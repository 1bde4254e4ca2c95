//! How a worker process ended, for the errors that it caused.

use std::fmt;

use crate::sys::process::Ended;

/// How a worker process ended.
///
/// # Examples
///
/// ```
/// use seedbed::run_sync;
///
/// fn abort(_: ()) {
///     std::process::abort()
/// }
///
/// fn main() {
///     seedbed::init();
///     let error = smol::block_on(async { run_sync(abort, ()).await }).unwrap_err();
///     let exit = error.exit().unwrap();
///     assert_eq!(exit.signal_name(), Some("SIGABRT"));
///     assert_eq!(exit.code(), None);
/// }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct WorkerExit {
    pid: u32,
    ended: Ended,
    stderr: Option<String>,
}

impl WorkerExit {
    pub(crate) fn new(pid: u32, ended: Ended, stderr: Option<String>) -> Self {
        Self { pid, ended, stderr }
    }

    /// Returns the exit code, if the process exited by itself.
    ///
    /// ```
    /// use seedbed::run_sync;
    ///
    /// fn leave(code: i32) {
    ///     std::process::exit(code)
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let error = smol::block_on(async { run_sync(leave, 3).await }).unwrap_err();
    ///     let exit = error.exit().unwrap();
    ///     assert_eq!((exit.code(), exit.signal()), (Some(3), None));
    /// }
    /// ```
    pub fn code(&self) -> Option<i32> {
        match self.ended {
            Ended::Exited(code) => Some(code),
            Ended::Signalled { .. } | Ended::Unknown => None,
        }
    }

    /// Returns the number of the signal that ended the process, if one did.
    ///
    /// ```
    /// use seedbed::run_sync;
    ///
    /// fn abort(_: ()) {
    ///     std::process::abort()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let error = smol::block_on(async { run_sync(abort, ()).await }).unwrap_err();
    ///     let exit = error.exit().unwrap();
    ///     assert_eq!((exit.code(), exit.signal()), (None, Some(6)));
    /// }
    /// ```
    pub fn signal(&self) -> Option<i32> {
        match self.ended {
            Ended::Exited(_) | Ended::Unknown => None,
            Ended::Signalled { signal, .. } => Some(signal),
        }
    }

    /// Returns the name of that signal, such as `"SIGSEGV"`; `None` also for real-time signals, which have only numbers.
    ///
    /// ```
    /// use seedbed::run_sync;
    ///
    /// fn abort(_: ()) {
    ///     std::process::abort()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let error = smol::block_on(async { run_sync(abort, ()).await }).unwrap_err();
    ///     assert_eq!(error.exit().unwrap().signal_name(), Some("SIGABRT"));
    /// }
    /// ```
    pub fn signal_name(&self) -> Option<&'static str> {
        self.signal().and_then(signal_name)
    }

    /// Tells whether the kernel wrote a core dump.
    ///
    /// ```
    /// use seedbed::run_sync;
    ///
    /// fn leave(code: i32) {
    ///     std::process::exit(code)
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let error = smol::block_on(async { run_sync(leave, 3).await }).unwrap_err();
    ///     assert!(!error.exit().unwrap().core_dumped()); // it left by itself
    /// }
    /// ```
    pub fn core_dumped(&self) -> bool {
        matches!(self.ended, Ended::Signalled { core: true, .. })
    }

    /// Returns the id that the process had. It has been reaped, so the number may belong to another process by now.
    ///
    /// ```
    /// use seedbed::run_sync;
    ///
    /// fn leave(code: i32) {
    ///     std::process::exit(code)
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let error = smol::block_on(async { run_sync(leave, 3).await }).unwrap_err();
    ///     assert_ne!(error.exit().unwrap().pid(), std::process::id());
    /// }
    /// ```
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the last four kilobytes that the worker wrote to its standard error, if its context captures that
    /// (see [`capture_stderr`](crate::WorkerConfig::capture_stderr)). Bytes that are not UTF-8 are replaced.
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn complain(_: ()) {
    ///     eprintln!("no more paint");
    ///     std::process::abort()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().capture_stderr(true);
    ///     let error = smol::block_on(open_worker_context(config, |workers| async move {
    ///         workers.run_sync(complain, ()).await.unwrap_err()
    ///     }));
    ///     assert_eq!(error.exit().unwrap().stderr_tail(), Some("no more paint\n"));
    /// }
    /// ```
    pub fn stderr_tail(&self) -> Option<&str> {
        self.stderr.as_deref()
    }
}

impl fmt::Debug for WorkerExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerExit")
            .field("pid", &self.pid)
            .field("ended", &self.ended)
            .field("stderr_tail", &self.stderr)
            .finish()
    }
}

/// Reads on from "the worker": "exited with code 3 (process 4711)".
impl fmt::Display for WorkerExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ended {
            Ended::Exited(code) => write!(f, "exited with code {code}")?,
            Ended::Unknown => {
                f.write_str("ended, how only what else in this program waits for children knows")?
            }
            Ended::Signalled { signal, core } => {
                match signal_name(signal) {
                    Some(name) => write!(f, "was killed by {name}")?,
                    None => write!(f, "was killed by signal {signal}")?,
                }
                if core {
                    f.write_str(" and dumped core")?;
                }
            }
        }
        write!(f, " (process {})", self.pid)
    }
}

/// The name of a standard signal of Linux on x86-64 and aarch64, which number them alike.
fn signal_name(signal: i32) -> Option<&'static str> {
    const NAMES: [&str; 31] = [
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    let index = usize::try_from(signal).ok()?.checked_sub(1)?; // a negative number names nothing
    NAMES.get(index).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_named_by_their_numbers() {
        assert_eq!(signal_name(libc::SIGKILL), Some("SIGKILL"));
        assert_eq!(signal_name(libc::SIGSEGV), Some("SIGSEGV"));
        assert_eq!(signal_name(libc::SIGSYS), Some("SIGSYS"));
        assert_eq!(signal_name(0), None);
        assert_eq!(signal_name(-1), None);
        assert_eq!(signal_name(32), None);
    }
}
