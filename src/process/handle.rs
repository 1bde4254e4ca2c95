//! `Process`: the handle on a process whose supervisor owns it.

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;

use super::child::{self, ChildProcess};
use super::error::ProcessError;
use super::pipes::{ChildStderr, ChildStdin, ChildStdout};
use crate::sys::primitives::lock;
use crate::sys::process::{Ended, Pidfd};
use crate::sys::process_tree::descendants_of;
use crate::sys::signal_number;

/// A handle on a process of [`run_process`](super::run_process), whose supervisor owns the process.
///
/// [`RunProcess::supervise`](super::RunProcess::supervise) sends one, and the function set by
/// [`RunProcess::deliver_cancel`](super::RunProcess::deliver_cancel) gets one.
///
/// # Dropping
///
/// Closes the pipes that are still in the handle. The process runs on.
///
/// ```
/// use seedbed::process::{Command, Stdio, run_process};
/// use seedbed::{open_nursery, run};
/// use smol::io::{AsyncReadExt, AsyncWriteExt};
///
/// run(open_nursery(|n| async move {
///     let cat = run_process(Command::new("cat")).stdin(Stdio::piped()).stdout(Stdio::piped());
///     let mut process = n.start(|started| cat.supervise(started)).await.unwrap();
///
///     let (mut stdin, mut stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
///     stdin.write_all(b"meow").await.unwrap();
///     drop(stdin); // the end of its input
///     let mut heard = String::new();
///     stdout.read_to_string(&mut heard).await.unwrap();
///     assert_eq!(heard, "meow");
///     assert!(process.wait().await.unwrap().success());
/// }));
/// ```
pub struct Process {
    /// The standard input, if it was set to `Stdio::piped()`. Dropping it ends the input.
    pub stdin: Option<ChildStdin>,
    /// The standard output, if it was set to `Stdio::piped()`.
    pub stdout: Option<ChildStdout>,
    /// The standard error, if it was set to `Stdio::piped()`.
    pub stderr: Option<ChildStderr>,
    shared: Arc<Shared>,
}

impl Process {
    /// Returns the process id. The kernel may give it to another process once this one has been
    /// reaped, so use [`signal`](Self::signal) to send a signal.
    ///
    /// ```
    /// use seedbed::process::{Command, run_process};
    /// use seedbed::{open_nursery, run};
    ///
    /// run(open_nursery(|n| async move {
    ///     let mut sleep = Command::new("sleep");
    ///     sleep.arg("1000");
    ///     let process = n.start(|started| run_process(sleep).check(false).supervise(started)).await.unwrap();
    ///     assert!(std::fs::exists(format!("/proc/{}", process.id())).unwrap());
    ///     n.cancel();
    /// }));
    /// ```
    pub fn id(&self) -> u32 {
        self.shared.pid
    }

    /// Waits until the process has ended, and returns its exit status. Any number of tasks may
    /// wait.
    ///
    /// # Cancellation
    ///
    /// A cancelled wait changes nothing.
    ///
    /// # Errors
    ///
    /// [`ProcessErrorKind::Lost`](super::ProcessErrorKind::Lost) if the status is not known, most
    /// often because the supervisor's future was dropped, which kills the process.
    ///
    /// ```
    /// use std::os::unix::process::ExitStatusExt;
    /// use seedbed::process::{Command, run_process};
    /// use seedbed::{open_nursery, run};
    ///
    /// run(open_nursery(|n| async move {
    ///     let mut sleep = Command::new("sleep");
    ///     sleep.arg("1000");
    ///     let process = n.start(|started| run_process(sleep).check(false).supervise(started)).await.unwrap();
    ///     process.kill();
    ///     assert_eq!(process.wait().await.unwrap().signal(), Some(9));
    /// }));
    /// ```
    pub async fn wait(&self) -> Result<ExitStatus, ProcessError> {
        self.shared.wait().await
    }

