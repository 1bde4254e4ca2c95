//! The role of this process: an ordinary program, a worker of a seedbed program, or the guardian of
//! a worker.
//!
//! The launcher gives a worker one end of a socket, and passes a [`Handshake`] in the environment:
//! the parent's process id, the number of the socket's descriptor and its inode. A process is a
//! worker if that descriptor is that socket. The variable alone proves nothing, because the
//! processes that `main` starts before the hook inherit it. The worker removes it before any code
//! of the program runs after the hook.
//!
//! A worker runs the program's `main` again up to the hook. If the program calls another function
//! of this crate first, the hook is in the wrong place: without an end, the whole program would run
//! twice and start workers in turn. So that function reports the mistake and exits.
//!
//! A process that a launcher has started, perhaps on another machine, is a *guardian*: it starts
//! the worker and speaks to the program over its standard input and output. It knows that by
//! another environment variable, which it removes in the same way.
//!
//! In an ordinary program, the hook is noted here too, because a call fails without it.
//!
//! # The report to the parent
//!
//! The report has a fixed form, independent of the rest of the protocol: [`REPORT_PREFIX`], the
//! length of the text as eight bytes in little-endian order, and the text in UTF-8.
//! `transport::frame` chose its header such that the parent reads a report as a frame of the kind
//! `CannotServe`; a test there checks that.
//!
//! `unsafe` is needed to use a descriptor of which only the number is known; see [`borrow`] and
//! [`take_socket`].
#![allow(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::parent_id;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, Ordering};

use rustix::io::{FdFlags, fcntl_setfd};

use crate::sys::{environment, socket};

/// The environment variable that holds the [`Handshake`].
pub(crate) const HANDSHAKE_VARIABLE: &str = "SEEDBED_WORKER";

/// The environment variable by which a launcher makes a process a guardian. Its value is
/// [`GUARDIAN_VALUE`].
pub(crate) const GUARDIAN_VARIABLE: &str = "SEEDBED_GUARDIAN";

/// The version of the protocol between a guardian and its program.
pub(crate) const GUARDIAN_VALUE: &str = "1";

/// The first bytes of a worker's report that it cannot serve.
const REPORT_PREFIX: [u8; 16] = *b"sbd\x01\x05\0\0\0\0\0\0\0\0\0\0\0";

/// The exit code of a worker that cannot serve: `EX_SOFTWARE` of `sysexits.h`. If there is no
/// report, the worker has lost its socket.
pub(crate) const EXIT_CANNOT_SERVE: i32 = 70;

/// Tells a worker which process started it and which socket leads there. Its text is
/// `<parent>:<descriptor>:<inode>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handshake {
    /// The parent's process id.
    pub(crate) parent: u32,
    /// The descriptor of the worker's end of the socket.
    pub(crate) socket: RawFd,
    /// The inode of that socket.
    pub(crate) inode: u64,
}

impl fmt::Display for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.parent, self.socket, self.inode)
    }
}

impl Handshake {
    fn parse(text: &OsStr) -> Option<Self> {
        let (parent, socket) = text.to_str()?.split_once(':')?;
        let (socket, inode) = socket.split_once(':')?;
        Some(Self {
            parent: parent.parse().ok()?,
            socket: socket.parse().ok().filter(|&number| number > 2)?,
            inode: inode.parse().ok()?,
        })
    }
}

/// The role of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// An ordinary program, not a worker.
    Program,
    /// A worker that has not reached the hook yet.
    UnhookedWorker(Handshake),
    /// A process that a launcher has started, and that has not reached the hook yet.
    UnhookedGuardian,
    /// A worker or guardian in which some thread has reached the hook.
    Worker,
}

/// Caches the role, so that a query costs one relaxed load. Relaxed is enough: an unknown role is
/// computed from the process's own state, and no other memory depends on the value.
static CACHED: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const PROGRAM: u8 = 1;
const UNHOOKED_WORKER: u8 = 2;
const WORKER: u8 = 3;
const UNHOOKED_GUARDIAN: u8 = 4;

/// Returns the role of this process.
pub(crate) fn role() -> Role {
    match CACHED.load(Ordering::Relaxed) {
        PROGRAM => Role::Program,
        WORKER => Role::Worker,
        UNHOOKED_GUARDIAN => Role::UnhookedGuardian,
        _ => determine(),
    }
}

