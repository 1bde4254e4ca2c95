//! Worker processes: cached, killable, and never left behind.
//!
//! [`run_sync`] calls a function in another process, where it may block, spin, crash or be killed
//! without harm to this one. A worker process is this program, executed again up to the *hook*
//! ([`init`], which `run`, `#[seedbed::main]` and `#[seedbed::test]` call). A [`WorkerContext`]
//! keeps workers for the next call. [`map_sync`] calls a function with many items. There is a
//! default context for the whole process; [`cache_scope`] opens one for a subtree of tasks, and
//! [`open_worker_context`] an explicit one, each with its [`WorkerConfig`].
//!
//! # What runs twice
//!
//! A worker executes `main` again, with the same arguments and in the same directory, until it
//! reaches the hook. So call the hook first: code before it also runs in every worker, or once more
//! for all that are [forked](WorkerType). In a `#[test]`, the worker executes that one test up to
//! its hook. A worker that calls any other function of this crate before the hook exits, and the
//! call for which it was started returns an error that names the fix. In a worker, standard input
//! is empty. A worker that does not reach the hook in [time](WorkerConfig::start_timeout) is an
//! error.
//!
//! # What can go wrong
//!
//! Each cause has its [`WorkerErrorKind`]. A job runs exactly once, or the call returns an error; a
//! job never runs twice. A worker that exits on its own closes its receiving end before it
//! announces the exit. So a job that it did not receive is known not to have run, and another
//! worker runs it.
//!
//! # Limits
//!
//! A [`WorkerConfig`] limits the resources of each worker ([memory](WorkerConfig::memory_limit),
//! [CPU time per job](WorkerConfig::cpu_limit), [open files](WorkerConfig::open_file_limit),
//! [CPUs](WorkerConfig::cpu_affinity), [niceness](WorkerConfig::nice),
//! [stack](WorkerConfig::stack_size)), sets its [working directory](WorkerConfig::current_dir) and
//! [environment](WorkerConfig::env), and decides whether [processes that jobs
//! start](WorkerConfig::kill_tree) end with it. A job that exceeds a limit breaks its worker and
//! affects no other call. The limits protect against accidents. They are no sandbox for malicious
//! code.
//!
//! # What a call costs
//!
//! Argument and result are encoded, and each travels as one frame. From its second job on, a worker
//! has a *mailbox*: memory that both processes have mapped. A frame of up to 32 KiB goes through it
//! while the receiver spins on it. Then a call takes about a microsecond. A side that spins for
//! some tens of microseconds without success goes to sleep, and the next frame goes through a
//! socket, which wakes it. Waking takes about 70 us between two cores of a virtual machine. Both
//! sides back off after unsuccessful spins. An idle worker uses no CPU.
//!
//! A task that makes many quick calls in a row yields after every 32nd, so that other tasks can
//! run.
//!
//! # Observing workers
//!
//! * **Errors** name the job, the worker, how and after how long it ended, and the end of its
//!   standard error if that is captured: [`WorkerError`].
//! * **Statistics** count workers and calls: [`WorkerContext::statistics`],
//!   [`default_context_statistics`].
//! * **`tracing`** output has the target `seedbed::worker`. It needs no cargo feature, and costs
//!   almost nothing without a subscriber:
//!
//! | when | output |
//! |---|---|
//! | a call runs | a span `call` at DEBUG with `job`, `context`, `worker.pid` and `worker.forked` |
//! | a call ends | in that span, `outcome` (`Done`, `Cancelled`, or the error's kind) and `duration` |
//! | a worker comes up, or does not | an event at DEBUG with `pid` and how long that `took`; at WARN with the `error` |
//! | a worker exits: retired, timed out, or told to | an event at DEBUG with `jobs` and `age` |
//! | a worker is killed | an event with the reason: at DEBUG if its call was cancelled or dropped, else at WARN |
//! | a worker crashes | an event at WARN with `how` |
//! | a fork server comes up, dies or does not answer | an event at DEBUG; at WARN |
//!
//! * **Events of jobs** reach the subscriber of this process with
//!   [`WorkerConfig::forward_tracing`].
//! * **`ps -e`, `top` and `pstree`** show a worker as `PROGRAM-worker` and a fork server as
//!   `PROGRAM-fork`, or with the context's [name](WorkerConfig::name) instead of the program's. `ps
//!   -o pid,ppid,comm,args` also shows the command line, which stays the program's own, because
//!   code before the hook and jobs may read it.
//!
//! # Coming from trio-parallel
//!
//! Names, differences, and the test of each promise: [`guide::from_trio_parallel`].
//!
//! [`guide::from_trio_parallel`]: crate::guide::from_trio_parallel

