//! What a run does for worker processes: nothing in a build without them.

#[cfg(all(feature = "workers", target_os = "linux"))]
pub(super) use crate::worker::{forget, glance, hook, look, shutdown_default, turn};

#[cfg(not(all(feature = "workers", target_os = "linux")))]
pub(super) use without_workers::{forget, glance, hook, look, shutdown_default, turn};

#[cfg(not(all(feature = "workers", target_os = "linux")))]
mod without_workers {
    use std::time::Duration;

    pub(in crate::run) fn hook() {}

    pub(in crate::run) async fn shutdown_default() {}

    pub(in crate::run) struct Turn;

    pub(in crate::run) fn turn() -> Turn {
        Turn
    }

    pub(in crate::run) fn glance() -> bool {
        false
    }

    pub(in crate::run) fn look(_limit: Duration, _interrupted: impl Fn() -> bool) -> bool {
        false
    }

    pub(in crate::run) fn forget() {}
}
