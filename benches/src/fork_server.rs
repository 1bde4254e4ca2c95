//! The limit of a cold start: the smallest fork server there can be.
//!
//! It has one thread, reads a byte, forks, and the copy says hello and ends. There is no set-up, no check and no socket of
//! the copy's own, which a real one cannot do without.
//!
//! `unsafe` is needed to fork.
#![allow(unsafe_code)]

use std::{
    io::{Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::Child,
};

use rustix::process::{Signal, set_parent_process_death_signal};

use crate::child;

const HELLO: &[u8; 8] = b"hello...";

/// A process that forks upon request; it ends when this is dropped.
pub struct MinimalForkServer {
    child: Child,
    /// Closed before the child is waited for: its end is the child's.
    stream: Option<UnixStream>,
}

impl MinimalForkServer {
    /// Starts it, and has it fork once.
    pub fn start() -> MinimalForkServer {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        let child = child::this_program(child::FORK_SERVER)
            .stdin(OwnedFd::from(theirs))
            .spawn()
            .expect("this executable starts again");
        let fork_server = MinimalForkServer {
            child,
            stream: Some(ours),
        };
        fork_server.fork();
        fork_server
    }

    /// From the request until the copy has said hello.
    pub fn fork(&self) {
        let mut stream = self.stream.as_ref().expect("open until dropped");
        stream.write_all(b"!").expect("the fork server reads");
        let mut hello = [0; HELLO.len()];
        stream.read_exact(&mut hello).expect("the copy says hello");
        assert_eq!(&hello, HELLO);
    }
}

impl Drop for MinimalForkServer {
    fn drop(&mut self) {
        self.stream = None;
        self.child.wait().expect("our own child");
    }
}

/// What the fork server does, until its stream closes.
pub fn serve() {
    set_parent_process_death_signal(Some(Signal::KILL)).expect("prctl");
    // SAFETY: to ignore a signal is no code that could run at a bad moment. The kernel buries the copies then.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let mut stream = child::stdin_as_stream();
    loop {
        match stream.read(&mut [0]).expect("the parent's stream") {
            0 => return,
            _ => fork_one(&mut stream),
        }
    }
}

fn fork_one(stream: &mut UnixStream) {
    // SAFETY: this process has one thread, so the copy finds nothing half-done.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            let said = stream.write_all(HELLO);
            // SAFETY: `_exit` may be called at any moment.
            unsafe { libc::_exit(said.is_err().into()) }
        }
        _copy => {}
    }
}
