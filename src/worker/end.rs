//! The ways in which a worker can end, and how its end is classified.

use super::error::WorkerExit;
use crate::sys::process::Ended;

/// The facts about a worker from which its end is classified.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::worker) struct EndHints {
    /// The reason of the exit that the worker announced.
    pub(in crate::worker) announced: Option<RetireReason>,
    /// The parent told the worker to exit.
    pub(in crate::worker) dismissed: bool,
    /// The parent sent SIGKILL.
    pub(in crate::worker) killed: Option<KillReason>,
}

/// The reason for which a worker exits on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum RetireReason {
    /// It was idle for the idle timeout.
    TimedOut,
    /// It has run its last job, or a retire closure returned true.
    Retired,
    /// A job has deleted the timers that limit the CPU time of the next one.
    TimersDeleted,
}

/// The reason for which the parent kills a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum KillReason {
    /// Its call was cancelled.
    Cancelled,
    /// Its job reached its time limit.
    TimedOut,
    /// Its call or its context was dropped.
    Dropped,
    /// It violated the protocol, or its socket failed.
    Unusable,
    /// It did not exit in time after it had closed its socket or announced its exit.
    NoExit,
    /// Its context killed all its workers.
    KilledAll,
    /// It was told to exit and did not do so within the grace period.
    GraceOver,
}

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum WorkerEnd {
    Retired,
    TimedOut,
    TimersDeleted,
    Dismissed,
    Killed(KillReason),
    Crashed(Ended),
}

impl EndHints {
    /// Classifies the end of a worker by the status of its process; `None` if the process is about
    /// to be killed.
    ///
    /// The status counts more than the hints, because a signal or an order may come too late.
    pub(in crate::worker) fn classify(self, ended: Option<Ended>) -> WorkerEnd {
        let Some(ended) = ended else {
            return WorkerEnd::Killed(self.killed.unwrap_or(KillReason::Dropped));
        };
        let exited = matches!(ended, Ended::Exited(0) | Ended::Unknown);
        let was_killed = match ended {
            Ended::Signalled { signal, .. } => signal == libc::SIGKILL,
            Ended::Unknown => true,
            Ended::Exited(_) => false,
        };
        match self.announced {
            Some(RetireReason::TimedOut) if exited => return WorkerEnd::TimedOut,
            Some(RetireReason::Retired) if exited => return WorkerEnd::Retired,
            Some(RetireReason::TimersDeleted) if exited => return WorkerEnd::TimersDeleted,
            Some(_) | None => {}
        }
        match self.killed {
            Some(reason) if was_killed => WorkerEnd::Killed(reason),
            _ if self.dismissed && exited => WorkerEnd::Dismissed,
            _ => WorkerEnd::Crashed(ended),
        }
    }
}

/// Describes the end of a process that the parent did not cause.
pub(in crate::worker) fn describe_crash(pid: u32, ended: Ended) -> impl std::fmt::Display {
    WorkerExit::new(pid, ended, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: Ended = Ended::Signalled {
        signal: libc::SIGKILL,
        core: false,
    };

    #[test]
    fn an_end_is_classified_by_the_exit_status_first_and_then_by_what_is_known() {
        let nothing = EndHints::default();
        let dismissed = EndHints {
            dismissed: true,
            ..nothing
        };
        let killed = EndHints {
            killed: Some(KillReason::GraceOver),
            ..dismissed
        };
        let retired = EndHints {
            announced: Some(RetireReason::Retired),
            ..killed
        };
        let timed_out = EndHints {
            announced: Some(RetireReason::TimedOut),
            ..nothing
        };
        let timers_deleted = EndHints {
            announced: Some(RetireReason::TimersDeleted),
            ..nothing
        };
        let by_us = WorkerEnd::Killed(KillReason::GraceOver);
        let crashed = WorkerEnd::Crashed;
        for (hints, ended, expected) in [
            (nothing, Ended::Exited(0), crashed(Ended::Exited(0))),
            (nothing, Ended::Exited(3), crashed(Ended::Exited(3))),
            (nothing, KILLED, crashed(KILLED)),
            (nothing, Ended::Unknown, crashed(Ended::Unknown)),
            (dismissed, Ended::Exited(0), WorkerEnd::Dismissed),
            (dismissed, Ended::Unknown, WorkerEnd::Dismissed),
            (dismissed, Ended::Exited(1), crashed(Ended::Exited(1))),
            (dismissed, KILLED, crashed(KILLED)),
            (killed, KILLED, by_us),
            (killed, Ended::Unknown, by_us),
            (killed, Ended::Exited(0), WorkerEnd::Dismissed), // the signal came too late
            (killed, Ended::Exited(1), crashed(Ended::Exited(1))),
            (retired, Ended::Exited(0), WorkerEnd::Retired),
            (retired, Ended::Unknown, WorkerEnd::Retired),
            (retired, KILLED, by_us), // it announced its exit and stayed
            (timed_out, Ended::Exited(0), WorkerEnd::TimedOut),
            (timed_out, Ended::Exited(1), crashed(Ended::Exited(1))),
            (timers_deleted, Ended::Exited(0), WorkerEnd::TimersDeleted),
            (timers_deleted, KILLED, crashed(KILLED)),
        ] {
            assert_eq!(hints.classify(Some(ended)), expected, "{hints:?} {ended:?}");
        }
        assert_eq!(
            nothing.classify(None),
            WorkerEnd::Killed(KillReason::Dropped)
        );
        assert_eq!(killed.classify(None), by_us);
        assert_eq!(retired.classify(None), by_us);
    }
}
