//! The role of this process: an ordinary program, or a worker of a seedbed program.
//!
//! The launcher gives a worker one end of a socket as standard input, and passes a [`Handshake`] in
//! the environment: the parent's process id and the inode of the socket. A process is a worker if
//! its standard input is that socket. The variable alone proves nothing, because the processes that
//! a job starts inherit it.
//!
//! A worker runs the program's `main` again up to the hook. If the program calls another function
//! of this crate first, the hook is in the wrong place: without an end, the whole program would run
//! twice and start workers in turn. So that function reports the mistake and exits.
//!
//! # The report to the parent
//!
//! The report has a fixed form, independent of the rest of the protocol: [`REPORT_PREFIX`], the
//! length of the text as eight bytes in little-endian order, and the text in UTF-8.
//! `transport::frame` chose its header such that the parent reads a report as a frame of the kind
//! `CannotServe`; a test there checks that.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::parent_id;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::sys::socket;

/// The environment variable that holds the [`Handshake`].
pub(crate) const HANDSHAKE_VARIABLE: &str = "SEEDBED_WORKER";

/// The first bytes of a worker's report that it cannot serve.
const REPORT_PREFIX: [u8; 16] = *b"sbd\x01\x05\0\0\0\0\0\0\0\0\0\0\0";

/// The exit code of a worker that cannot serve: `EX_SOFTWARE` of `sysexits.h`.
const EXIT_CANNOT_SERVE: i32 = 70;

/// Tells a worker which process started it and which socket leads there. Its text is
/// `<parent>:<inode>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handshake {
    /// The parent's process id.
    pub(crate) parent: u32,
    /// The inode of the worker's end of the socket.
    pub(crate) inode: u64,
}

impl fmt::Display for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.parent, self.inode)
    }
}

impl Handshake {
    fn parse(text: &OsStr) -> Option<Self> {
        let (parent, inode) = text.to_str()?.split_once(':')?;
        Some(Self {
            parent: parent.parse().ok()?,
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
    /// A worker in which some thread has reached the hook.
    Worker,
}

/// Caches the role, so that a query costs one relaxed load. Relaxed is enough: an unknown role is
/// computed from the process's own state, and no other memory depends on the value.
static CACHED: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const PROGRAM: u8 = 1;
const UNHOOKED_WORKER: u8 = 2;
const WORKER: u8 = 3;

/// Returns the role of this process.
pub(crate) fn role() -> Role {
    match CACHED.load(Ordering::Relaxed) {
        PROGRAM => Role::Program,
        WORKER => Role::Worker,
        _ => determine(),
    }
}

/// Marks this worker as having reached the hook. Returns `false` if another thread was first.
pub(crate) fn start_serving() -> bool {
    CACHED.swap(WORKER, Ordering::Relaxed) != WORKER
}

/// Ends this process with a message that names the fix, if it is a worker that has not reached the
/// hook.
///
/// Each public function that a program may call before the hook calls this first. In any other
/// process it costs one relaxed load.
pub(crate) fn refuse_unless_hooked(call: &str) {
    if let Role::UnhookedWorker(_) = role() {
        refuse(call);
    }
}

#[cold]
fn determine() -> Role {
    let handshake = std::env::var_os(HANDSHAKE_VARIABLE)
        .or_else(|| find_handshake(&std::fs::read("/proc/self/environ").ok()?))
        .and_then(|text| Handshake::parse(&text));
    let role = match handshake {
        None => Role::Program,
        Some(handshake) => decide(
            handshake,
            socket::socket_inode(rustix::stdio::stdin()),
            parent_id(),
        ),
    };
    let value = match role {
        Role::Program => PROGRAM,
        Role::UnhookedWorker(_) => UNHOOKED_WORKER,
        Role::Worker => WORKER,
    };
    // Another thread may have called `start_serving` since the load, which must not be undone.
    match CACHED.compare_exchange(UNKNOWN, value, Ordering::Relaxed, Ordering::Relaxed) {
        Err(WORKER) => Role::Worker,
        Ok(_) | Err(_) => role,
    }
}

/// Finds the handshake in the environment that the process was executed with. The program may have
/// cleared its own copy of the environment; a worker that did so must not take itself for an
/// ordinary program and start workers.
fn find_handshake(environment: &[u8]) -> Option<OsString> {
    environment
        .split(|&byte| byte == 0)
        .find_map(|entry| {
            entry
                .strip_prefix(HANDSHAKE_VARIABLE.as_bytes())?
                .strip_prefix(b"=")
        })
        .map(|value| OsString::from_vec(value.to_vec()))
}

/// Decides whether a process with this handshake, standard input and parent is a worker.
///
/// A process whose parent is the one in the handshake is a worker too, even if the program has
/// replaced its standard input: it cannot serve, but as an ordinary program it would start another
/// such process. (One process is classified wrongly: an orphan that a job started, if the worker's
/// parent is process 1 and so has become the orphan's parent.)
fn decide(handshake: Handshake, stdin: Option<u64>, parent: u32) -> Role {
    if stdin == Some(handshake.inode) || parent == handshake.parent {
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
/// through the standard input, the report goes to standard error.
pub(crate) fn exit_cannot_serve(message: &str) -> ! {
    let sent = socket::send_all(rustix::stdio::stdin(), &report(message));
    if sent.is_err() {
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
            inode: 1 << 40,
        };
        assert_eq!(
            Handshake::parse(OsStr::new(&handshake.to_string())),
            Some(handshake)
        );
        for malformed in ["", ":", "1", "1:", ":1", "a:1", "1:-1", "1:1:1"] {
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
        assert_eq!(find_handshake(environment), Some("5:6".into()));
        for without in [&b""[..], b"\0", b"SEEDBED_WORKER\0", b"A=B"] {
            assert_eq!(find_handshake(without), None);
        }
    }

    #[test]
    fn a_process_is_a_worker_by_its_socket_or_by_its_parent_and_otherwise_a_program() {
        let handshake = Handshake {
            parent: 10,
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
            "the program replaced its standard input"
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
