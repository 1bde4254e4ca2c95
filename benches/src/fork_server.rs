//! The limit of a cold start: the minimal fork server.
//!
//! It has one thread, reads a byte and forks; the child writes a greeting and exits. A real fork
//! server also needs set-up, checks, and a socket for each child. Forking needs `unsafe`.
#![allow(unsafe_code)]

use std::{
    io::{Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::Child,
};

use rustix::process::{Signal, set_parent_process_death_signal};

use crate::child;

const HELLO: &[u8; 8] = b"hello...";

/// A process that forks on request. It ends when this value is dropped.
pub struct MinimalForkServer {
    child: Child,
    /// Closed before the process is waited for, because the process ends when its stream closes.
    stream: Option<UnixStream>,
}

impl MinimalForkServer {
    /// Starts the process, and lets it fork once.
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

    /// Requests a fork, and waits for the child's greeting.
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

/// Serves fork requests until the stream closes.
pub fn serve() {
    set_parent_process_death_signal(Some(Signal::KILL)).expect("prctl");
    // SAFETY: ignoring a signal runs no code of this program. The kernel then reaps the children.
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
    // SAFETY: this process has one thread, so no lock or other state is half-changed in the child.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            let said = stream.write_all(HELLO);
            // SAFETY: `_exit` runs no code of this program and may be called at any time.
            unsafe { libc::_exit(said.is_err().into()) }
        }
        _copy => {}
    }
}
