//! A fork server, seen from inside: a process that has reached the hook, has called the preload closures, and from then on
//! does nothing but fork.
//!
//! Each copy is a worker with a socket of its own, which goes on to its first job. It is a child of the fork server's
//! parent, which finds its number in the table that it shares with this process. All that can be done once for all of
//! them is done here, before the first fork; the set-up, too, comes once, with the table beside it.
//!
//! A process with several threads must not be forked to go on as a program: whatever lock another thread held would be
//! locked for ever in the copy. So a fork server that is not alone in its process says so and leaves; its parent decides
//! what that means.
//!
//! `unsafe` is needed for the fork. What must hold for it is argued at [`fork_for_parent`], and answered where it is called.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::link::Link;
use super::output;
use super::serve::{UnreadyWorker, call_oneself, die_with, find_job, kernel_name, retire, run};
use super::tuning::EXIT_FAILED;
use crate::sys::arena::MappingCache;
use crate::sys::fork::{Fork, fork_for_parent};
use crate::sys::mapping::{Mapping, Segment};
use crate::sys::{socket, thread};
use crate::transport::codec;
use crate::transport::frame;
use crate::transport::frame::{HEADER, Header, Kind};
use crate::transport::job::code::{Code, Retire};
use crate::transport::job::panic::catch;
use crate::transport::message::{InitFailed, SetUp};
use crate::transport::pid_table::{Table, refuse};
use crate::transport::tuning::READ_ROOM;

/// What a parent sends for a worker to be forked.
struct Request {
    /// Where the parent looks for the worker's number.
    place: u64,
    socket: OwnedFd,
    stderr: Option<OwnedFd>,
}

impl UnreadyWorker {
    /// Forks a worker upon each request. Returns in the workers, with their retire closures; the fork server itself
    /// leaves with its parent.
    pub(super) fn fork_workers(
        mut self,
        set_up: &SetUp,
        table: Option<OwnedFd>,
    ) -> (UnreadyWorker, Vec<Retire>) {
        call_oneself(kernel_name(&set_up.name).as_deref());
        let table = self.link.find_table(table, set_up.table);
        let retire = self.link.preload_for_all(set_up);
        self.link.be_alone();
        if set_up.init.is_empty() {
            output::no_job_has_run();
        }
        rehearse(&mut self.link.mappings);
        // What waits to be written would be written by each copy.
        flush();
        // The kernel forgets this tie when a process changes its user, as a preload closure may have done.
        die_with(self.handshake.parent);
        // Its parent sees by the number whether both mean the same by numbers.
        let number = u64::from(std::process::id());
        self.link.send(&frame::of_bytes(Kind::Ready, number, b""));
        let buffer = Vec::with_capacity(READ_ROOM);
        let copies = kernel_name(&set_up.copies);
        loop {
            let request = self.link.next_request();
            let Some(place) = table.place(request.place) else {
                self.link.exit(EXIT_FAILED)
            };
            self.started = Instant::now();
            // As it is; but should there be no memory for it, that ends this process here, and not a fork half-way.
            place.store(0, Ordering::Relaxed);
            // SAFETY: `be_alone` has found that this process has no other thread, after the last code of the user's that ran
            // in it; and nothing in this loop starts one. The place is one of the table, which is mapped here, writable, and
            // changed by atomics alone; the kernel's writing is one, of a word.
            match unsafe { fork_for_parent(place.as_ptr()) } {
                Ok(Fork::New) => {
                    // It does not have the table, and must not look for it when it ends.
                    std::mem::forget(table);
                    return (self.into_worker(request, copies.as_deref(), buffer), retire);
                }
                Ok(Fork::Old) => {}
                // The parent looks there when the socket is closed, which it is with the request.
                Err(error) => refuse(place, &error),
            }
        }
    }

