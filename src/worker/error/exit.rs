//! How a worker process ended, for the errors that it caused.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::cause::{Circumstances, ExitCause, ExitLimits};
use crate::sys::fault::Fault;
use crate::sys::process::Ended;
use crate::worker::tuning::STDERR_LINES_SHOWN;

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
    circumstances: Circumstances,
    /// `None` for a process of this machine.
    elsewhere: Option<Elsewhere>,
}

/// Where a process ran that a launcher had started, and what its end there was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::worker) struct Elsewhere {
    pub(in crate::worker) host: Arc<str>,
    /// The job and step of the engine that has started it.
    pub(in crate::worker) step: Option<Arc<str>>,
    /// The process that had started it was told to stop by this signal, and killed it.
    pub(in crate::worker) stopped_by: Option<i32>,
    /// The connection was lost.
    pub(in crate::worker) is_lost: bool,
}

/// A worker process that had not ended a while after it was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) struct Survivor {
    pub(in crate::worker) pid: u32,
    /// The time since the kill.
    pub(in crate::worker) waited: Duration,
}

/// Continues a sentence that begins with "the worker".
impl fmt::Display for Survivor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, waited } = self;
        write!(
            f,
            "was killed and had not ended {waited:?} later (process {pid}): it is frozen, waits in the kernel, or may not \
             be signalled because a user id has changed; it is reaped in the background when it ends"
        )
    }
}

impl WorkerExit {
    pub(crate) fn new(pid: u32, ended: Ended, stderr: Option<String>) -> Self {
        Self {
            pid,
            ended,
            stderr,
            circumstances: Circumstances::default(),
            elsewhere: None,
        }
    }

    /// Adds where the process ran, if a launcher had started it.
    pub(in crate::worker) fn elsewhere(mut self, elsewhere: Option<Elsewhere>) -> Self {
        self.elsewhere = elsewhere;
        self
    }

    /// Adds the fault that the worker reported before it ended.
    pub(in crate::worker) fn with_fault(mut self, fault: Option<Fault>) -> Self {
        self.circumstances.fault = fault;
        self
    }

    /// Adds whether this library had killed the process.
    pub(in crate::worker) fn killed_by_parent(mut self, is_killed: bool) -> Self {
        self.circumstances.is_killed_by_parent = is_killed;
        self
    }

    /// Adds the limits that the worker had.
    pub(in crate::worker) fn within(mut self, limits: ExitLimits) -> Self {
        self.circumstances.limits = limits;
        self
    }

