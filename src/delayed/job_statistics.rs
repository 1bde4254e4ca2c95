//! The cost of a job.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The cost of a job; returned by [`Delayed::statistics`](crate::delayed::Delayed::statistics).
///
/// A future of [`Jobs::spawn`](crate::delayed::Jobs::spawn) has no worker: its processor time and
/// memory are those of this process, and are not counted here. The processor time of a program of
/// [`Jobs::run_process`](crate::delayed::Jobs::run_process) is that of its process and of the
/// processes that this one has waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobStatistics {
    /// How long the job has waited for its resources.
    pub queued: Duration,
    /// How many times the job was begun; 0 if an earlier run has
    /// [kept](crate::delayed::Jobs::cached) its value.
    pub attempts: u32,
    /// How long the last attempt took. In a worker, that is the time in the job's function.
    pub wall: Duration,
    /// The processor time that the last attempt has used in user mode, if it has ended by itself:
    /// of all threads of the worker, and of the processes that the job has waited for.
    pub cpu_user: Duration,
    /// The processor time of the same threads and processes in system calls.
    pub cpu_system: Duration,
    /// The greatest number of bytes that the worker has had in physical memory during the last
    /// attempt. `None` if the job did not ask for [`Memory`](crate::delayed::Memory), or did not
    /// end by itself.
    pub peak_memory: Option<u64>,
    /// The process id of the worker of the last attempt. `None` if that did not end by itself.
    pub worker_pid: Option<u32>,
}

impl JobStatistics {
    /// Adds another job: its times and attempts. Keeps the greater of both peaks.
    pub(super) fn add(&mut self, other: &Self) {
        self.queued = self.queued.saturating_add(other.queued);
        self.attempts = self.attempts.saturating_add(other.attempts);
        self.wall = self.wall.saturating_add(other.wall);
        self.cpu_user = self.cpu_user.saturating_add(other.cpu_user);
        self.cpu_system = self.cpu_system.saturating_add(other.cpu_system);
        self.peak_memory = self.peak_memory.max(other.peak_memory);
        self.worker_pid = None;
    }
}
