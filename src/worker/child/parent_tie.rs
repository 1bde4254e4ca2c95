//! The tie of a worker to its parent: the kernel ends the worker when its parent ends.

use std::io;

use rustix::process::getppid;

use super::tuning::EXIT_FAILED;
use crate::sys::{process_group, signal};

/// How this process ends with its parent.
#[derive(Clone, Copy, Debug)]
pub(super) struct ParentTie {
    /// The parent's process id, as the parent sees it.
    parent: u32,
    /// This process leads a group, which ends too.
    with_group: bool,
}

impl ParentTie {
    /// A tie that does not hold before it is set.
    pub(super) fn new(parent: u32) -> Self {
        Self {
            parent,
            with_group: false,
        }
    }

    /// Includes the group that this process leads.
    pub(super) fn include_group(&mut self) {
        self.with_group = true;
    }

    /// Ties this process to its parent, or does so again: the kernel removes the tie when a process
    /// changes its user, as closures and jobs may do, and a forked worker does not inherit it. It
    /// has no effect if the parent has ended already.
    pub(super) fn set(&self) -> io::Result<()> {
        if self.with_group {
            process_group::end_with_parent()
        } else {
            signal::set_parent_death_signal(libc::SIGKILL)
        }
    }

    /// Exits if the parent has ended.
    pub(super) fn exit_if_orphaned(&self) {
        let now = getppid().map_or(0, |now| now.as_raw_nonzero().get().cast_unsigned());
        // 0 stands for a parent outside of the pid namespace of this process. Another number means
        // that the parent has ended.
        if now != self.parent && now != 0 {
            std::process::exit(EXIT_FAILED);
        }
    }
}
