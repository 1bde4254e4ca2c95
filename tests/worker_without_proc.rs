//! A program that cannot see `/proc`. It is a test program of its own, because it hides `/proc`
//! from itself.

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use seedbed::run_sync;
use seedbed::worker::WorkerErrorKind;

/// Hides `/proc` from this thread and from the threads that it starts later.
fn hide_proc() -> rustix::io::Result<()> {
    // SAFETY: only the file system's view changes, and only this thread's; no descriptor or memory
    // is affected.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    unmount("/proc", UnmountFlags::DETACH)
}

#[test]
fn a_missing_proc_is_named_by_the_error_and_nothing_is_left() {
    seedbed::init();
    if let Err(error) = hide_proc() {
        println!("skipped: this environment does not let us hide /proc ({error})");
        return;
    }
    let limiter = seedbed::CapacityLimiter::new(1);
    let error =
        smol::block_on(async { run_sync(i32::abs, -1).limiter(&limiter).await }).unwrap_err();
    assert_eq!(error.kind(), WorkerErrorKind::Start);
    assert!(error.to_string().contains("mount `/proc`"), "{error}");
    assert_eq!(limiter.borrowed(), 0);
}
