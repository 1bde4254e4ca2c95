//! What a run does for worker processes: nothing in a build without them.

#[cfg(all(feature = "workers", target_os = "linux"))]
pub(super) use crate::worker::{forget, glance, hook, look, shutdown_default, turn};

#[cfg(not(all(feature = "workers", target_os = "linux")))]
pub use without_workers::init;
#[cfg(not(all(feature = "workers", target_os = "linux")))]
pub(super) use without_workers::{forget, glance, hook, look, shutdown_default, turn};

#[cfg(not(all(feature = "workers", target_os = "linux")))]
mod without_workers {
    use std::time::Duration;

    /// Opens `/dev/null` in place of closed standard descriptors. (In this build, no process is a
    /// worker.)
    ///
    /// ```
    /// seedbed::init();
    /// assert_eq!(seedbed::run(async { 6 * 7 }), 42);
    /// ```
    pub fn init() {
        hook();
    }

    pub(in crate::run) fn hook() {
        #[cfg(target_os = "linux")]
        crate::sys::standard_fds::open_closed();
    }

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
