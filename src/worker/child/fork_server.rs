//! The fork server: a process that has reached the hook and called the preload closures, and then
//! only forks workers.
//!
//! Each worker has a socket of its own. It is a child of the fork server's parent, which finds its
//! process id in the pid table that it shares with this process. Everything that all workers have
//! in common is done here once, before the first fork. The set-up comes once too, with the table
//! attached.
//!
//! A process with several threads must not fork and then run the program on: a lock that another
//! thread held would stay locked in the copy. So a fork server with more than one thread reports
//! that and exits; its parent decides what to do.
//!
//! `unsafe` is needed for the fork; see [`fork_for_parent`].
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::limits;
use super::link::Link;
use super::output;
use super::serve::{Forked, UnreadyWorker, call_oneself, find_job, kernel_name, retire, run};
use super::tuning::EXIT_FAILED;
use crate::sys::fork::{Fork, fork_for_parent};
use crate::sys::fork_detector;
use crate::sys::mapping::Mapping;
use crate::sys::mapping_cache::MappingCache;
use crate::sys::{role, socket, thread};
use crate::transport::codec;
use crate::transport::frame;
use crate::transport::frame::{HEADER, Header, Kind};
use crate::transport::job::code::{Code, Retire};
use crate::transport::job::panic::catch;
use crate::transport::message::{InitFailed, SetUp};
use crate::transport::pid_table::{Table, refuse};
use crate::transport::tuning::READ_ROOM;

/// A parent's request for a worker.
struct Request {
    /// The slot of the worker in the pid table.
    slot: u64,
    socket: OwnedFd,
    stderr: Option<OwnedFd>,
}

impl UnreadyWorker {
    /// Forks a worker for each request. Returns in the workers. In the fork server it does not
    /// return: that exits with its parent.
    pub(super) fn fork_workers(
        mut self,
        set_up: &SetUp,
        table: Option<OwnedFd>,
    ) -> (UnreadyWorker, Forked) {
        call_oneself(kernel_name(&set_up.name).as_deref());
        let table = self.link.find_table(table);
        let retire = self.link.preload_for_all(set_up);
        self.link.be_alone();
        if set_up.init.is_empty() {
            thread::record_baseline();
        }
        rehearse(&mut self.link.mappings);
        // Workers inherit both, and keep them: see `UnreadyWorker::work`.
        self.link.report_faults(std::process::id());
        limits::volunteer_for_oom_killer(&set_up.limits);
        // Otherwise each worker would write the buffered output again.
        output::write_out_all();
        // A preload closure may have changed the user.
        self.link.tie_to_parent();
        // The parent compares the number with the process id that it sees, which differs in another
        // pid namespace.
        let number = u64::from(std::process::id());
        self.link.send(&frame::of_bytes(Kind::Ready, number, b""));
        let buffer = Vec::with_capacity(READ_ROOM);
        fork_detector::prepare_restart();
        // Not dropped in a worker, which would have to copy the page of this string for that.
        let worker_name = kernel_name(&set_up.forked_workers);
        let worker_name = worker_name.map(|name| &*Box::leak(name.into_boxed_c_str()));
        loop {
            let request = self.link.next_request();
            let Some(slot) = table.slot(request.slot) else {
                self.link.exit(EXIT_FAILED)
            };
            self.started = Instant::now();
            // The slot is 0 already. This write makes sure that its page exists before the fork.
            slot.store(0, Ordering::Relaxed);
            // SAFETY:
            // * This process has no other thread: `be_alone` has checked that after the last user
            //   code ran, and this loop starts none.
            // * The kernel may write to the slot: it is in the table, which is mapped writable
            //   here. All accesses to it are atomic, and the kernel writes one aligned word.
            match unsafe { fork_for_parent(slot.as_ptr()) } {
                Ok(Fork::New(pid)) => {
                    // This process does not have the table mapped, and must not unmap its address.
                    std::mem::forget(table);
                    let worker = self.into_worker(request, worker_name, buffer);
                    return (worker, Forked { pid, retire });
                }
                Ok(Fork::Old) => {}
                // The parent reads the slot when the socket is closed, which happens when the
                // request is dropped.
                Err(error) => refuse(slot, &error),
            }
        }
    }

    /// Turns this process into the worker: it ends with the parent (which is not inherited), gets
    /// its name, its socket in place of the fork server's, and its standard error.
    fn into_worker(self, request: Request, name: Option<&CStr>, buffer: Vec<u8>) -> UnreadyWorker {
        if let Some(name) = name {
            // The name is for people only, so an error has no consequences. This is the main
            // thread of the new process, whichever thread of the fork server has forked it.
            let _ = rustix::thread::set_name(name);
        }
        let (link, arranged) = self
            .link
            .into_forked(|place| arrange(place, &request), buffer);
        if arranged.is_err() {
            // The socket may be missing, so only the exit code can tell the parent.
            link.exit(EXIT_FAILED);
        }
        link.tie_to_parent();
        UnreadyWorker { link, ..self }
    }
}

/// Runs an empty job. This initialises symbols of the C library and thread-locals, which are
/// initialised on first use, once for all workers.
fn rehearse(mappings: &mut MappingCache) {
    let nothing = |(): ()| ();
    let Some(code) = Code::of_job(nothing) else {
        return; // the code of this program is not in the main image, so it has no jobs
    };
    let mut argument = Vec::new();
    let encoded = codec::encode_with_attachments(&(), &mut argument);
    encoded.expect("nothing can be encoded");
    if let Some(trampoline) = find_job(code.offset()) {
        drop(run(trampoline, &argument, Vec::new(), mappings));
    }
    output::flush();
}

fn arrange(place: &mut OwnedFd, request: &Request) -> io::Result<()> {
    socket::put_in_place_of(place, request.socket.as_fd())?;
    role::report_through(place.as_fd());
    if let Some(stderr) = &request.stderr {
        rustix::stdio::dup2_stderr(stderr)?;
    }
    Ok(())
}

impl Link {
    /// Maps the pid table.
    fn find_table(&self, memory: Option<OwnedFd>) -> Mapping<Table> {
        let table = match memory {
            Some(memory) => Mapping::<Table>::find(memory),
            None => Err(io::Error::from_raw_os_error(libc::EMFILE)),
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
        // Within `catch` once, so that its thread-locals are initialised before the fork.
        let prepared = prepared.and_then(|retire| catch(|| retire).map_err(InitFailed::Panicked));
        prepared.unwrap_or_else(|failure| self.fail(&failure))
    }

    /// Exits if this process has more than one thread.
    fn be_alone(&self) {
        let threads = thread::count().unwrap_or_else(|error| {
            self.exit_cannot_serve(&format!(
                "a fork server has to count its threads, and `/proc/self/task` cannot be read: {error}"
            ))
        });
        if threads != 1 {
            self.send(&frame::of_bytes(Kind::Multithreaded, threads as u64, b""));
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
                    slot: header.number,
                    socket,
                    stderr,
                }
            }
            _ => self.exit(EXIT_FAILED),
        }
    }
}
