//! On which side of the border this process stands, and what happens to a worker that goes astray.
//!
//! The launcher gives a worker its end of the socket as standard input, and names the socket in an environment variable
//! together with its own process id. A process is a worker if its standard input *is* that socket. The variable alone
//! says nothing: whatever a job starts inherits it too, harmlessly. A program that removes it before the hook, as one that
//! clears its environment does, is still told: the kernel keeps what the process was executed with.
//!
//! A worker runs the program's `main` again up to the hook. If it gets to another call of ours first, the program has
//! the hook in the wrong place, and to go on would run the whole program twice (and, as that would start workers in
//! turn, without end). So it says what is wrong, to its parent too, and exits.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::sys::socket;
use crate::transport::frame;
use crate::transport::frame::Kind;

/// Names the worker's socket: `<process id of the parent>:<inode of the worker's end>`.
pub(crate) const VARIABLE: &str = "SEEDBED_WORKER";

/// The code that a worker which went astray exits with: `EX_SOFTWARE` of `sysexits.h`.
const ASTRAY: i32 = 70;

/// The value of [`VARIABLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summons {
    pub(crate) parent: u32,
    pub(crate) inode: u64,
}

impl fmt::Display for Summons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.parent, self.inode)
    }
}

impl Summons {
    fn parse(text: &OsStr) -> Option<Self> {
        let (parent, inode) = text.to_str()?.split_once(':')?;
        Some(Self {
            parent: parent.parse().ok()?,
            inode: inode.parse().ok()?,
        })
    }
}

/// What this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Nobody's worker.
    Free,
    /// A worker on its way to the hook.
    Summoned(Summons),
    /// A worker that has reached the hook, on whichever thread.
    Serving,
}

/// The role as far as it is known: a cache, so that asking costs one relaxed load. Relaxed is enough, because what it
/// says is recomputed from the process's own state when unknown, and never depends on other memory.
static KNOWN: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const FREE: u8 = 1;
const SUMMONED: u8 = 2;
const SERVING: u8 = 3;

/// Returns what this process is.
pub(crate) fn role() -> Role {
    match KNOWN.load(Ordering::Relaxed) {
        FREE => Role::Free,
        SERVING => Role::Serving,
        _ => find_out(),
    }
}

/// Marks this worker as having reached the hook; `false` if another thread was first.
pub(crate) fn begin_to_serve() -> bool {
    KNOWN.swap(SERVING, Ordering::Relaxed) != SERVING
}

/// Ends this process, with a message that names the fix, if it is a worker that has not reached the hook. Every function
/// of ours that a program may call before the hook asks this first; in any other process it costs a relaxed load.
pub(crate) fn refuse_unless_hooked(call: &str) {
    if let Role::Summoned(_) = role() {
        refuse(call);
    }
}

#[cold]
fn find_out() -> Role {
    let summons = std::env::var_os(VARIABLE)
        .or_else(|| inherited(&std::fs::read("/proc/self/environ").ok()?)) // without `/proc` there are no workers
        .and_then(|text| Summons::parse(&text));
    let role = match summons {
        None => Role::Free,
        Some(summons) => decide(
            summons,
            socket::socket_inode(rustix::stdio::stdin()),
            parent_id(),
        ),
    };
    let known = match role {
        Role::Free => FREE,
        Role::Summoned(_) => SUMMONED,
        Role::Serving => SERVING,
    };
    // Another thread may have begun to serve meanwhile; that must not be undone.
    match KNOWN.compare_exchange(UNKNOWN, known, Ordering::Relaxed, Ordering::Relaxed) {
        Err(SERVING) => Role::Serving,
        Ok(_) | Err(_) => role,
    }
}

/// Finds the variable in the environment that a process was executed with, whatever the program has made of it since: a
/// worker that took itself for free would start workers, and those others, without end.
fn inherited(environment: &[u8]) -> Option<OsString> {
    environment
        .split(|&byte| byte == 0)
        .find_map(|entry| entry.strip_prefix(VARIABLE.as_bytes())?.strip_prefix(b"="))
        .map(|value| OsString::from_vec(value.to_vec()))
}

/// A process is a worker if its standard input is the socket that the variable names. One that has the parent which the
/// variable names is a worker as well, whose program has put something else on its standard input: it cannot serve, and
/// must not go on as if it were free: each copy of the program would start another. (The one process that this wrongs is
/// an orphan of a job's whose grandparent, by being process 1, has become its parent.)
fn decide(summons: Summons, stdin: Option<u64>, parent: u32) -> Role {
    match stdin == Some(summons.inode) || parent == summons.parent {
        true => Role::Summoned(summons),
        false => Role::Free,
    }
}

fn parent_id() -> u32 {
    std::os::unix::process::parent_id()
}

#[cold]
fn refuse(call: &str) -> ! {
    let message = format!(
        "it called `{call}` before it reached seedbed's hook. A worker executes `main` again up to the hook: enter with \
         `seedbed::run`, `seedbed::main!` or `seedbed::test!`, or call `seedbed::init()` first thing in `main` (or in the \
         test), before any other call into seedbed"
    );
    go_astray(&message)
}

/// Tells the parent and whoever reads standard error why this worker cannot serve, and exits.
pub(crate) fn go_astray(message: &str) -> ! {
    // If the standard input is no longer the socket, or the parent has gone, there is nobody to tell but the terminal.
    let told = socket::send_all(
        rustix::stdio::stdin(),
        &frame::of_bytes(Kind::Lost, 0, message.as_bytes()),
    );
    if told.is_err() {
        let words = format!(
            "seedbed: worker process {} is lost: {message}",
            std::process::id()
        );
        let _ = writeln!(std::io::stderr(), "{words}"); // a closed standard error leaves only the exit code to speak
    }
    std::process::exit(ASTRAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_reads_back_as_it_was_written_and_garbage_names_nothing() {
        let summons = Summons {
            parent: 4711,
            inode: 1 << 40,
        };
        assert_eq!(
            Summons::parse(OsStr::new(&summons.to_string())),
            Some(summons)
        );
        for garbage in ["", ":", "1", "1:", ":1", "a:1", "1:-1", "1:1:1"] {
            assert_eq!(Summons::parse(OsStr::new(garbage)), None, "{garbage:?}");
        }
    }

    #[test]
    fn the_variable_is_found_among_others_by_its_whole_name() {
        let environment = b"A=SEEDBED_WORKER=1:2\0SEEDBED_WORKERS=3:4\0SEEDBED_WORKER=5:6\0Z=\0";
        assert_eq!(inherited(environment), Some("5:6".into()));
        for without in [&b""[..], b"\0", b"SEEDBED_WORKER\0", b"A=B"] {
            assert_eq!(inherited(without), None);
        }
    }

    #[test]
    fn a_process_is_a_worker_by_its_socket_or_by_its_parent_and_otherwise_free() {
        let summons = Summons {
            parent: 10,
            inode: 20,
        };
        assert_eq!(decide(summons, Some(20), 10), Role::Summoned(summons));
        assert_eq!(
            decide(summons, Some(20), 1),
            Role::Summoned(summons),
            "its parent died: the hook will see to it"
        );
        assert_eq!(
            decide(summons, None, 10),
            Role::Summoned(summons),
            "the program took its standard input"
        );
        assert_eq!(
            decide(summons, Some(21), 11),
            Role::Free,
            "started by a job"
        );
        assert_eq!(decide(summons, None, 11), Role::Free);
    }

    #[test]
    fn this_test_process_is_free() {
        assert_eq!(role(), Role::Free);
        refuse_unless_hooked("anything");
    }
}
