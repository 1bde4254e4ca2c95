//! `ExecSpec`: how to execute this program so that it reaches a hook.

use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::worker::child::Stdout;

/// How to execute this program so that it reaches the same hook.
#[derive(Debug)]
pub(crate) struct ExecSpec {
    /// Argument zero, which the program may look at.
    pub(in crate::worker) argument_zero: OsString,
    pub(in crate::worker) arguments: Vec<OsString>,
    pub(in crate::worker) stdout: Stdout,
    /// A fork server that was executed so had several threads at the hook, so no other need be
    /// tried.
    is_multithreaded: AtomicBool,
}

impl ExecSpec {
    pub(in crate::worker) fn new(arguments: Vec<OsString>, stdout: Stdout) -> Self {
        ExecSpec {
            argument_zero: std::env::args_os().next().unwrap_or_default(),
            arguments,
            stdout,
            is_multithreaded: AtomicBool::new(false),
        }
    }

    pub(in crate::worker) fn leads_to_same_hook_as(&self, other: &ExecSpec) -> bool {
        (&self.argument_zero, &self.arguments, self.stdout)
            == (&other.argument_zero, &other.arguments, other.stdout)
    }

    /// Whether the program is known to have several threads when it reaches the hook, so that it
    /// cannot fork there.
    pub(in crate::worker) fn is_multithreaded(&self) -> bool {
        self.is_multithreaded.load(Ordering::Relaxed)
    }

    pub(in crate::worker) fn mark_multithreaded(&self) {
        self.is_multithreaded.store(true, Ordering::Relaxed);
    }
}
