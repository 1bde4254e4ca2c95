//! The tuning constants of the worker process.

use std::time::Duration;

/// The exit code of a worker that fails: after it told its parent why, or because it cannot reach
/// its parent. Also the exit code of a process that a job forked and that returned from the job.
pub(super) const EXIT_FAILED: i32 = 1;

/// The adjustment of the OOM killer's score in a new worker: the highest one. With any other, the
/// kernel would kill the parent first if that has more memory than the worker and this part of all
/// memory together.
pub(super) const OOM_SCORE_ADJ: i32 = 1000;

/// How long a worker spins for its next job before it sleeps: about as long as it takes to wake it.
pub(super) const SPIN_FOR_JOB: Duration = Duration::from_micros(50);

/// At least one of this many waits for a job spins, however many spins have failed.
pub(super) const JOB_SPIN_INTERVAL: u32 = 64;

/// A job that arrives after so short a sleep might as well have been spun for: most of that time is
/// for waking up.
pub(super) const SHORT_SLEEP: Duration = Duration::from_micros(120);

/// How long a worker waits for a spinning parent to take its answer, if the worker has other things
/// to do after a job.
pub(super) const ANSWER_TAKEN_WITHIN: Duration = Duration::from_micros(5);

/// How long an answer waits for a thread that keeps the standard output locked.
pub(super) const FLUSH_TIMEOUT: Duration = Duration::from_millis(100);

/// The most bytes of `tracing` events that wait for a parent which does not read them. As much is
/// in the kernel's buffer of the socket.
pub(super) const OUTBOX_BYTES: usize = 256 << 10;

/// The most bytes of text in the values of an event. With them, the frame of an event is one piece
/// to the kernel.
pub(super) const TRACED_TEXT_BYTES: usize = 8 << 10;

/// The most bytes of a frame's buffer that a worker keeps for the next frame.
pub(super) const KEPT_BUFFER_LEN: usize = 1 << 20;

/// The time that a process with a fault gets to end, before it goes on as if a handler of the
/// program's had saved it. Writing a core dump may take longer, but stops all threads at its
/// beginning.
pub(super) const FAULT_AWAITED: Duration = Duration::from_millis(500);
