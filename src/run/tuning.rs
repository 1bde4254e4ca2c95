//! The constants of the run's loop.

use std::time::Duration;

/// How long the loop goes on, as long as tasks are ready, before it lets the reactor look for
/// events. That takes about half a microsecond.
pub(super) const REACTOR_INTERVAL: Duration = Duration::from_micros(20);

/// How much earlier than the next deadline the loop's timer may fire. Re-arming the timer costs
/// more than waking early. Each wait computes the distance of the deadline again.
pub(super) const TIMER_SLACK: Duration = Duration::from_millis(1);

/// The longest time that a process which dies by Ctrl-C waits until its standard output is flushed.
pub(super) const FLUSH_BEFORE_DEATH: Duration = Duration::from_millis(100);

/// The time after which a thread that waits for other runs to end after Ctrl-C says so.
pub(super) const NOTICE_AFTER_INTERRUPT: Duration = Duration::from_secs(2);

/// The real time for which a run with a clock that jumps waits without a deadline before it says
/// so.
pub(super) const SILENCE_BEFORE_NOTICE: Duration = Duration::from_secs(5);

/// The longest time that the loop yields to a thread that is waking a task, before the run counts
/// as idle. A busy system may take the processor from that thread for tens of milliseconds.
pub(super) const WAKE_TIMEOUT: Duration = Duration::from_millis(100);
