//! The constants of this module.

use std::time::Duration;

/// The time between two ticks of the slow shared timer. A process that is stopped because it has
/// asked to be traced is noticed by then.
pub(super) const SLOW_TICK_INTERVAL: Duration = Duration::from_secs(1);

/// The time between two ticks of the shared timer.
pub(super) const TICK_INTERVAL: Duration = Duration::from_millis(100);

/// The number of ticks without a new listener after which the shared timer stops.
pub(super) const TICKS_BEFORE_STOP: u32 = 10;

/// The descriptors that smol's reactor opens when it starts, and one spare: an epoll, a timer, and
/// an event.
pub(super) const REACTOR_DESCRIPTORS: usize = 4;

/// The pause of the background thread after a panic, so that a task that panics at once again does
/// not use up a processor.
pub(super) const PAUSE_AFTER_PANIC: Duration = Duration::from_millis(100);

/// The time that a cancelled process has between SIGTERM and SIGKILL, unless `kill_after` sets
/// another.
pub(super) const KILL_AFTER: Duration = Duration::from_secs(5);

/// The time after SIGKILL after which a process is left to the background. One that is frozen, or
/// in an uninterruptible system call, ends later.
pub(super) const KILLED_WAIT_LIMIT: Duration = Duration::from_secs(5);

/// The time that other processes may hold the pipes of a process that has ended, unless `drain_for`
/// sets another.
pub(super) const DRAIN_FOR: Duration = Duration::from_secs(5);

/// The bytes of one captured output that are kept, unless `capture_limit` sets another number.
pub(super) const CAPTURE_LIMIT_BYTES: usize = 64 << 20;

/// How long the orphans of a killed process are waited for, in a program that adopts them.
pub(super) const ORPHAN_TIMEOUT: Duration = Duration::from_secs(5);

/// The time that a kill of a process tree scans without a pause, in the thread that kills it. A
/// background thread goes on after that.
pub(super) const TREE_KILL_LIMIT: Duration = Duration::from_millis(5);

/// The bytes that one read of a captured output asks for: the default capacity of a pipe.
pub(super) const PIPE_CHUNK_BYTES: usize = 64 * 1024;

/// The chunks that one poll moves through a pipe before other tasks have their turn.
pub(super) const PIPE_CHUNKS_PER_POLL: usize = 16;

/// The bytes that one read asks for from an output that is not kept.
pub(super) const DISCARD_CHUNK_BYTES: usize = 8 * 1024;

/// The characters of a captured line that an error message shows.
pub(super) const MESSAGE_LINE_CHARS: usize = 200;
