//! Processes that are hard to see: of which nothing is heard because the fork server stands still, and those that the
//! reactor does not take.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use async_io::Async;
use futures_lite::future::{block_on, poll_fn};

use super::process::{Process, Stillborn};
use crate::sys::mapping::Mapping;
use crate::sys::process::{Ended, Pidfd};
use crate::worker::config::WorkerConfig;
use crate::worker::spawn::fork_server::ForkServer;
use crate::worker::spawn::pids::Births;

const KILLED: Ended = Ended::Signalled {
    signal: libc::SIGKILL,
    core: false,
};

/// Stands in for a fork server that does nothing: a process that waits for ever.
fn idler() -> Arc<Pidfd> {
    let idler = Command::new("sleep").arg("infinity").spawn().unwrap();
    Arc::new(Pidfd::adopt(idler).unwrap())
}

/// A process that `server` was asked for, by somebody with so much patience.
fn asked_for(server: &Arc<Pidfd>, patience: Duration) -> Process {
    let (table, _memory) = Mapping::make("test").unwrap();
    let place = Births::new(table, server.clone()).expect().unwrap();
    let fork_server = ForkServer::with_patience(WorkerConfig::new(), patience);
    Process::unborn(place, fork_server, 0)
}

fn end_of(process: &Pidfd) -> Ended {
    loop {
        match process.try_reap(false).unwrap() {
            Some(ended) => return ended,
            None => std::thread::yield_now(),
        }
    }
}

#[test]
fn a_fork_server_that_does_nothing_for_long_is_killed_by_whoever_waits_for_a_birth() {
    for in_passing in [false, true] {
        let server = idler();
        // The context has none any more: it was shut down, and the server is on its way out.
        let mut process = asked_for(&server, Duration::ZERO);
        let ended = block_on(poll_fn(|cx| match in_passing {
            false => process.poll_end(cx),
            true => process.poll_end_in_passing(cx),
        }));
        assert_eq!(ended, Ended::Unknown);
        assert!(matches!(process.stillborn(), Some(Stillborn::Again)));
        assert_eq!(end_of(&server), KILLED);
    }
}

#[test]
fn a_fork_server_that_does_nothing_for_long_is_killed_where_nobody_waits_for_a_birth_any_more() {
    let server = idler();
    drop(asked_for(&server, Duration::ZERO));
    assert_eq!(end_of(&server), KILLED);
}

#[test]
fn a_fork_server_that_was_asked_just_now_is_waited_for() {
    let server = idler();
    let mut process = asked_for(&server, Duration::MAX);
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(process.poll_end(cx).is_pending());
    assert!(process.poll_end_in_passing(cx).is_pending());
    assert!(!server.has_ended());
    server.kill().unwrap();
    let ended = block_on(poll_fn(|cx| process.poll_end(cx)));
    assert_eq!(ended, Ended::Unknown);
    assert_eq!(end_of(&server), KILLED);
}

#[test]
fn a_process_that_the_reactor_does_not_take_is_left_alone_and_seen_to_end() {
    let mut shell = Command::new("sh")
        .args(["-c", "read line; exit 7"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = shell.stdin.take().unwrap();
    let mut process = Process::new(Pidfd::adopt(shell).unwrap());
    // The kernel takes each descriptor once.
    let taken = Async::new_nonblocking(process.descriptor().unwrap()).unwrap();
    assert!(Async::new_nonblocking(process.descriptor().unwrap()).is_err());
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(process.poll_end(cx).is_pending());
    assert!(process.poll_end_in_passing(cx).is_pending());
    writeln!(input).unwrap();
    let ended = block_on(poll_fn(|cx| process.poll_end(cx)));
    assert_eq!(ended, Ended::Exited(7));
    drop(taken);
}
