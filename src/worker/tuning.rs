//! The tuning constants of `worker/`, each with the reason for its value.

use std::time::Duration;

/// The most draining workers that one call inspects, so that a burst of exits does not slow down a
/// single call.
pub(in crate::worker) const REAP_BATCH: usize = 16;

/// With this many draining workers, a call waits for the oldest to be reaped before it starts
/// another process. The process table has room for a few of these contexts.
pub(in crate::worker) const DRAINING_WORKERS_LIMIT: usize = 256;

/// A process gets this long to exit after it has closed its socket or announced its exit. It has
/// nothing left to do then.
pub(in crate::worker) const EXIT_GRACE: Duration = Duration::from_secs(1);

/// The time between two looks at draining workers. A process that has announced its exit has ended
/// long before.
pub(in crate::worker) const REAP_INTERVAL: Duration = Duration::from_millis(250);

/// The time from the moment when a worker becomes idle until its end is watched. A worker that ends
/// sooner is reaped then.
pub(in crate::worker) const WATCH_DELAY: Duration = Duration::from_millis(500);

/// The time between two looks at a pending fork whose process is to end. A fork takes less.
pub(in crate::worker) const FORK_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The number of fork servers that may end with a request before the request fails.
pub(in crate::worker) const FORK_ATTEMPTS: usize = 3;

/// The time that a fork server may leave requests unanswered before it is killed. A fork takes
/// microseconds.
pub(in crate::worker) const FORK_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause before a request is sent again to a fork server whose socket is full.
pub(in crate::worker) const FORK_RETRY_INTERVAL: Duration = Duration::from_millis(1);

/// The bytes of a worker's standard error that are kept.
pub(in crate::worker) const STDERR_TAIL_BYTES: usize = 4 * 1024;

/// The bytes of standard error that one poll reads before other tasks have their turn.
pub(in crate::worker) const STDERR_BYTES_PER_POLL: usize = 256 * 1024;

/// How long a poll spins for an answer. A job that takes longer is worth a wait.
pub(in crate::worker) const SPIN_IN_POLL: Duration = Duration::from_micros(4);

/// At least one of this many jobs is spun for, however many spins have failed.
pub(in crate::worker) const POLL_SPIN_INTERVAL: u32 = 16;

/// Of this many calls that end in their first poll on one thread, one yields to other tasks.
pub(in crate::worker) const CALLS_BETWEEN_YIELDS: u32 = 32;

/// How many operations on one side of a channel may succeed in a row without a wait, in a task.
/// They are much shorter than calls.
pub(in crate::worker) const CHANNEL_OPERATIONS_BETWEEN_YIELDS: u32 = 256;

/// A sender's buffer that is larger than this many bytes is not kept for the next message.
pub(in crate::worker) const MESSAGE_BUFFER_KEPT: usize = 1 << 20;

/// How long a loop spins before it sleeps: about as long as it takes to wake it.
pub(in crate::worker) const SPIN_BEFORE_SLEEP: Duration = Duration::from_micros(50);

/// At least one of this many waits spins, however many spins have failed.
pub(in crate::worker) const LOOP_SPIN_INTERVAL: u32 = 64;

/// The smallest stack of a job: it must have room for formatting a panic message.
#[cfg(feature = "stack_size")]
pub(in crate::worker) const MIN_STACK_BYTES: usize = 64 << 10;

/// An error message shows this many of the last lines of a worker's standard error.
pub(in crate::worker) const STDERR_LINES_SHOWN: usize = 10;

/// The idle timeout of a worker. Long enough for a service that is used now and then, and a
/// forgotten worker ends within it.
pub(in crate::worker) const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// The grace period of a shutdown. Service managers commonly wait longer before they kill a whole
/// program.
pub(in crate::worker) const DEFAULT_GRACE_PERIOD: Duration = Duration::from_secs(30);

/// The time that a new process may take to reach the hook. `main` may do much work before it, on a
/// busy machine; a person who waits for a program that hangs needs to be told why.
pub(in crate::worker) const DEFAULT_START_TIMEOUT: Duration = Duration::from_secs(10);

/// The most fields of a forwarded `tracing` event: as many as the macros of `tracing` can make.
pub(in crate::worker) const MOST_FIELDS: usize = 32;

/// The most callsites of forwarded events whose metadata are kept. They are never freed.
pub(in crate::worker) const MOST_CALLSITES: usize = 4096;

/// The most bytes of text in the metadata of such a callsite.
pub(in crate::worker) const CALLSITE_BYTES: usize = 4096;

/// The most forwarded events that are emitted in one poll of a call. Then other tasks have their
/// turn.
pub(in crate::worker) const FORWARDED_PER_POLL: usize = 64;