    /// Returns the exit status. `None` if the process runs, or if its status is not known.
    ///
    /// ```
    /// use seedbed::process::{Command, run_process};
    /// use seedbed::{open_nursery, run};
    ///
    /// run(open_nursery(|n| async move {
    ///     let mut sleep = Command::new("sleep");
    ///     sleep.arg("1000");
    ///     let process = n.start(|started| run_process(sleep).check(false).supervise(started)).await.unwrap();
    ///     assert_eq!(process.try_status(), None);
    ///     process.kill();
    ///     let status = process.wait().await.unwrap();
    ///     assert_eq!(process.try_status(), Some(status));
    /// }));
    /// ```
    pub fn try_status(&self) -> Option<ExitStatus> {
        self.shared.try_status().unwrap_or(None)
    }

    /// Sends SIGTERM, which asks the process to end. Does nothing if it has ended. With
    /// [`kill_tree`](super::RunProcess::kill_tree), its descendants get SIGTERM too.
    ///
    /// ```
    /// use std::os::unix::process::ExitStatusExt;
    /// use seedbed::process::{Command, run_process};
    /// use seedbed::{open_nursery, run};
    ///
    /// run(open_nursery(|n| async move {
    ///     let mut sleep = Command::new("sleep");
    ///     sleep.arg("1000");
    ///     let process = n.start(|started| run_process(sleep).check(false).supervise(started)).await.unwrap();
    ///     process.terminate();
    ///     assert_eq!(process.wait().await.unwrap().signal(), Some(15));
    /// }));
    /// ```
    pub fn terminate(&self) {
        self.shared.terminate();
    }

    /// Sends SIGKILL, which ends the process. Does nothing if it has ended. With
    /// [`kill_tree`](super::RunProcess::kill_tree), its descendants are killed too.
    ///
    /// ```
    /// use std::os::unix::process::ExitStatusExt;
    /// use seedbed::process::{Command, run_process};
    /// use seedbed::{open_nursery, run};
    ///
    /// run(open_nursery(|n| async move {
    ///     let mut sleep = Command::new("sleep");
    ///     sleep.arg("1000");
    ///     let process = n.start(|started| run_process(sleep).check(false).supervise(started)).await.unwrap();
    ///     process.kill();
    ///     process.wait().await.unwrap();
    ///     process.kill(); // harmless
    ///     assert_eq!(process.try_status().unwrap().signal(), Some(9));
    /// }));
    /// ```
    pub fn kill(&self) {
        self.shared.kill();
    }

    /// Sends a signal to the process alone, by its number. Does nothing if the process has ended.
    /// The numbers are 1 to 31, and those from the C library's `SIGRTMIN` to its `SIGRTMAX`.
    ///
    /// # Errors
    ///
    /// If there is no such signal, or if this program may not signal the process, which may run as
    /// another user. 0, which `kill` takes as a question, is no signal: ask
    /// [`try_status`](Self::try_status).
    ///
    /// ```
    /// use seedbed::process::{Command, run_process};
    /// use seedbed::{open_nursery, run};
    /// use std::os::unix::process::ExitStatusExt;
    ///
    /// run(open_nursery(|n| async move {
    ///     let mut sleep = Command::new("sleep");
    ///     sleep.arg("1000");
    ///     let process = n.start(|started| run_process(sleep).check(false).supervise(started));
    ///     let process = process.await.unwrap();
    ///     assert_eq!(process.try_status(), None);
    ///     assert!(process.signal(0).is_err());
    ///     process.signal(10).unwrap(); // SIGUSR1
    ///     assert_eq!(process.wait().await.unwrap().signal(), Some(10));
    /// }));
    /// ```
    pub fn signal(&self, number: i32) -> io::Result<()> {
        signal_number::send(&self.shared.pidfd, number)
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("program", &self.shared.program)
            .field("id", &self.shared.pid)
            .field("status", &self.try_status())
            .finish_non_exhaustive()
    }
}