// ARCHITECTURE.md describes the files. Imports point from `call` to `pool` to `spawn` to `conn`;
// `child` imports none of them.

mod call;
mod channel;
mod child;
mod config;
pub(crate) mod conn;
mod data;
mod end;
pub(crate) mod error;
#[cfg(all(any(test, fuzzing), not(loom)))]
mod fuzzed;
mod name;
pub(crate) mod pool;
mod record;
pub(crate) mod spawn;
mod trace;
mod tuning;

pub use call::{
    FlatRunSync, MapItems, MapIterator, MapOrder, MapOrdered, MapResults, MapSource, MapStream,
    MapSync, MapUnordered, RunSync, RunSyncFuture, current_default_worker_limiter, map_sync,
    run_sync,
};
pub use channel::{
    Receiver, ReceiverIter, RecvError, RecvErrorKind, SendError, SendErrorKind, Sender, channel,
};
pub use child::{CancelledError, cancelled, check_cancelled};
pub use config::{Launcher, WorkerConfig, WorkerType};
pub use data::{Argument, ClosureData, JobResult, OwnedData};
pub use pool::context::WorkerContext;
pub use pool::current::{
    cache_scope, configure_default_context, default_context_statistics, open_worker_context,
};
pub use pool::statistics::WorkerStatistics;

pub use crate::transport::described::Described;
pub use crate::transport::job::status::WorkerStatus;
pub use crate::transport::payload::{Descriptor, SharedBytes, SharedBytesWriter, SharedSlice};
pub use crate::transport::traced::TracingLevel;
pub use crate::worker::error::{
    ExitCause, RemoteError, RemoteErrorSource, WorkerError, WorkerErrorKind, WorkerExit,
    WorkerPanic,
};

pub(crate) use call::{Answer, EncodeArgument, UntypedCall, waits_of};
pub(crate) use child::cancel_request as job_requests;
pub(crate) use conn::spin_poller::{forget, glance, look, turn};
pub(crate) use pool::context_set::ContextSet;
pub(crate) use pool::current::shutdown_default;
pub(crate) use spawn::hook::hook;

#[cfg(fuzzing)]
#[doc(hidden)]
pub use fuzzed::{read_frames, use_forged_ring};

/// Marks the place where workers start to serve. In a worker process, serves jobs and never
/// returns; in any other process, returns at once.
///
/// `run`, `#[seedbed::main]` and `#[seedbed::test]` call it. Call it yourself, first thing in
/// `main` or in a `#[test]`, if you enter in another way, such as `smol::block_on`. **Code before
/// it in `main` runs again** in each worker, or once for all that are [forked](WorkerType). Start
/// no threads before it: in a worker they would run on, so no worker is started then, and calls
/// fail with [`WorkerErrorKind::Start`]. In a worker, standard input is empty.
///
/// The first call keeps a descriptor of the working directory, in which workers execute `main`.
///
/// # Examples
///
/// ```
/// fn main() {
///     seedbed::init();
///     let shouted = smol::block_on(async { seedbed::run_sync(shout, "hello".to_owned()).await });
///     assert_eq!(shouted.unwrap(), "HELLO");
/// }
///
/// fn shout(word: String) -> String {
///     word.to_uppercase()
/// }
/// ```
pub fn init() {
    hook();
}