/// How long a killed process is waited for. The kernel ends one that it may end in milliseconds.
pub(in crate::worker) const DEFAULT_KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// The time that a chunk of a map should take: a thousand times what it costs to hand it over.
pub(in crate::worker) const MAP_CHUNK_TARGET: Duration = Duration::from_millis(1);

/// The most items of a chunk whose size the map chooses.
pub(in crate::worker) const MAP_LARGEST_CHUNK: usize = 4096;

/// How many times as large as the one before a chunk may be.
pub(in crate::worker) const MAP_CHUNK_GROWTH: usize = 8;

/// The chunks that a worker has at a time: one to work on, and one to go on with.
pub(in crate::worker) const MAP_CHUNKS_PER_WORKER: usize = 2;

/// The least number of items, for each worker, that may have been pulled whose results have not
/// been taken. An item that takes this many times as long as the others does not stop an ordered
/// map.
pub(in crate::worker) const MAP_SMALLEST_WINDOW_PER_WORKER: usize = 16;

/// The largest such number: two chunks of the largest size, and their results.
pub(in crate::worker) const MAP_LARGEST_WINDOW_PER_WORKER: usize = 16 * 1024;

/// How long a map lets results of quick items gather before it takes them. Each wake-up costs as
/// much as a hundred quick items.
pub(in crate::worker) const MAP_PAUSE: Duration = Duration::from_micros(100);

/// The longest time of a quick item. The result of a longer one wakes the map.
pub(in crate::worker) const MAP_QUICK_ITEM: Duration = Duration::from_micros(5);

/// The most workers of one map, whatever its limiter allows.
pub(in crate::worker) const MAP_WORKERS: usize = 1024;

/// Workers that may end one after the other without beginning an item. The end of the next one is
/// an error of an item, so that a map always comes to its end.
pub(in crate::worker) const MAP_FRUITLESS_WORKERS: u32 = 3;

/// The rounds of one poll of a map. Other tasks have their turn after them.
pub(in crate::worker) const MAP_ROUNDS_PER_POLL: u32 = 8;

/// The least time between two looks at the time limit of an item.
pub(in crate::worker) const MAP_LIMIT_INTERVAL: Duration = Duration::from_millis(1);

/// The most rounds of one worker of a map in one poll of a task.
pub(in crate::worker) const MAP_LANE_ROUNDS_PER_POLL: usize = 16;

/// The most results for which memory is reserved before they are there. Items may say that there
/// are far more of them than anyone takes.
pub(in crate::worker) const MAP_MOST_RESERVED: usize = 1 << 16;

/// The term of a launched worker's lease: long enough for a network to fail over, and short enough
/// for a person who waits for an error.
pub(in crate::worker) const DEFAULT_LEASE: Duration = Duration::from_secs(10);

/// The shortest term of a lease: on a busy machine a guardian may not run for some hundred
/// milliseconds.
pub(in crate::worker) const SHORTEST_LEASE: Duration = Duration::from_secs(1);

/// The time that a launching program has to end after its worker, before SIGTERM, and again before
/// SIGKILL.
pub(in crate::worker) const LAUNCHER_GRACE: Duration = Duration::from_secs(2);

/// Within this time a launching program has usually ended after its worker. Only then is the end of
/// the worker made known, so that no child is left for a moment.
pub(in crate::worker) const LAUNCHER_USUAL_END: Duration = Duration::from_millis(250);

/// How long a guardian waits for the order to start its worker. A program that lives sends it at
/// once.
pub(in crate::worker) const START_WAIT_LIMIT: Duration = Duration::from_secs(60);

/// The longest time from the end of a lease until a start is known to have failed: the launching
/// program has its grace three times, and is waited for.
pub(in crate::worker) const LAUNCHER_END_LIMIT: Duration = Duration::from_secs(12);

/// How long a guardian that has reported the end of its worker waits for the end of its connection,
/// so that the report is not lost.
pub(in crate::worker) const REPORT_GRACE: Duration = Duration::from_secs(5);

/// The time after the end of a lease at which the kernel kills a guardian. One that runs has killed
/// its worker by then.
pub(in crate::worker) const KILL_TIMER_MARGIN: Duration = Duration::from_millis(300);

/// The bytes that one read from a launcher's stream asks for: as many as a socket of the kernel
/// usually holds.
pub(in crate::worker) const STREAM_READ_BYTES: usize = 128 * 1024;

/// The rounds of one poll of a relay or a guardian. Then the lease, a kill and other workers have
/// their turn.
pub(in crate::worker) const RELAY_ROUNDS_PER_POLL: u32 = 16;
