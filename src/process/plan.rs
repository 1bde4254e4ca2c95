//! The settings of a `run_process` call.

use std::future::Future;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::handle::Process;

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
