//! The causes for which a worker process ends.

use std::fmt;
use std::time::Duration;

use crate::sys::fault::Fault;
use crate::sys::process::Ended;

/// The signals by which the kernel ends a faulty program.
const FAULTS: [i32; 7] = [
    libc::SIGSEGV,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
    libc::SIGSYS,
];

/// The cause for which a worker process ended; see
/// [`WorkerExit::cause`](crate::worker::WorkerExit::cause).
///
/// ```
/// assert_eq!(seedbed::worker::ExitCause::StackOverflow.to_string(), "stack overflow");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExitCause {
    /// It exited by itself, with an [exit code](crate::worker::WorkerExit::code): a job called
    /// `std::process::exit`, for example.
    Exited,
    /// An allocation failed: because of the [`memory_limit`](crate::WorkerConfig::memory_limit), or
    /// of another limit, or because the system had no memory left. With musl, a failed allocation
    /// is only recognised if there is no room for a much smaller one either, and is
    /// [`Crashed`](Self::Crashed) otherwise.
    OutOfMemory,
    /// A stack had no room left: that of the thread that runs the jobs, or of a thread of a job.
    StackOverflow,
    /// It had used up its CPU time: the [`cpu_limit`](crate::WorkerConfig::cpu_limit), or a limit
    /// of the process (`ulimit -t`). The signal is SIGXCPU.
    CpuLimit,
    /// It wrote more to a file than a limit (`ulimit -f`) permits. The signal is SIGXFSZ.
    FileSizeLimit,
    /// It crashed: the signal is that of another fault, such as SIGSEGV, SIGBUS, SIGILL or SIGABRT.
    Crashed,
    /// This library killed it: because of a [time limit](crate::worker::RunSync::time_limit), for
    /// example.
    KilledByParent,
    /// A signal that stands for no fault ended it: another process or the job itself sent that, or
    /// the kernel, when the system was short of memory.
    KilledFromOutside,
    /// The cause is not known. Code of this program has reaped the process, for example.
    Unknown,
}

impl fmt::Display for ExitCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exited => "exited by itself",
            Self::OutOfMemory => "out of memory",
            Self::StackOverflow => "stack overflow",
            Self::CpuLimit => "CPU time used up",
            Self::FileSizeLimit => "file too large",
            Self::Crashed => "crashed",
            Self::KilledByParent => "killed by its parent",
            Self::KilledFromOutside => "killed from outside",
            Self::Unknown => "unknown",
        })
    }
}

/// The limits that a worker may have met when it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::worker) struct ExitLimits {
    pub(in crate::worker) memory: Option<u64>,
    pub(in crate::worker) cpu_time: Option<Duration>,
    pub(in crate::worker) stack: Option<usize>,
}

/// The facts about the end of a worker besides its status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Circumstances {
    /// The worker reported this just before.
    pub(super) fault: Option<Fault>,
    /// The parent had sent SIGKILL.
    pub(super) is_killed_by_parent: bool,
    pub(super) limits: ExitLimits,
}

impl Circumstances {
    pub(super) fn cause_of(&self, ended: Ended) -> ExitCause {
        let signal = match ended {
            Ended::Exited(_) => return ExitCause::Exited,
            Ended::Unknown => return ExitCause::Unknown,
            Ended::Signalled { signal, .. } => signal,
        };
        match (signal, self.fault) {
            (libc::SIGKILL, _) if self.is_killed_by_parent => ExitCause::KilledByParent,
            // The second signal of the CPU limit, for a job that has survived the first.
            (libc::SIGKILL, _) if self.limits.cpu_time.is_some() => ExitCause::Unknown,
            (libc::SIGXCPU, _) => ExitCause::CpuLimit,
            (libc::SIGXFSZ, _) => ExitCause::FileSizeLimit,
            (libc::SIGSEGV | libc::SIGBUS | libc::SIGABRT, Some(Fault::StackOverflow)) => {
                ExitCause::StackOverflow
            }
            (libc::SIGSEGV | libc::SIGBUS | libc::SIGABRT, Some(Fault::OutOfMemory)) => {
                ExitCause::OutOfMemory
            }
            _ if FAULTS.contains(&signal) => ExitCause::Crashed,
            _ => ExitCause::KilledFromOutside,
        }
    }
}
