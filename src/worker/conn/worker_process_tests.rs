//! Processes that are hard to see: those whose fork server does not answer, and those that the
//! reactor does not take.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use async_io::Async;
use futures_lite::future::{block_on, poll_fn};

use super::pending_fork::PidTable;
use super::worker_process::{ForkFailure, WorkerProcess};
use crate::sys::mapping::Mapping;
use crate::sys::process::{ChildStatus, Ended, Pidfd};

const KILLED: Ended = Ended::Signalled {
    signal: libc::SIGKILL,
    core: false,
};

/// Stands in for a fork server that never answers.
fn silent_server() -> Arc<Pidfd> {
    let sleeper = Command::new("sleep").arg("infinity").spawn().unwrap();
    Arc::new(Pidfd::of(sleeper).unwrap())
}

/// A process that `server` was asked for.
fn requested_from(server: &Arc<Pidfd>, answer_timeout: Duration) -> WorkerProcess {
    let (table, _memory) = Mapping::make("test").unwrap();
    let table = PidTable::new(table, server.clone(), answer_timeout);
    WorkerProcess::forked(table.reserve().unwrap())
}

fn end_of(process: &Pidfd) -> Ended {
    loop {
        match process.try_reap(false).unwrap() {
            ChildStatus::Ended(ended) => return ended,
            _ => std::thread::yield_now(),
        }
    }
}

#[test]
fn a_fork_server_that_does_not_answer_in_time_is_killed_by_a_waiting_call() {
    for slowly in [false, true] {
        let server = silent_server();
        let mut process = requested_from(&server, Duration::ZERO);
        let ended = block_on(poll_fn(|cx| {
            if slowly {
                process.poll_end_slowly(cx)
            } else {
                process.poll_end(cx)
            }
        }));
        assert_eq!(ended, Ended::Unknown);
        assert!(matches!(
            process.take_fork_failure(),
            Some(ForkFailure::ServerEnded)
        ));
        assert_eq!(end_of(&server), KILLED);
    }
}

#[test]
fn a_fork_server_that_does_not_answer_in_time_is_killed_after_its_call_was_dropped() {
    let server = silent_server();
    drop(requested_from(&server, Duration::ZERO));
    assert_eq!(end_of(&server), KILLED);
}

#[test]
fn a_fork_server_may_take_its_time_to_answer() {
    let server = silent_server();
    let mut process = requested_from(&server, Duration::MAX);
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(process.poll_end(cx).is_pending());
    assert!(process.poll_end_slowly(cx).is_pending());
    assert!(!server.has_ended());
    server.kill().unwrap();
    let ended = block_on(poll_fn(|cx| process.poll_end(cx)));
    assert_eq!(ended, Ended::Unknown);
    assert_eq!(end_of(&server), KILLED);
}

#[test]
fn the_end_of_a_process_that_the_reactor_does_not_take_is_seen() {
    let mut shell = Command::new("sh")
        .args(["-c", "read line; exit 7"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = shell.stdin.take().unwrap();
    let mut process = WorkerProcess::adopt(shell).unwrap();
    // The kernel takes each descriptor once.
    let taken = Async::new_nonblocking(process.descriptor().unwrap()).unwrap();
    assert!(Async::new_nonblocking(process.descriptor().unwrap()).is_err());
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(process.poll_end(cx).is_pending());
    assert!(process.poll_end_slowly(cx).is_pending());
    writeln!(input).unwrap();
    let ended = block_on(poll_fn(|cx| process.poll_end(cx)));
    assert_eq!(ended, Ended::Exited(7));
    drop(taken);
}
