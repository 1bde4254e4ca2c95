//! A deadline in a form in which another process understands it, on this machine or on another.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::sys::clock::monotonic_time;
use crate::time::current_time;

/// A deadline as time since the kernel's monotonic clock began, which all processes of a machine
/// share. On another machine, the time counts that was left when the deadline was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SharedDeadline {
    time: Duration,
    left: Duration,
    /// The identifier of the machine's last start; empty if it is not known.
    boot: String,
}

impl SharedDeadline {
    /// Converts a deadline of this run. In a run with a virtual clock, the time that is left
    /// counts.
    pub(super) fn of(deadline: Instant) -> Self {
        let left = deadline.saturating_duration_since(current_time());
        Self {
            time: monotonic_time().saturating_add(left),
            left,
            boot: boot().to_owned(),
        }
    }

    /// Converts the deadline to the clock of this process. `None` if it is too far away for that.
    pub(super) fn to_instant(&self) -> Option<Instant> {
        let now = (Instant::now(), monotonic_time());
        if self.boot != boot() {
            return now.0.checked_add(self.left);
        }
        match self.time.checked_sub(now.1) {
            Some(left) => now.0.checked_add(left),
            None => Some(now.0),
        }
    }
}

/// Returns what the kernel calls this start of the machine.
fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.trim().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_arrives_as_the_instant_that_it_was() {
        let deadline = Instant::now() + Duration::from_secs(1000);
        let arrived = SharedDeadline::of(deadline).to_instant().unwrap();
        let error = arrived.max(deadline) - arrived.min(deadline);
        assert!(error < Duration::from_secs(500), "{error:?}");
    }

    #[test]
    fn on_another_machine_the_time_counts_that_was_left() {
        let mut sent = SharedDeadline::of(Instant::now() + Duration::from_secs(1000));
        sent.boot = "another".into();
        sent.time = Duration::ZERO;
        let left = sent.to_instant().unwrap() - Instant::now();
        assert!(left > Duration::from_secs(500), "{left:?}");
    }

    #[test]
    fn a_deadline_that_has_passed_is_now_and_one_that_is_too_far_away_is_none() {
        let before = Instant::now();
        let at = |time| SharedDeadline {
            time,
            ..SharedDeadline::of(before)
        };
        assert!(at(Duration::ZERO).to_instant().unwrap() >= before);
        assert_eq!(at(Duration::MAX).to_instant(), None);
    }
}
