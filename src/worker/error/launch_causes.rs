//! The constructors of [`WorkerError`] for workers that a launcher does not start, with their
//! messages.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::worker_error::{WorkerError, WorkerErrorKind};
use crate::transport::job::image::Fingerprint;
use crate::transport::relay::packet::Hello;

/// How a launching program has ended that brought no worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum LaunchEnd {
    Exited(i32),
    Signalled(i32),
    /// It has closed its output and has not ended, or nothing is known.
    Unknown,
}

impl WorkerError {
    /// The launcher has ended, or closed its output, before there was a worker.
    pub(in crate::worker) fn launch_failed(
        launcher: &dyn fmt::Display,
        end: LaunchEnd,
        noise: &str,
    ) -> Self {
        let end_and_remedy = match end {
            LaunchEnd::Exited(126 | 127) => format!(
                "ended with {end}: a program was not found there, or cannot be executed. Is this program there, under \
                 the same path? `Launcher::executable` sets another"
            ),
            LaunchEnd::Exited(255) => format!(
                "ended with {end}: this is how `ssh` says that it has no connection; or the program there was killed"
            ),
            _ => format!("ended with {end} before this program had reached seedbed's hook there"),
        };
        Self::new(
            WorkerErrorKind::Start,
            format!(
                "the worker process could not be started: the launcher `{launcher}` {end_and_remedy}. What it wrote to \
                 standard error says more{}",
                quoted(noise)
            ),
        )
    }

    pub(in crate::worker) fn launch_too_slow(
        launcher: &dyn fmt::Display,
        limit: Duration,
        noise: &str,
    ) -> Self {
        Self::new(
            WorkerErrorKind::Start,
            format!(
                "the worker process that the launcher `{launcher}` was to start had not reached seedbed's hook after \
                 {limit:?}, and was given up: the connection is slow, the launcher asks for a password, or the program \
                 waits before the hook. `WorkerConfig::start_timeout` allows more time, and `Launcher::with_queue` as much \
                 as it takes{}",
                quoted(noise)
            ),
        )
    }

    pub(in crate::worker) fn launch_malformed(launcher: &dyn fmt::Display) -> Self {
        Self::new(
            WorkerErrorKind::Protocol,
            format!(
                "what the launcher `{launcher}` has started speaks another version of seedbed's protocol"
            ),
        )
    }

    /// The start was cancelled, so no one sees this.
    pub(in crate::worker) fn launch_cancelled() -> Self {
        Self::new(
            WorkerErrorKind::Start,
            "the start of the worker process was cancelled",
        )
    }

    /// The connection was lost when the guardian had been told to start the worker.
    pub(in crate::worker) fn launch_lost(launcher: &dyn fmt::Display) -> Self {
        Self::new(
            WorkerErrorKind::Start,
            format!(
                "the worker process could not be started: the connection through the launcher `{launcher}` was lost \
                 meanwhile. The lease is over, so nothing of it is left there. What the launcher wrote to standard error \
                 says more"
            ),
        )
    }

    pub(in crate::worker) fn not_started_elsewhere(hello: &Hello, why: &str) -> Self {
        Self::new(
            WorkerErrorKind::Start,
            format!(
                "the worker process could not be started on {}: {why}",
                hello.host
            ),
        )
    }

    pub(in crate::worker) fn image_mismatch_elsewhere(
        path: &Path,
        ours: &Fingerprint,
        hello: &Hello,
    ) -> Self {
        let (path, theirs, host) = (path.display(), &hello.path, &hello.host);
        Self::new(
            WorkerErrorKind::ImageMismatch,
            format!(
                "the program `{theirs}` on {host} is another build ({}) than this program, `{path}` ({ours}), so nothing \
                 was called in it: copy this program there, or let `Launcher::executable` name one that is the same",
                hello.image
            ),
        )
    }
}

fn quoted(noise: &str) -> String {
    match noise {
        "" => String::new(),
        noise => format!("; to standard output it wrote: {noise:?}"),
    }
}

impl fmt::Display for LaunchEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "status {code}"),
            Self::Signalled(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("an unknown status"),
        }
    }
}