    /// What makes the copy a worker: its tie to the parent, which is not inherited, its name, its socket, in place of
    /// the fork server's, and its standard error.
    fn into_worker(self, request: Request, name: Option<&CStr>, buffer: Vec<u8>) -> UnreadyWorker {
        die_with(self.handshake.parent);
        call_oneself(name);
        let (link, arranged) = self
            .link
            .into_forked(|place| arrange(place, &request), buffer);
        if arranged.is_err() {
            // Its socket may not be where it belongs, so there is nobody to tell but by the exit code.
            link.exit(EXIT_FAILED);
        }
        UnreadyWorker { link, ..self }
    }
}

/// Does a job that does nothing. What is found or made when it is first needed, such as the C library's symbols and the
/// variables of this thread, would otherwise be so in each worker again.
fn rehearse(mappings: &mut MappingCache) {
    let nothing = |(): ()| ();
    let Some(code) = Code::of_job(nothing) else {
        return; // so nothing of this program can be a job
    };
    let mut argument = Vec::new();
    let encoded = codec::encode_with_attachments(&(), &mut argument);
    encoded.expect("nothing can be encoded");
    if let Some(trampoline) = find_job(code.offset()) {
        drop(run(trampoline, &argument, Vec::new(), mappings));
    }
    output::flush();
}

/// Writes out the standard output of Rust, and all streams of the C library.
fn flush() {
    // If that fails, so did the closure's own printing.
    let _ = io::Write::flush(&mut io::stdout());
    // SAFETY: a null pointer stands for all streams, and no other thread is at any of them.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

fn arrange(place: &mut OwnedFd, request: &Request) -> io::Result<()> {
    socket::put_in_place_of(place, request.socket.as_fd())?;
    if let Some(stderr) = &request.stderr {
        rustix::stdio::dup2_stderr(stderr)?;
    }
    Ok(())
}

impl Link {
    /// Takes the table in which the parent looks for the workers.
    fn find_table(&self, memory: Option<OwnedFd>, segment: Option<Segment>) -> Mapping<Table> {
        let table = match (memory, segment) {
            (_, Some(segment)) => Mapping::<Table>::find_segment(segment),
            (Some(memory), None) => Mapping::find(memory),
            (None, None) => Err(io::Error::from_raw_os_error(libc::EMFILE)),
        };
        let table = table.and_then(|table| table.keep_from_forks().map(|()| table));
        table.unwrap_or_else(|error| {
            self.exit_cannot_serve(&format!(
                "it could not map the memory in which a fork server tells of its workers: {error}"
            ))
        })
    }

    /// Calls the preload closures, and prepares the retire closures for all workers.
    fn preload_for_all(&mut self, set_up: &SetUp) -> Vec<Retire> {
        self.preload(set_up);
        let prepared: Result<_, InitFailed> = set_up.retire.iter().map(retire).collect();
        // What a thread makes when it first needs it, it makes here.
        let prepared = prepared.and_then(|retire| catch(|| retire).map_err(InitFailed::Panicked));
        prepared.unwrap_or_else(|failure| self.fail(&failure))
    }

    /// Leaves if this process has more than one thread.
    fn be_alone(&self) {
        let threads = thread::count().unwrap_or_else(|error| {
            self.exit_cannot_serve(&format!(
                "a fork server has to count its threads, and `/proc/self/task` cannot be read: {error}"
            ))
        });
        if threads != 1 {
            self.send(&frame::of_bytes(Kind::NotAlone, threads as u64, b""));
            self.exit(EXIT_FAILED)
        }
    }

    fn next_request(&mut self) -> Request {
        let mut bytes = [0; HEADER];
        let fds = match socket::receive_with_fds(self.socket(), &mut bytes) {
            Ok(fds) => fds,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.exit(0),
            Err(_) => self.exit(EXIT_FAILED),
        };
        let mut fds = fds.into_iter();
        match (Header::from_bytes(&bytes), fds.next(), fds.next()) {
            (Ok(header), Some(socket), stderr)
                if header.kind == Kind::Fork
                    && usize::from(header.fds) == 1 + usize::from(stderr.is_some()) =>
            {
                Request {
                    place: header.number,
                    socket,
                    stderr,
                }
            }
            _ => self.exit(EXIT_FAILED),
        }
    }
}
