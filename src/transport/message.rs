//! The payloads of the frames that are more than bytes or words.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::job::image::Fingerprint;
use super::job::panic_report::PanicReport;
use crate::sys::mapping::Segment;

/// The first thing that a worker is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SetUp {
    /// What image the parent is, which the worker compares before it calls any offset.
    pub(crate) image: Fingerprint,
    /// What is expected of this process.
    pub(crate) purpose: Purpose,
    /// What the process is to call itself, for those who look at the process list.
    pub(crate) name: String,
    /// The same for what it forks.
    pub(crate) copies: String,
    /// To be called in this order before `init`, and in a fork server before it forks: once for all that come of it.
    pub(crate) preload: Vec<Closure>,
    /// Where to go before that: a path as bytes, since paths need not be text. A fork server's copies are there
    /// already.
    pub(crate) current_dir: Option<Vec<u8>>,
    /// What a worker is to submit to before `init`.
    pub(crate) limits: Limits,
    /// Where a fork server is to tell of its workers, if that came in no descriptor beside this.
    pub(crate) table: Option<Segment>,
    /// Whether what is forked says that it is ready, before which it gets no job.
    pub(crate) copies_report: bool,
    /// How long to wait for a job before leaving; `None` for ever.
    pub(crate) idle_timeout: Option<Duration>,
    /// To be called in this order before the first job.
    pub(crate) init: Vec<Closure>,
    /// To be asked after each job; the first that says so ends the worker.
    pub(crate) retire: Vec<Closure>,
}

/// What a new process is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Purpose {
    /// To run jobs.
    Work,
    /// To fork workers.
    Fork,
}

/// What a worker is held to. A fork server is held to nothing of it itself, and hands it on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// In bytes.
    pub(crate) memory: Option<u64>,
    /// For each job.
    pub(crate) cpu_time: Option<Duration>,
    /// How many more descriptors it may have than it has when it comes up.
    pub(crate) open_files: Option<u32>,
    pub(crate) nice: Option<i32>,
    pub(crate) cpus: Option<Vec<usize>>,
    /// In bytes; `None` for the thread's own stack.
    pub(crate) stack: Option<usize>,
    /// To lead a process group of its own.
    pub(crate) own_group: bool,
}

/// A closure of the configuration: the offset of its code, and its encoded data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Closure {
    pub(crate) code: u64,
    pub(crate) data: Vec<u8>,
}

/// Why a new worker cannot serve.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum InitFailed {
    /// A preload or init closure panicked.
    Panicked(PanicReport),
    /// The data of a closure could not be decoded.
    BadData(String),
    /// The code of a closure does not lie in this image.
    NotOurCode,
    /// A setting could not be carried out.
    Refused(Refusal),
}

/// What became of a setting that could not be carried out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// As it stands in the program: `nice(-5)`.
    pub(crate) setting: String,
    /// The kernel's reason, if it was the kernel that refused.
    pub(crate) os_error: Option<i32>,
    /// Why, or what to do.
    pub(crate) words: String,
}
