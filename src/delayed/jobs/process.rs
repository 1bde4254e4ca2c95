//! A program as a job.

use std::collections::BTreeSet;
use std::process::Output;
use std::sync::{Arc, Mutex, OnceLock};

use super::handle::Jobs;
use super::options::Options;
use super::record::Record;
use super::ticket::Ticket;
use crate::cancel::shield;
use crate::delayed::error::JobError;
use crate::delayed::value::Delayed;
use crate::delayed::value::promise::pending;
use crate::process::RunProcess;
use crate::sys::primitives::lock;
use crate::time::current_time;

impl Jobs<'_> {
    /// Submits a program, which is run when the job's resources are free: a
    /// [`Command`](crate::process::Command), or a [`run_process`](crate::process::run_process) call
    /// whose settings differ from the defaults.
    ///
    /// The process is restricted to the cores of its allocation, and each process of its tree to
    /// the memory. It ends with its tree, as with [`kill_tree`](RunProcess::kill_tree) and
    /// [`die_with_parent`](RunProcess::die_with_parent): when it is cancelled or has reached the
    /// [time limit](Self::time_limit), by SIGTERM and then by SIGKILL. Of each captured output, at
    /// most [`capture_limit`](RunProcess::capture_limit) bytes are kept. A program that needs other
    /// resources to be named on its command line is run by a future that asks
    /// [`allocation`](crate::delayed::allocation()): `jobs.on(Units("gpus", 1)).spawn(async {
    /// run_process(..).await })`.
    ///
    /// A process that fails is not run again, because a command can be used once; so
    /// [`retry`](Self::retry) does not apply. An error is of the kind
    /// [`TimedOut`](crate::delayed::JobErrorKind::TimedOut) or
    /// [`Failed`](crate::delayed::JobErrorKind::Failed), and
    /// [`JobError::process`](crate::delayed::JobError::process) has the details.
    ///
    /// # Cancellation
    ///
    /// Cancelling the block ends the process, and the block waits until it has ended. With
    /// [`kill_on_cancel(false)`](Self::kill_on_cancel), the block waits for the process's own end.
    /// If the block's future is dropped, the process tree is killed, and reaped in the background.
    ///
    /// # Panics
    ///
    /// If the block has ended. The block panics if an input or output is `Stdio::piped()`; see
    /// [`run_process`](crate::process::run_process).
    ///
    /// ```
    /// use seedbed::delayed::{Cores, Memory, Resources, open};
    /// use seedbed::process::{Command, run_process};
    ///
    /// fn main() {
    ///     seedbed::run(open(Resources::local(), async |jobs| {
    ///         let one = jobs.on(Cores(1) & Memory::mib(100));
    ///         let count = run_process(Command::new("nproc")).capture_stdout(true);
    ///         assert_eq!(one.run_process(count).await.unwrap().stdout, b"1\n");
    ///     }));
    /// }
    /// ```
    #[track_caller]
    pub fn run_process(&self, process: impl Into<RunProcess>) -> Delayed<Output> {
        let process = process.into();
        let name = kept_name(process.program());
        let (promise, value) = pending(name);
        let mut record = self.record(promise.job(), name);
        match self.enqueue(promise.job(), name, &self.demand(&self.options.of_call)) {
            Err(error) => promise.settle_job(record.fail(error)),
            Ok(ticket) => {
                let options = self.options.clone();
                self.spawner.spawn(async move {
                    let result = run(process, ticket, &options, &mut record).await;
                    promise.settle_job(record.end(result));
                });
            }
        }
        value
    }
}

/// Waits for the resources of a process, and runs it to its end.
async fn run(
    process: RunProcess,
    ticket: Option<Ticket>,
    options: &Options,
    record: &mut Record,
) -> Result<Output, JobError> {
    let cpu_times = Arc::new(OnceLock::new());
    let mut process = process
        .kill_tree(true)
        .die_with_parent(true)
        .measured(cpu_times.clone());
    // Held until the process has ended.
    let grant = record.begin(ticket).await?;
    if let Some(grant) = &grant {
        let cores = grant.allocation.cores();
        if !cores.is_empty() {
            process = process.cpu_affinity(cores);
        }
        if let Some(bytes) = grant.allocation.memory() {
            process = process.memory_limit(bytes);
        }
    }
    if let Some(limit) = options.time_limit_now() {
        process = process.at_most_for(limit);
    }
    let name = record.name();
    let cost = &mut record.cost;
    cost.attempts = 1;
    let begun = current_time();
    let result = if options.kill_on_cancel {
        process.await
    } else {
        shield(process).await
    };
    cost.wall = current_time().saturating_duration_since(begun);
    if let Some(times) = cpu_times.get() {
        (cost.cpu_user, cost.cpu_system) = (times.user, times.system);
    }
    result.map_err(|error| JobError::of_process(name, error))
}

/// Returns a copy of a program's name that stays forever, like the names of functions. Each name is
/// kept once.
fn kept_name(program: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = lock(&NAMES);
    if let Some(kept) = names.get(program) {
        return kept;
    }
    let kept = program.to_owned().leak();
    names.insert(kept);
    kept
}
