//! Worker processes: cached, killable, and never left behind.
//!
//! [`run_sync`] calls a function in another process, where it may block, spin, crash or be killed without harm to this
//! one. The processes are this program, executed again up to the *hook* ([`init`], or one of the ways of entering that
//! call it), and are kept for the next call in a [`WorkerContext`]: the process-wide default one, one for a subtree of
//! tasks ([`cache_scope`]), or an explicit one ([`open_worker_context`]), each with its [`WorkerConfig`].
//!
//! # What runs twice
//!
//! A worker comes up by executing `main` again, with the same arguments and environment, until it reaches the hook. So
//! call the hook first: whatever stands before it happens in every worker too, or once more for all that are
//! [forked](WorkerType). In a `#[test]`, the worker executes that one test up to its hook. A worker that gets to any other call of this crate first exits, and the call for which it was
//! started returns an error that names the fix. Standard input is how a new worker finds its parent; do not read or replace
//! it before the hook.
//!
//! # What can go wrong
//!
//! Each cause has its [`WorkerErrorKind`]. A job is run exactly once, or there is an error; it is never run twice. A
//! worker that leaves, be it idle for too long or retired, closes its receiving end before it says so, hence a job that
//! meets it on its way out is known not to have run and goes to another worker unnoticed.
//!
//! # Limits
//!
//! A [`WorkerConfig`] says what each worker may use ([memory](WorkerConfig::memory_limit), [CPU time for a
//! job](WorkerConfig::cpu_limit), [open files](WorkerConfig::open_file_limit), [CPUs](WorkerConfig::cpu_affinity) and
//! [how nicely](WorkerConfig::nice), [stack](WorkerConfig::stack_size)), where it finds itself ([working
//! directory](WorkerConfig::current_dir), [environment](WorkerConfig::env)), and whether [what its jobs
//! start](WorkerConfig::kill_tree) ends with it. A job that breaks a limit breaks its worker, and no other call
//! notices. The kernel enforces this for what goes wrong; it is no sandbox for code that is out to do harm.
//!
//! # What a call costs
//!
//! Argument and result are encoded, and travel as one frame each. From its second job on a worker has a *mailbox*: memory
//! that both processes have mapped, where small frames (up to 32 KiB) lie while the other side is awake and looks. Then
//! a call takes about a microsecond. A side that finds nothing for some tens of microseconds goes to sleep; then frames
//! go through a socket, which wakes it, and that takes as long as waking takes: some 70 us between two cores of a
//! virtual machine. Both sides learn from looking in vain, give the processor to whoever wants it meanwhile, and an
//! idle worker uses none.
//!
//! A task that makes one quick call after the other may have each answer without a wait; every 32nd call waits all the
//! same, so that other tasks have their turns.
//!
//! # What can be seen
//!
//! * **Errors** tell which job in which worker, how that ended, after how long, and its last words, if they are captured:
//!   [`WorkerError`].
//! * **Statistics** count what workers and calls have come to: [`WorkerContext::statistics`],
//!   [`default_context_statistics`].
//! * **`tracing`**, with the target `seedbed::worker`, needs no cargo feature, and costs next to nothing where nobody
//!   listens:
//!
//! | what | becomes |
//! |---|---|
//! | a call | a span `call` at DEBUG with `job`, `context`, `worker.pid` and `worker.forked` |
//! | its end | in that span, `outcome` (`Done`, `Cancelled`, or the error's kind) and `duration` |
//! | a worker comes up, does not come up | an event at DEBUG with `pid` and how long that `took`; at WARN with the `error` |
//! | a worker retires, leaves after its idle timeout or as it was told to | an event at DEBUG with `jobs` and `age` |
//! | a worker is killed | an event that says why: at DEBUG if its call was cancelled or dropped, else at WARN |
//! | a worker crashes | an event at WARN with `how` |
//! | a fork server comes up, dies or does not answer | an event at DEBUG; at WARN |
//!
//! * **`ps -e`, `top` and `pstree`** show a worker as `PROGRAM-worker` and a fork server as `PROGRAM-fork`, or with the
//!   context's
//!   [name](WorkerConfig::name) for the program's. `ps -o pid,ppid,comm,args` shows that beside the command line, which
//!   is left as the program's own: code before the hook may look at it, and so may a job.
//!
//! # Coming from trio-parallel
//!
//! What is called what, what is different, and which test holds each promise: [`guide::from_trio_parallel`].
//!
//! [`guide::from_trio_parallel`]: crate::guide::from_trio_parallel

// The files, from the call downwards: `call` is `run_sync` and what cancellation may interrupt of it; `current` finds
// the context to use; `context` holds the workers and their configuration (`config`), with the choice among idle ones
// in `cache`, those on their way out in `leaving`, and their common end in `farewell`, and the memory of large
// arguments in `arenas`; `attempt` has one job done by one worker; `start` brings a new worker up, launched by `launch`
// in the way that `hook` noted, or made by the context's `fork_server` (`forking`, `births`); `life` is one live
// worker, made of its `process` (looked after in `rounds`) and its `connection`, which goes by its mailbox (`post`)
// where it can, with an eye on it from the run's loop (`lookout`). What has no caller goes on in the `background`.
// `statistics` counts workers and calls, `trace` tells of them, and `name` is what a process is called. `child` is the
// other side: what happens in the worker process itself. It knows none of the others.

mod call;
mod child;
mod config;
pub(crate) mod conn;
mod end;
pub(crate) mod error;
#[cfg(any(test, fuzzing))]
mod fuzzed;
mod name;
pub(crate) mod pool;
mod record;
pub(crate) mod spawn;
mod trace;
mod tuning;

pub use call::{RunSync, RunSyncFuture, current_default_worker_limiter, run_sync};
pub use config::{WorkerConfig, WorkerType};
pub use pool::context::WorkerContext;
pub use pool::current::{
    cache_scope, configure_default_context, default_context_statistics, open_worker_context,
};
pub use pool::statistics::WorkerStatistics;

pub use crate::transport::job::status::WorkerStatus;
pub use crate::transport::payload::shared::{SharedBytesWriter, SharedSlice};
pub use crate::worker::error::{WorkerError, WorkerErrorKind, WorkerExit, WorkerPanic};

pub(crate) use conn::spin_poller::{forget, glance, look, turn};
pub(crate) use pool::current::shutdown_default;
pub(crate) use spawn::hook::hook;

#[cfg(fuzzing)]
#[doc(hidden)]
pub use fuzzed::read_frames;

/// Makes this program able to start workers: in a worker process serves jobs and never returns, in any other returns at
/// once.
///
/// `run`, `main!` and `test!` do this by themselves. Call it, first thing in `main` or in a `#[test]`, where you enter in
/// another way, such as `smol::block_on`. **Everything before it in `main` runs again**, in each worker, or once for
/// all that are [forked](WorkerType). Do not read standard input there, which is a worker's line to its parent, and start no
/// threads, with which there can be no forking.
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