    /// Returns the cause of the end.
    ///
    /// A worker reports a stack overflow and a failed allocation just before they end it, so these
    /// are certain. If it cannot (a job has replaced the signal handlers, or the memory was refused
    /// to C code that reacts in its own way), the cause is
    /// [`Crashed`](crate::worker::ExitCause::Crashed).
    ///
    /// ```
    /// use seedbed::worker::ExitCause;
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn zeros(count: usize) -> usize {
    ///     std::hint::black_box(vec![0_u8; count]).len()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().memory_limit(256 << 20);
    ///     let error = smol::block_on(open_worker_context(config, |workers| async move {
    ///         workers.run_sync(zeros, 1 << 30).await.unwrap_err()
    ///     }));
    ///     assert_eq!(error.exit().unwrap().cause(), ExitCause::OutOfMemory);
    ///     assert!(error.to_string().contains("its limit is 256.0 MiB"));
    /// }
    /// ```
    pub fn cause(&self) -> ExitCause {
        self.circumstances.cause_of(self.ended)
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

    /// Returns the name of that signal, such as `"SIGSEGV"`; `None` also for real-time signals,
    /// which have only numbers.
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
    ///     assert!(!error.exit().unwrap().core_dumped()); // it exited
    /// }
    /// ```
    pub fn core_dumped(&self) -> bool {
        matches!(self.ended, Ended::Signalled { core: true, .. })
    }

    /// Returns the id that the process had. It has been reaped, so the number may belong to another
    /// process by now.
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

    /// Returns the name of the machine on which the process ran, if a
    /// [launcher](crate::worker::Launcher) had started it. The [process id](Self::pid) is that on
    /// this machine.
    ///
    /// ```
    /// use seedbed::worker::Launcher;
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn leave(code: i32) {
    ///     std::process::exit(code)
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().launcher(Launcher::command(["env"]));
    ///     let error = smol::block_on(open_worker_context(config, |workers| async move {
    ///         workers.run_sync(leave, 3).await.unwrap_err()
    ///     }));
    ///     let exit = error.exit().unwrap();
    ///     assert_eq!(exit.code(), Some(3));
    ///     let this_machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    ///     assert_eq!(exit.host(), Some(this_machine.trim()));
    /// }
    /// ```
    pub fn host(&self) -> Option<&str> {
        self.elsewhere.as_ref().map(|elsewhere| &*elsewhere.host)
    }

    /// Returns the last four kilobytes that the worker wrote to its standard error, if its context
    /// captures that (see [`capture_stderr`](crate::WorkerConfig::capture_stderr)). Bytes that are
    /// not UTF-8 are replaced.
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

impl WorkerExit {
    /// Returns advice about this end for a worker that had a job.
    pub(in crate::worker) fn advice(&self) -> &'static str {
        let cause = self.cause();
        match cause {
            ExitCause::OutOfMemory if self.circumstances.limits.memory.is_some() => {
                return "raise `WorkerConfig::memory_limit`, or let the job use less memory";
            }
            ExitCause::OutOfMemory => {
                return "let the job use less memory: a limit of this program (`ulimit -v`, `ulimit -d`) was reached, or \
                        the system has none left";
            }
            ExitCause::StackOverflow => {
                return "raise `WorkerConfig::stack_size`, or let the job recurse less deeply";
            }
            _ => {}
        }
        if let Some(elsewhere) = &self.elsewhere {
            if elsewhere.is_lost {
                return "its launcher, the network or its machine has failed: see what the launcher wrote to standard \
                        error; a job that may run twice can be called again";
            }
            if elsewhere.stopped_by.is_some() {
                return "the engine that runs it has ended its time or was told to cancel it: a job that may run twice \
                        can be called again";
            }
        }
        match self.ended {
            Ended::Exited(_) => {
                "a job has to return, and so have retire closures: find what in them ends the process"
            }
            Ended::Unknown => "let nothing in this program wait for children that it did not start",
            Ended::Signalled { core: true, .. } => "open the core dump in a debugger",
            Ended::Signalled { signal, .. } => match (signal, &self.stderr) {
                (libc::SIGKILL, _) => {
                    "unless somebody sent that, the system was short of memory or a limit was reached: see the kernel's log"
                }
                (libc::SIGXCPU, _) => {
                    "it had used up its CPU time, threads that an `init` closure has left included: raise that limit or \
                     do less in one job"
                }
                (libc::SIGALRM | libc::SIGVTALRM | libc::SIGPROF, _) => {
                    "a timer has expired, which this job or an earlier one had set (`alarm`, `setitimer`, `timer_create`)"
                }
                (libc::SIGXFSZ, _) => "a file had grown too large: raise that limit or write less",
                (_, None) if cause == ExitCause::Crashed => {
                    "to learn more, set `WorkerConfig::capture_stderr`, which keeps its last words, or allow core dumps"
                }
                (_, Some(_)) if cause == ExitCause::Crashed => "to learn more, allow core dumps",
                _ => {
                    "find out who sends that signal to it: another process, or a timer that an earlier job has left"
                }
            },
        }
    }

    /// Returns the last lines of the captured standard error for an error message. Frames of
    /// backtraces are left out, because Rust prints the message of a panic or a failed allocation
    /// before them.
    pub(in crate::worker) fn last_lines(&self) -> String {
        let text = self.stderr_tail().unwrap_or_default().trim_end();
        let mut lines: Vec<&str> = text.lines().filter(|line| !is_frame(line)).collect();
        if lines.is_empty() {
            lines.extend(text.lines());
        }
        lines[lines.len().saturating_sub(STDERR_LINES_SHOWN)..].join("\n")
    }
}

impl WorkerExit {
    /// Writes what is special about an end elsewhere. Returns `false` if nothing is.
    fn write_end_elsewhere(&self, f: &mut fmt::Formatter<'_>) -> Result<bool, fmt::Error> {
        match &self.elsewhere {
            Some(Elsewhere { is_lost: true, .. }) => f.write_str(
                "has ended, because the connection to it was lost and its lease is over",
            )?,
            Some(Elsewhere {
                stopped_by: Some(signal),
                ..
            }) => match signal_name(*signal) {
                Some(name) => write!(
                    f,
                    "was ended, as its engine sent {name} to the process that guards it"
                )?,
                None => write!(
                    f,
                    "was ended, as its engine sent signal {signal} to the process that guards it"
                )?,
            },
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Returns whether a line belongs to a frame of a backtrace: "  12: core::panicking::panic", or "
/// at src/main.rs:3:5" below it.
fn is_frame(line: &str) -> bool {
    let words = line.trim_start();
    let (number, name) = words.split_once(": ").unwrap_or(("", ""));
    let is_numbered = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    words.len() < line.len() && (is_numbered && !name.is_empty() || words.starts_with("at "))
}

impl fmt::Debug for WorkerExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerExit")
            .field("pid", &self.pid)
            .field("ended", &self.ended)
            .field("cause", &self.cause())
            .field("stderr_tail", &self.stderr)
            .finish()
    }
}

/// Continues a sentence that begins with "the worker": "exited with code 3 (process 4711)".
impl fmt::Display for WorkerExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ended {
            Ended::Unknown | Ended::Signalled { .. } if self.write_end_elsewhere(f)? => {}
            Ended::Exited(code) => write!(f, "exited with code {code}")?,
            Ended::Unknown => {
                f.write_str("ended, how only what else in this program waits for children knows")?
            }
            Ended::Signalled { signal, core } => {
                let limits = &self.circumstances.limits;
                match (self.cause(), limits) {
                    (
                        ExitCause::OutOfMemory,
                        ExitLimits {
                            memory: Some(memory),
                            ..
                        },
                    ) => {
                        let megabytes = *memory as f64 / f64::from(1 << 20);
                        write!(
                            f,
                            "ran out of memory (its limit is {megabytes:.1} MiB) and "
                        )?;
                    }
                    (ExitCause::OutOfMemory, _) => f.write_str("ran out of memory and ")?,
                    (
                        ExitCause::StackOverflow,
                        ExitLimits {
                            stack: Some(stack), ..
                        },
                    ) => {
                        write!(
                            f,
                            "overflowed its stack (the jobs' one has {stack} bytes) and "
                        )?;
                    }
                    (ExitCause::StackOverflow, _) => f.write_str("overflowed its stack and ")?,
                    (
                        ExitCause::CpuLimit,
                        ExitLimits {
                            cpu_time: Some(limit),
                            ..
                        },
                    ) => {
                        write!(f, "used up its CPU time (its limit is {limit:?}) and ")?;
                    }
                    _ => {}
                }
                match signal_name(signal) {
                    Some(name) => write!(f, "was killed by {name}")?,
                    None => write!(f, "was killed by signal {signal}")?,
                }
                if core {
                    f.write_str(" and dumped core")?;
                }
            }
        }
        write!(f, " (process {}", self.pid)?;
        if let Some(Elsewhere { host, step, .. }) = &self.elsewhere {
            write!(f, " on {host}")?;
            if let Some(step) = step {
                write!(f, ", step {step}")?;
            }
        }
        f.write_str(")")
    }
}

/// Returns the name of a standard signal. Linux uses the same numbers on x86-64 and aarch64.
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
    fn the_last_ten_lines_are_for_reading_and_the_rest_is_kept() {
        let all: String = (1..=12).map(|n| format!("line {n}\n")).collect();
        let exit = WorkerExit::new(7, Ended::Exited(1), Some(all.clone()));
        assert_eq!(exit.last_lines().lines().count(), 10);
        assert!(exit.last_lines().starts_with("line 3\n"));
        assert!(exit.last_lines().ends_with("\nline 12"));
        assert_eq!(exit.stderr_tail(), Some(&*all));
        let told = "memory allocation of 7 bytes failed\nstack backtrace:\n";
        let frames = "   0: std::alloc::rust_oom\n             at /rustc/lib.rs:1:1\n".repeat(20);
        let exit = |text: String| WorkerExit::new(7, Ended::Exited(1), Some(text));
        let lines = exit(format!("{told}{frames}note: more\n")).last_lines();
        assert_eq!(lines, format!("{told}note: more"));
        assert_eq!(exit(frames).last_lines().lines().count(), 10);
        for few in [None, Some(""), Some("\n\n")] {
            let exit = WorkerExit::new(7, Ended::Exited(1), few.map(str::to_owned));
            assert_eq!(exit.last_lines(), "");
        }
    }

    #[test]
    fn an_end_elsewhere_names_the_host_the_step_and_what_the_guardian_knows() {
        let elsewhere = |stopped_by, is_lost| Elsewhere {
            host: "n1".into(),
            step: Some("12.3".into()),
            stopped_by,
            is_lost,
        };
        let killed = Ended::Signalled {
            signal: libc::SIGKILL,
            core: false,
        };
        for (ended, stopped_by, is_lost, begin) in [
            (Ended::Exited(3), None, false, "exited with code 3"),
            (killed, None, false, "was killed by SIGKILL"),
            (
                killed,
                Some(libc::SIGTERM),
                false,
                "was ended, as its engine sent SIGTERM",
            ),
            (
                Ended::Unknown,
                None,
                true,
                "has ended, because the connection to it was lost",
            ),
        ] {
            let exit = WorkerExit::new(7, ended, None);
            let exit = exit.elsewhere(Some(elsewhere(stopped_by, is_lost)));
            assert!(exit.to_string().starts_with(begin), "{exit}");
            assert!(
                exit.to_string().ends_with(" (process 7 on n1, step 12.3)"),
                "{exit}"
            );
            assert_eq!(exit.host(), Some("n1"));
            let may_run_again = exit.advice().contains("can be called again");
            assert_eq!(may_run_again, is_lost || stopped_by.is_some());
        }
    }

    #[test]
    fn each_way_to_end_has_its_advice() {
        let advice = |signal, core, stderr: Option<&str>| {
            let ended = Ended::Signalled { signal, core };
            WorkerExit::new(7, ended, stderr.map(str::to_owned)).advice()
        };
        assert!(advice(libc::SIGSEGV, true, None).contains("core dump"));
        assert!(advice(libc::SIGSEGV, false, None).contains("capture_stderr"));
        assert!(!advice(libc::SIGSEGV, false, Some("")).contains("capture_stderr"));
        assert!(advice(libc::SIGKILL, false, None).contains("memory"));
        assert!(advice(libc::SIGXCPU, false, None).contains("CPU time"));
        assert!(advice(libc::SIGXFSZ, false, None).contains("file"));
        assert!(advice(libc::SIGTERM, false, None).contains("who sends"));
        let advice = |ended| WorkerExit::new(7, ended, None).advice();
        assert!(advice(Ended::Exited(0)).contains("return"));
        assert!(advice(Ended::Unknown).contains("wait"));
    }

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
