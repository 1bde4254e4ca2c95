//! `Process`: what others may do with a process while its supervisor looks after it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::task::{Poll, ready};

use async_io::Async;
use async_process::{Child, ChildStderr, ChildStdin, ChildStdout};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::error::ProcessError;
use crate::cancel::lock;

/// A process that runs, or ran, under the eyes of [`run_process`](super::run_process).
///
/// Its supervisor owns the process; this is a handle, obtained by
/// [`RunProcess::supervise`](super::RunProcess::supervise) or handed to
/// [`RunProcess::deliver_cancel`](super::RunProcess::deliver_cancel).
///
/// # Dropping
///
/// Closes the pipes that are still in here; the process goes on.
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
    /// Its standard input, if that was set to `Stdio::piped()`. Dropping it is the end of input.
    pub stdin: Option<ChildStdin>,
    /// Its standard output, if that was set to `Stdio::piped()`.
    pub stdout: Option<ChildStdout>,
    /// Its standard error, if that was set to `Stdio::piped()`.
    pub stderr: Option<ChildStderr>,
    shared: Arc<Shared>,
}

impl Process {
    /// Returns the process id. It names this process only as long as that has not been waited for; to send a signal, use
    /// [`signal`](Self::signal).
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

    /// Waits until the process has ended, and tells how. Any number of tasks may wait.
    ///
    /// # Cancellation
    ///
    /// Atomic: if cancelled, nothing has happened.
    ///
    /// # Errors
    ///
    /// [`ProcessErrorKind::Lost`](super::ProcessErrorKind::Lost) if it cannot be told, above all because the supervisor
    /// was dropped from outside, which kills the process.
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
        self.shared.ended().await
    }

    /// Returns how the process ended; `None` if it runs, or if that cannot be told.
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
        match self.shared.look() {
            Look::Ended(status) => Some(status),
            Look::Running | Look::Lost => None,
        }
    }

    /// Sends SIGTERM, which asks the process to end. Does nothing if it has ended.
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
        self.shared.send(Signal::TERM);
    }

    /// Sends SIGKILL, which ends the process. Does nothing if it has ended.
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
        self.shared.send(Signal::KILL);
    }

    /// Sends a signal, by its number. Does nothing if the process has ended.
    ///
    /// # Errors
    ///
    /// If there is no such signal, or if the process may not be signalled (it may have become another user's).
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
    ///     assert!(process.signal(-1).is_err());
    ///     process.signal(1).unwrap(); // SIGHUP
    ///     assert_eq!(process.wait().await.unwrap().signal(), Some(1));
    /// }));
    /// ```
    pub fn signal(&self, number: i32) -> io::Result<()> {
        let signal = Signal::from_named_raw(number)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.shared.try_send(signal)
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

/// What the handles and the supervisor share.
pub(super) struct Shared {
    program: String,
    pid: u32,
    pidfd: Async<OwnedFd>,
    life: Mutex<Life>,
}

enum Life {
    /// Not known to have ended. Only whoever takes the child out of here waits for it, so that the id stays its own.
    Running(Child),
    Ended(ExitStatus),
    /// It has ended, or is being killed and reaped in the background.
    Lost,
}

/// A glance at a process's life.
pub(super) enum Look {
    Running,
    Ended(ExitStatus),
    Lost,
}

impl Shared {
    /// Takes a process over. If that fails it is killed, and reaped in the background.
    fn adopt(program: &str, mut child: Child) -> io::Result<Arc<Self>> {
        let pid = child.id();
        let raw = Pid::from_raw(pid.cast_signed()).expect("process ids are positive");
        // The child was not waited for yet, so the number is its own.
        let opened = pidfd_open(raw, PidfdFlags::empty())
            .map_err(io::Error::from)
            .and_then(Async::new);
        match opened {
            Ok(pidfd) => Ok(Arc::new(Shared {
                program: program.to_string(),
                pid,
                pidfd,
                life: Mutex::new(Life::Running(child)),
            })),
            Err(error) => {
                // It fails if the process has ended by itself, which is as good.
                _ = child.kill();
                Err(error)
            }
        }
    }

    pub(super) fn look(&self) -> Look {
        let mut life = lock(&self.life);
        if let Life::Running(child) = &mut *life {
            match child.try_status() {
                Ok(None) => return Look::Running,
                Ok(Some(status)) => *life = Life::Ended(status),
                // Somebody else has waited for it.
                Err(_) => *life = Life::Lost,
            }
        }
        match *life {
            Life::Ended(status) => Look::Ended(status),
            Life::Running(_) | Life::Lost => Look::Lost,
        }
    }

    pub(super) async fn ended(&self) -> Result<ExitStatus, ProcessError> {
        let mut readable = pin!(self.pidfd.readable());
        // Looks at every poll: what the reactor reports in the turn in which it was asked, it takes for old news.
        poll_fn(|cx| {
            loop {
                match self.look() {
                    Look::Running => {}
                    Look::Ended(status) => return Poll::Ready(Ok(status)),
                    Look::Lost => return Poll::Ready(Err(ProcessError::lost(&self.program))),
                }
                ready!(readable.as_mut().poll(cx))
                    .map_err(|error| ProcessError::io(&self.program, error))?;
                readable.set(self.pidfd.readable());
            }
        })
        .await
    }

    fn try_send(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(self.pidfd.get_ref(), signal) {
            // It has ended: documented, that is no error.
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn send(&self, signal: Signal) {
        if let Err(error) = self.try_send(signal) {
            let (program, pid) = (&self.program, self.pid);
            tracing::warn!(program, pid, ?signal, %error, "a process could not be sent a signal");
        }
    }
}

/// The supervisor's hold on a process: while it runs, dropping this kills it, and has it reaped in the background.
pub(super) struct Charge(pub(super) Arc<Shared>);

impl Charge {
    pub(super) fn take(program: &str, child: Child) -> io::Result<Self> {
        Shared::adopt(program, child).map(Charge)
    }

    /// A handle on the process.
    pub(super) fn process(&self) -> Process {
        Process {
            stdin: None,
            stdout: None,
            stderr: None,
            shared: self.0.clone(),
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut life = lock(&self.0.life);
        if let Life::Running(_) = &*life {
            self.0.send(Signal::KILL);
            // async-process reaps a child that is dropped.
            *life = Life::Lost;
        }
    }
}
