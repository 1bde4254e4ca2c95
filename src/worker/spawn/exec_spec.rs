//! `ExecSpec`: how to execute this program so that it reaches a hook.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use crate::sys::directory::{self, DirectoryId, WorkingDirectory};
use crate::worker::child::Stdout;

/// How to execute this program so that it reaches the same hook.
#[derive(Debug)]
pub(crate) struct ExecSpec {
    /// Argument zero, which the program may look at.
    pub(in crate::worker) argument_zero: OsString,
    pub(in crate::worker) arguments: Vec<OsString>,
    pub(in crate::worker) stdout: Stdout,
    directory: Option<Arc<HookDirectory>>,
    /// The threads that the program had at the hook besides the one that reached it.
    other_threads: usize,
    outcome: AtomicU8,
    /// A fork server that was executed so had several threads at the hook, so no other need be
    /// tried.
    is_multithreaded: AtomicBool,
}

/// The working directory of this process at a hook, and its root directory then.
#[derive(Debug)]
pub(in crate::worker) struct HookDirectory {
    place: Place,
    root: DirectoryId,
}

#[derive(Debug)]
enum Place {
    Open(WorkingDirectory),
    /// Jobs must not find a descriptor of this crate under a number that they use.
    Path(PathBuf),
}

impl HookDirectory {
    /// Returns the working directory of the first call, and keeps it open. Returns `None` if there
    /// was no room for that.
    pub(in crate::worker) fn of_first_hook() -> Option<Arc<Self>> {
        static OPEN: OnceLock<Option<Arc<HookDirectory>>> = OnceLock::new();
        let open = || {
            Some(Arc::new(Self {
                place: Place::Open(WorkingDirectory::present().ok()?),
                root: directory::root().ok()?,
            }))
        };
        OPEN.get_or_init(open).clone()
    }

    /// Remembers the path of the present working directory.
    pub(in crate::worker) fn path_of_present() -> Option<Arc<Self>> {
        Some(Arc::new(Self {
            place: Place::Path(std::env::current_dir().ok()?),
            root: directory::root().ok()?,
        }))
    }

    /// Whether this is known to be the working directory still.
    fn is_present(&self) -> bool {
        match &self.place {
            Place::Open(former) => directory::present().is_ok_and(|present| present == former.id),
            Place::Path(_) => false,
        }
    }

    /// Opens the directory once more. Returns `None` if the process has changed its root directory:
    /// it must not lead others out of that. Also if the directory, or its descriptor, is gone.
    fn open(&self) -> Option<WorkingDirectory> {
        if directory::root().ok()? != self.root {
            return None;
        }
        match &self.place {
            Place::Open(directory) => directory.try_clone().ok(),
            Place::Path(path) => WorkingDirectory::at(path).ok(),
        }
    }
}

/// What came of the processes that were executed so.
const UNTRIED: u8 = 0;
const WORKED: u8 = 1;
const USELESS: u8 = 2;

impl ExecSpec {
    pub(in crate::worker) fn new(
        arguments: Vec<OsString>,
        stdout: Stdout,
        directory: Option<Arc<HookDirectory>>,
        other_threads: usize,
    ) -> Self {
        ExecSpec {
            argument_zero: std::env::args_os().next().unwrap_or_default(),
            arguments,
            stdout,
            directory,
            other_threads,
            outcome: AtomicU8::new(UNTRIED),
            is_multithreaded: AtomicBool::new(false),
        }
    }

    /// Returns the arguments of the new process, its name included.
    pub(in crate::worker) fn command_line(&self) -> Vec<CString> {
        let all = std::iter::once(&self.argument_zero).chain(&self.arguments);
        all.map(|argument| {
            CString::new(argument.as_bytes()).expect("an argument of a process has no zero byte")
        })
        .collect()
    }

    /// Returns the working directory at the hook and the present one, if they differ.
    pub(in crate::worker) fn former_directory(
        &self,
    ) -> Option<(WorkingDirectory, WorkingDirectory)> {
        let directory = self.directory.as_ref()?;
        if directory.is_present() {
            return None; // as nearly always; this costs a fifth of opening both
        }
        let former = directory.open()?;
        let present = WorkingDirectory::present().ok()?;
        (former.id != present.id).then_some((former, present))
    }

    pub(in crate::worker) fn leads_to_same_hook_as(&self, other: &ExecSpec) -> bool {
        (&self.argument_zero, &self.arguments, self.stdout)
            == (&other.argument_zero, &other.arguments, other.stdout)
    }

    /// Returns how many threads the program had at the hook besides the one that reached it. They
    /// would run on in a worker. A test program's main thread, which waits, does not count.
    pub(in crate::worker) fn other_threads(&self) -> usize {
        match self.stdout {
            Stdout::Inherited => self.other_threads,
            Stdout::Deferred => 0,
        }
    }

    /// Returns the name of the test that this executes, if it executes one.
    pub(in crate::worker) fn test_name(&self) -> Option<&str> {
        match (self.stdout, &*self.arguments) {
            (Stdout::Deferred, [_, name, ..]) => name.to_str(),
            _ => None,
        }
    }

    /// Whether a process that was executed so has reached the hook.
    pub(in crate::worker) fn has_worked(&self) -> bool {
        self.outcome.load(Ordering::Relaxed) == WORKED
    }

    pub(in crate::worker) fn mark_worked(&self) {
        self.outcome.store(WORKED, Ordering::Relaxed);
    }

    /// Whether a process that was executed so found no such test.
    pub(in crate::worker) fn is_useless(&self) -> bool {
        self.outcome.load(Ordering::Relaxed) == USELESS
    }

    /// Records that a process that was executed so ended by itself before it reached the hook,
    /// with this code. A test program without such a test succeeds.
    pub(in crate::worker) fn ended_early(&self, code: Option<i32>) {
        if code == Some(0) && self.test_name().is_some() && !self.has_worked() {
            self.outcome.store(USELESS, Ordering::Relaxed);
        }
    }

    /// Whether the program is known to have several threads when it reaches the hook, so that it
    /// cannot fork there.
    pub(in crate::worker) fn is_multithreaded(&self) -> bool {
        self.is_multithreaded.load(Ordering::Relaxed)
    }

    pub(in crate::worker) fn mark_multithreaded(&self) {
        self.is_multithreaded.store(true, Ordering::Relaxed);
    }
}