/// Marks this worker as having reached the hook. Returns `false` if another thread was first.
pub(crate) fn start_serving() -> bool {
    CACHED.swap(WORKER, Ordering::Relaxed) != WORKER
}

/// A thread of this process has reached a hook.
static REACHED: AtomicBool = AtomicBool::new(false);

/// Notes that a thread of this process has reached a hook.
pub(crate) fn note_hook() {
    REACHED.store(true, Ordering::Relaxed);
}

/// Returns whether a thread of this process has reached a hook, so that it may have workers.
pub(crate) fn has_reached_hook() -> bool {
    REACHED.load(Ordering::Relaxed)
}

/// The socket through which this worker reports that it cannot serve: its number, or 0, and its
/// inode.
static REPORT_SOCKET: AtomicI32 = AtomicI32::new(0);
static REPORT_INODE: AtomicU64 = AtomicU64::new(0);

/// Sets the socket through which this worker reports that it cannot serve.
pub(crate) fn report_through(socket: BorrowedFd<'_>) {
    REPORT_INODE.store(socket::socket_inode(socket).unwrap_or(0), Ordering::Relaxed);
    REPORT_SOCKET.store(socket.as_raw_fd(), Ordering::Relaxed);
}

/// Borrows a descriptor of which only the number is known.
fn borrow(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the number is not -1. The descriptor may have been closed by other code, or may be
    // another one by now. The callers only ask the kernel whether it is the socket that the parent
    // made for this process, which fails for a closed one, or do the following to that socket,
    // which no other code knows: they set its close-on-exec flag, or send a report and exit.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Takes the socket that leads to the parent. Returns `None` if the descriptor is not that socket.
/// Must be called once.
pub(crate) fn take_socket(handshake: Handshake) -> Option<OwnedFd> {
    let socket = borrow(handshake.socket);
    (socket::socket_inode(socket) == Some(handshake.inode)).then(|| {
        // SAFETY: the descriptor is open, as was just checked, and is the socket that the parent
        // made for this worker under this number. No other code owns it: the launcher gave it to
        // this process, and this code runs once.
        unsafe { OwnedFd::from_raw_fd(handshake.socket) }
    })
}

/// Removes the handshake from the environment, so that no process that a closure or a job starts
/// takes itself for a worker. Costs 20 us.
pub(crate) fn forget_handshake() {
    environment::erase(HANDSHAKE_VARIABLE);
}

/// Removes from the environment what makes this process a guardian.
pub(crate) fn forget_guardian() {
    environment::erase(GUARDIAN_VARIABLE);
}

/// Ends this process with a message that names the fix, if it is a worker or a guardian that has
/// not reached the hook.
///
/// Each public function that a program may call before the hook calls this first. In any other
/// process it costs one relaxed load.
pub(crate) fn refuse_unless_hooked(call: &str) {
    if let Role::UnhookedWorker(_) | Role::UnhookedGuardian = role() {
        refuse(call);
    }
}

#[cold]
fn determine() -> Role {
    let executed_with =
        std::cell::LazyCell::new(|| std::fs::read("/proc/self/environ").unwrap_or_default());
    let variable = |name| std::env::var_os(name).or_else(|| find_variable(&executed_with, name));
    let handshake = variable(HANDSHAKE_VARIABLE).and_then(|text| Handshake::parse(&text));
    let role = match handshake {
        None if variable(GUARDIAN_VARIABLE).is_some_and(|value| value == GUARDIAN_VALUE) => {
            Role::UnhookedGuardian
        }
        None => Role::Program,
        Some(handshake) => {
            let socket = borrow(handshake.socket);
            let inode = socket::socket_inode(socket);
            if inode == Some(handshake.inode) {
                report_through(socket);
                // What `main` starts before the hook has no use for the socket. The flag of an open
                // descriptor can be set.
                let _ = fcntl_setfd(socket, FdFlags::CLOEXEC);
            }
            decide(handshake, inode, parent_id())
        }
    };
    let value = match role {
        Role::Program => PROGRAM,
        Role::UnhookedWorker(_) => UNHOOKED_WORKER,
        Role::UnhookedGuardian => UNHOOKED_GUARDIAN,
        Role::Worker => WORKER,
    };
    // Another thread may have called `start_serving` since the load, which must not be undone.
    match CACHED.compare_exchange(UNKNOWN, value, Ordering::Relaxed, Ordering::Relaxed) {
        Err(WORKER) => Role::Worker,
        Ok(_) | Err(_) => role,
    }
}

/// Finds a variable in the environment that the process was executed with. The program may have
/// cleared its own copy of the environment; a worker that did so must not take itself for an
/// ordinary program and start workers.
fn find_variable(environment: &[u8], name: &str) -> Option<OsString> {
    environment
        .split(|&byte| byte == 0)
        .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
        .map(|value| OsString::from_vec(value.to_vec()))
}

/// Decides whether a process with this handshake, the inode of the socket under the handshake's
/// number, and this parent is a worker.
///
/// A process whose parent is the one in the handshake is a worker too, even if the program has
/// closed the socket: it cannot serve, but as an ordinary program it would start another such
/// process.
fn decide(handshake: Handshake, inode: Option<u64>, parent: u32) -> Role {
    if inode == Some(handshake.inode) || parent == handshake.parent {
        Role::UnhookedWorker(handshake)
    } else {
        Role::Program
    }
}

#[cold]
fn refuse(call: &str) -> ! {
    let message = format!(
        "it called `{call}` before it reached seedbed's hook. A worker executes `main` again up to the hook: enter with \
         `seedbed::run`, `#[seedbed::main]` or `#[seedbed::test]`, or call `seedbed::init()` first thing in `main` (or in the \
         test), before any other call into seedbed"
    );
    exit_cannot_serve(&message)
}

/// Reports to the parent why this worker cannot serve, and exits. If the parent cannot be reached
/// through the socket, the report goes to standard error.
pub(crate) fn exit_cannot_serve(message: &str) -> ! {
    let socket = borrow(REPORT_SOCKET.load(Ordering::Relaxed));
    let inode = REPORT_INODE.load(Ordering::Relaxed);
    let is_open = inode != 0 && socket::socket_inode(socket) == Some(inode);
    if !is_open || socket::send_all(socket.as_fd(), &report(message)).is_err() {
        // If standard error is closed too, only the exit code is left.
        let _ = writeln!(
            std::io::stderr(),
            "seedbed: worker process {} is lost: {message}",
            std::process::id()
        );
    }
    std::process::exit(EXIT_CANNOT_SERVE)
}

/// Returns the bytes of a report that this worker cannot serve.
pub(crate) fn report(message: &str) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    [&REPORT_PREFIX[..], &length, message.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_reads_back_as_it_was_written_and_malformed_text_is_none() {
        let handshake = Handshake {
            parent: 4711,
            socket: 1000,
            inode: 1 << 40,
        };
        assert_eq!(
            Handshake::parse(OsStr::new(&handshake.to_string())),
            Some(handshake)
        );
        for malformed in [
            "", ":", "1:1", "1:5:", ":5:1", "1::1", "a:5:1", "1:2:1", "1:5:-1", "1:5:1:1",
        ] {
            assert_eq!(
                Handshake::parse(OsStr::new(malformed)),
                None,
                "{malformed:?}"
            );
        }
    }

    #[test]
    fn the_variable_is_found_among_others_by_its_whole_name() {
        let environment = b"A=SEEDBED_WORKER=1:2\0SEEDBED_WORKERS=3:4\0SEEDBED_WORKER=5:6\0Z=\0";
        let find_handshake = |environment| find_variable(environment, HANDSHAKE_VARIABLE);
        assert_eq!(find_handshake(environment), Some("5:6".into()));
        for without in [&b""[..], b"\0", b"SEEDBED_WORKER\0", b"A=B"] {
            assert_eq!(find_handshake(without), None, "{without:?}");
        }
    }

    #[test]
    fn a_process_is_a_worker_by_its_socket_or_by_its_parent_and_otherwise_a_program() {
        let handshake = Handshake {
            parent: 10,
            socket: 30,
            inode: 20,
        };
        let worker = Role::UnhookedWorker(handshake);
        assert_eq!(decide(handshake, Some(20), 10), worker);
        assert_eq!(
            decide(handshake, Some(20), 1),
            worker,
            "the parent died: the hook notices that"
        );
        assert_eq!(
            decide(handshake, None, 10),
            worker,
            "the program closed the socket"
        );
        assert_eq!(
            decide(handshake, Some(21), 11),
            Role::Program,
            "started by a job"
        );
        assert_eq!(decide(handshake, None, 11), Role::Program);
    }

    #[test]
    fn this_test_process_is_an_ordinary_program() {
        assert_eq!(role(), Role::Program);
        refuse_unless_hooked("anything");
    }
}
