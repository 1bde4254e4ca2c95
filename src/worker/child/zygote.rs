//! A fork server, seen from inside: a process that has reached the hook, has called the preload closures, and from then on
//! does nothing but fork.
//!
//! Each copy is a worker with a socket of its own, and goes on where any worker does, at its set-up. It is a child of the
//! fork server's parent, which gets its descriptor over that socket, from here: a worker need not do anything to be known.
//!
//! A process with several threads must not be forked to go on as a program: whatever lock another thread held would be
//! locked for ever in the copy. So a fork server that is not alone in its process says so and leaves; its parent decides
//! what that means.
//!
//! `unsafe` is needed for the fork. What must hold for it is argued at [`fork_for_parent`], and answered where it is called.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use super::{FAILED, Link, Settled, call_oneself};
use crate::sys::fork::{Fork, fork_for_parent};
use crate::sys::{socket, thread};
use crate::wire::frame::{self, HEADER, Header, Kind};
use crate::wire::message::SetUp;

/// What a parent sends for a worker to be forked.
struct Request {
    socket: OwnedFd,
    stderr: Option<OwnedFd>,
}

impl Settled {
    /// Forks a worker upon each request. Returns in the workers; the fork server itself leaves with its parent.
    pub(super) fn fork_workers(mut self, set_up: &SetUp) -> Settled {
        call_oneself(&set_up.name);
        self.link.preload(set_up);
        self.link.be_alone();
        // What waits to be written would be written by each copy.
        flush();
        // The kernel forgets this tie when a process changes its user, as a preload closure may have done.
        super::die_with(self.summons.parent);
        self.link.send(&frame::of_bytes(Kind::Ready, 0, b""));
        loop {
            let request = self.link.next_request();
            // SAFETY: `be_alone` has found that this process has no other thread, after the last code of the user's that ran
            // in it; and nothing in this loop starts one.
            match unsafe { fork_for_parent() } {
                Ok(Fork::New) => return self.into_worker(request),
                Ok(Fork::Old { process, pid }) => {
                    let forked = frame::of_bytes(Kind::Forked, u64::from(pid), b"");
                    // The kernel may have too many descriptors on their way; then the number has to do. Nobody to tell:
                    // then the parent has gone, and the worker goes with it as we do.
                    let _ = socket::send_with_fds(&request.socket, &forked, &[process.as_fd()])
                        .or_else(|_| socket::send_all(&request.socket, &forked));
                }
                Err(error) => {
                    let words = error.to_string();
                    // The same.
                    let _ = socket::send_all(
                        &request.socket,
                        &frame::of_bytes(Kind::ForkFailed, 0, words.as_bytes()),
                    );
                }
            }
        }
    }

    /// What makes the copy a worker: its socket, its standard error, its name, and its tie to the parent, which is not
    /// inherited.
    fn into_worker(self, request: Request) -> Settled {
        let started = Instant::now();
        let Settled {
            link: server,
            summons,
            stdout,
            ..
        } = self;
        let mut link = Link::new(request.socket);
        drop(server);
        super::die_with(summons.parent);
        let arranged = arrange(&mut link, request.stderr);
        if let Err(error) = arranged {
            link.leave_with_words(&format!("it could not arrange its descriptors: {error}"));
        }
        Settled {
            link,
            started,
            summons,
            stdout,
        }
    }
}

/// Writes out the standard output of Rust, and all streams of the C library.
fn flush() {
    // If that fails, so did the closure's own printing.
    let _ = io::Write::flush(&mut io::stdout());
    // SAFETY: a null pointer stands for all streams, and no other thread is at any of them.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

fn arrange(link: &mut Link, stderr: Option<OwnedFd>) -> io::Result<()> {
    link.move_out_of_the_way()?;
    if let Some(stderr) = stderr {
        rustix::stdio::dup2_stderr(stderr)?;
    }
    Ok(())
}

impl Link {
    /// Leaves if this process has more than one thread.
    fn be_alone(&self) {
        let threads = thread::count().unwrap_or_else(|error| {
            self.leave_with_words(&format!(
                "a fork server has to count its threads, and `/proc/self/task` cannot be read: {error}"
            ))
        });
        if threads != 1 {
            self.send(&frame::of_bytes(Kind::NotAlone, threads as u64, b""));
            self.leave(FAILED)
        }
    }

    fn next_request(&mut self) -> Request {
        let mut bytes = [0; HEADER];
        let fds = match socket::receive_with_fds(self.socket(), &mut bytes) {
            Ok(fds) => fds,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.leave(0),
            Err(_) => self.leave(FAILED),
        };
        let mut fds = fds.into_iter();
        match (Header::from_bytes(&bytes), fds.next(), fds.next()) {
            (Ok(header), Some(socket), stderr)
                if header.kind == Kind::Fork && (header.number == 1) == stderr.is_some() =>
            {
                Request { socket, stderr }
            }
            _ => self.leave(FAILED),
        }
    }
}
