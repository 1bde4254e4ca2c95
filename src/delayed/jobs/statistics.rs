//! The statistics of a block of jobs.

use std::fmt;

use crate::delayed::job_statistics::JobStatistics;
use crate::resource::Amount;

/// The statistics of a block of jobs; returned by
/// [`Jobs::statistics`](crate::delayed::Jobs::statistics).
///
/// Each job counts as `submitted`, and when it has ended also as `succeeded`, `failed`, `cancelled`
/// or `cached`. A job that is refused, at once or when it enters the queue, has failed. Before it
/// ends, a job counts as `queued` or `running`, or as neither: while it waits for its argument or
/// for a kept value, and if it asks for nothing.
///
/// `Display` writes one line, which says what the head of the queue waits for. The alternate form,
/// `{:#}`, adds a table of the resources and of what the ended jobs have cost.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// The number of all jobs so far.
    pub submitted: usize,
    /// The number of jobs that wait for their resources.
    pub queued: usize,
    /// The number of jobs that have their resources.
    pub running: usize,
    /// The number of jobs that have ended with a value.
    pub succeeded: usize,
    /// The number of jobs that have ended with an error, or were refused.
    pub failed: usize,
    /// The number of jobs that were cancelled before they had a result.
    pub cancelled: usize,
    /// The number of jobs whose value an earlier run has [kept](crate::delayed::Jobs::cached). They
    /// do not count as succeeded.
    pub cached: usize,
    /// The sums over the jobs that have ended. `peak_memory` is the greatest of them.
    pub total: JobStatistics,
    /// The resources of the block, in the order of their names.
    pub resources: Vec<ResourceStatistics>,
    /// The name of the first job in the queue, what it waits for, and which jobs have that.
    pub head: Option<String>,
}

/// The free and the total amount of a resource; returned by
/// [`Jobs::statistics`](crate::delayed::Jobs::statistics).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResourceStatistics {
    /// The name of the resource.
    pub name: String,
    /// How much of it no job has.
    pub free: Amount,
    /// How much of it there is.
    pub total: Amount,
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} running, {} queued", self.running, self.queued)?;
        if let Some(head) = &self.head {
            write!(f, "; {head}")?;
        }
        if !f.alternate() {
            return Ok(());
        }
        let mut row = |name: &str, value: fmt::Arguments<'_>| write!(f, "\n{name:<16} {value}");
        for ResourceStatistics { name, free, total } in &self.resources {
            let free = format!("{free} of {total}");
            row(name, format_args!("{free:>12} free"))?;
        }
        row("succeeded", format_args!("{:>12}", self.succeeded))?;
        row("failed", format_args!("{:>12}", self.failed))?;
        row("cancelled", format_args!("{:>12}", self.cancelled))?;
        if self.cached > 0 {
            row("from the cache", format_args!("{:>12}", self.cached))?;
        }
        let total = &self.total;
        row("attempts", format_args!("{:>12}", total.attempts))?;
        let times = [
            ("queued", total.queued),
            ("wall", total.wall),
            ("cpu, user", total.cpu_user),
            ("cpu, system", total.cpu_system),
        ];
        for (name, time) in times {
            row(name, format_args!("{:>10.3} s", time.as_secs_f64()))?;
        }
        match total.peak_memory {
            Some(bytes) => {
                let mebibytes = bytes as f64 / f64::from(1 << 20);
                row("peak memory", format_args!("{mebibytes:>8.1} MiB"))
            }
            None => Ok(()),
        }
    }
}
