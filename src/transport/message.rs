//! The payloads of frames that have several fields.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::job::image::Fingerprint;
use super::job::panic_report::PanicReport;
use super::traced::TracingLevel;

/// The content of the prelude: the descriptors that are attached to it, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prelude {
    /// The standard output, for a worker that has another one up to the hook.
    pub(crate) stdout: bool,
    /// The working directory, for a worker that has another one up to the hook.
    pub(crate) directory: bool,
}

impl Prelude {
    /// Returns the number that stands for this content in the header.
    pub(crate) fn to_number(self) -> u64 {
        u64::from(self.stdout) | u64::from(self.directory) << 1
    }

    /// Returns the content, or `None` for a number of another version of the protocol.
    pub(crate) fn from_number(number: u64) -> Option<Self> {
        (number <= 3).then_some(Self {
            stdout: number & 1 != 0,
            directory: number & 2 != 0,
        })
    }
}

/// The set-up of a worker, which follows the prelude.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SetUp {
    /// The parent's image. The worker compares it with its own before it calls any code by offset.
    pub(crate) image: Fingerprint,
    /// The task of this process.
    pub(crate) purpose: Purpose,
    /// The name of this process in the process list.
    pub(crate) name: String,
    /// The name of the processes that it forks.
    pub(crate) forked_workers: String,
    /// Called in this order before `init`. A fork server calls them before it forks, once for all
    /// its workers.
    pub(crate) preload: Vec<Closure>,
    /// The working directory, set before the preload closures: a path as bytes, since paths need
    /// not be text. The workers of a fork server inherit it.
    pub(crate) current_dir: Option<Vec<u8>>,
    /// Set before `init`.
    pub(crate) limits: Limits,
    /// Whether a forked worker reports that it is ready, and gets no job before.
    pub(crate) forked_workers_report: bool,
    /// Whether jobs are the first code of the program that runs after the hook, and without limits.
    pub(crate) has_only_jobs: bool,
    /// Whether descriptors that were inherited are closed, before the preload closures.
    pub(crate) close_inherited_descriptors: bool,
    /// Whether termination signals have their default actions in workers.
    pub(crate) default_signals: bool,
    /// The level of the `tracing` events that are sent to the parent.
    pub(crate) forward_tracing: Option<TracingLevel>,
    /// How long the worker waits for a job before it exits; `None` is forever.
    pub(crate) idle_timeout: Option<Duration>,
    /// Called in this order before the first job.
    pub(crate) init: Vec<Closure>,
    /// Called after each job. The first that returns true ends the worker.
    pub(crate) retire: Vec<Closure>,
}

/// The task of a new process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Purpose {
    /// It runs jobs.
    Work,
    /// It forks workers.
    Fork,
}

/// The limits and scheduling of a worker. A fork server does not apply them to itself; the workers
/// that it forks do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Bytes of memory.
    pub(crate) memory: Option<u64>,
    /// CPU time for each job.
    pub(crate) cpu_time: Option<Duration>,
    /// Number of descriptors that the worker may open in addition to those at its start.
    pub(crate) open_files: Option<u32>,
    pub(crate) nice: Option<i32>,
    /// The adjustment of the OOM killer's score; `None` for the default.
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) cpus: Option<Vec<usize>>,
    /// Bytes of stack; `None` for the thread's own stack.
    pub(crate) stack: Option<usize>,
    /// Whether the worker leads a process group of its own.
    pub(crate) own_group: bool,
}

/// A closure of the configuration: the offset of its code, and its encoded data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Closure {
    pub(crate) code: u64,
    pub(crate) data: Vec<u8>,
}

/// The reason why a new worker cannot serve.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum InitFailed {
    /// A preload or init closure panicked.
    Panicked(PanicReport),
    /// The data of a closure could not be decoded.
    BadData(String),
    /// The code of a closure does not lie in this image.
    NotOurCode,
    /// A setting could not be applied.
    Refused(Refusal),
}

/// A setting that could not be applied.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// The setting as it is written in the program: `nice(-5)`.
    pub(crate) setting: String,
    /// The error of the kernel, if the kernel refused.
    pub(crate) os_error: Option<i32>,
    /// The reason, or advice.
    pub(crate) words: String,
}

#[cfg(test)]
mod tests {
    use super::Prelude;

    #[test]
    fn a_prelude_reads_back_as_it_was_written() {
        for number in 0..4 {
            let prelude = Prelude::from_number(number).unwrap();
            assert_eq!(prelude.to_number(), number);
        }
        assert_eq!(Prelude::from_number(4), None);
    }
}