/// The part of a process that its handles and its supervisor share.
pub(super) struct Shared {
    program: String,
    pid: u32,
    pidfd: Arc<Pidfd>,
    /// `None` once the supervisor was dropped while the process ran.
    child: Mutex<Option<ChildProcess>>,
    kills_tree: bool,
    /// The descendants found when the process was asked to end. A descendant that outlives the
    /// process cannot be found any more afterwards.
    noted: Mutex<Vec<Pidfd>>,
}

impl Shared {
    /// Returns how the process ended. `Ok(None)` while it runs.
    pub(super) fn try_status(&self) -> Result<Option<ExitStatus>, ProcessError> {
        let mut child = lock(&self.child);
        let ended = match &mut *child {
            Some(child) => child.try_reap(),
            None => return Err(ProcessError::lost(&self.program)),
        };
        ended.map(|ended| self.status(ended)).transpose()
    }

    pub(super) async fn wait(&self) -> Result<ExitStatus, ProcessError> {
        match child::wait(&self.child).await {
            Some(ended) => self.status(ended),
            None => Err(ProcessError::lost(&self.program)),
        }
    }

    fn status(&self, ended: Ended) -> Result<ExitStatus, ProcessError> {
        // The layout of `wait`'s status word on Linux.
        let raw = match ended {
            Ended::Exited(code) => (code & 0xff) << 8,
            Ended::Signalled { signal, core } => signal | if core { 0x80 } else { 0 },
            Ended::Unknown => return Err(ProcessError::lost(&self.program)),
        };
        Ok(ExitStatus::from_raw(raw))
    }

    fn terminate(&self) {
        self.note_descendants();
        self.send(&self.pidfd, Signal::TERM);
        for descendant in &*lock(&self.noted) {
            self.send(descendant, Signal::TERM);
        }
    }

    fn kill(&self) {
        if !self.kills_tree {
            return self.send(&self.pidfd, Signal::KILL);
        }
        if let Some(child) = &mut *lock(&self.child) {
            child.kill();
        }
    }

    /// Looks for the process's descendants, if they are to end with it.
    pub(super) fn note_descendants(&self) {
        if self.kills_tree {
            lock(&self.noted).extend(descendants_of(&self.pidfd));
        }
    }

    pub(super) fn kill_noted_descendants(&self) {
        for descendant in lock(&self.noted).drain(..) {
            self.send(&descendant, Signal::KILL);
        }
    }

    fn send(&self, pidfd: &Pidfd, signal: Signal) {
        if let Err(error) = pidfd.send(signal) {
            let (program, pid) = (&self.program, pidfd.pid());
            tracing::warn!(program, pid, ?signal, %error, "a process could not be sent a signal");
        }
    }
}

/// The supervisor's ownership of a process. Dropping it while the process runs kills the process
/// and reaps it in the background.
pub(super) struct Supervised(pub(super) Arc<Shared>);

impl Supervised {
    pub(super) fn new(program: &str, mut child: ChildProcess, kills_tree: bool) -> Self {
        if kills_tree {
            child.set_kills_tree();
        }
        let pidfd = child.descriptor().expect("nothing has reaped it yet");
        Supervised(Arc::new(Shared {
            program: program.to_string(),
            pid: child.pid(),
            pidfd,
            child: Mutex::new(Some(child)),
            kills_tree,
            noted: Mutex::default(),
        }))
    }

    /// Returns a handle on the process.
    pub(super) fn process(&self) -> Process {
        Process {
            stdin: None,
            stdout: None,
            stderr: None,
            shared: self.0.clone(),
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let mut child = lock(&self.0.child);
        let runs = child
            .as_mut()
            .is_some_and(|child| child.try_reap().is_none());
        let taken = if runs { child.take() } else { None };
        drop(child);
        drop(taken); // outside the lock: this kills the process, and wakes tasks that wait for its end
    }
}
