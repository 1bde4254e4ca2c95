//! The settings of a `run_process` call.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::thread::CpuSet;

use super::handle::Process;
use crate::sys::usage::CpuTimes;

/// The settings of a process that has not been started yet.
pub(super) struct Plan {
    pub(super) program: String,
    pub(super) command: Command,
    pub(super) stdin: Source,
    pub(super) stdout: Sink,
    pub(super) stderr: Sink,
    pub(super) check: bool,
    pub(super) kill_after: Duration,
    pub(super) time_limit: Option<Duration>,
    /// How long its pipes may stay open after it has ended.
    pub(super) drain_for: Duration,
    /// The bytes of one captured output.
    pub(super) capture_limit: usize,
    pub(super) kill_tree: bool,
    pub(super) die_with_parent: bool,
    /// The processors that it may run on.
    pub(super) cpus: Option<Vec<usize>>,
    /// The bytes of private memory that it may have.
    pub(super) memory_limit: Option<u64>,
    /// Where the processor time is stored that it has used.
    pub(super) cpu_times: Option<Arc<OnceLock<CpuTimes>>>,
    pub(super) deliver_cancel: Option<DeliverCancel>,
}

pub(super) type Cancelling = Pin<Box<dyn Future<Output = ()> + Send>>;
pub(super) type DeliverCancel = Box<dyn FnOnce(Process) -> Cancelling + Send>;

/// Where a process reads its standard input from.
pub(super) enum Source {
    Bytes(Vec<u8>),
    Given(Stdio),
}

/// Where one output of a process goes.
pub(super) enum Sink {
    Inherited,
    Captured,
    Given(Stdio),
    /// Standard error only.
    ToStdout,
}

impl Sink {
    pub(super) fn captured_if(capture: bool) -> Self {
        if capture {
            Sink::Captured
        } else {
            Sink::Inherited
        }
    }
}

/// Makes the kernel's form of a set of processors.
///
/// # Errors
///
/// If there is none, or one that cannot exist.
pub(super) fn cpu_set(cpus: &[usize]) -> io::Result<CpuSet> {
    let refuse = |words: String| {
        let text = format!("cpu_affinity({cpus:?}): {words}");
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    };
    if cpus.is_empty() {
        return refuse("a process needs a CPU to run on; name one".into());
    }
    if cpus.iter().any(|&cpu| cpu >= CpuSet::MAX_CPU) {
        return refuse(format!(
            "CPUs are numbered from 0 to {}",
            CpuSet::MAX_CPU - 1
        ));
    }
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu);
    }
    Ok(set)
}
