//! A child process, held by its pidfd: it is killed, waited for and reaped through that descriptor.
//! Where no descriptor can be had, its number takes the place of the descriptor: the kernel gives
//! the number of a child to no other process before the child is reaped.
//!
//! `async_process::Child` is not used. It signals by process id (which is safe, as it also reaps,
//! but the rule here is stricter). And it opens and registers the pidfd only after the process
//! runs, so that a caller that is out of descriptors gets an error *and* an unreaped child. Here
//! the launcher, which may block, handles that case.
//!
//! The owner of the process polls the pidfd through the reactor; this file only asks the kernel.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process, kill_process_group,
    pidfd_open, pidfd_send_signal, waitid,
};

/// The way in which a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The process exited with this code.
    Exited(i32),
    /// A signal killed the process.
    Signalled { signal: i32, core: bool },
    /// The process ended, but another part of this program reaped it, so the way is unknown.
    Unknown,
}

/// The status of a child process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildStatus {
    Running,
    /// The child has asked to be traced by this process (`PTRACE_TRACEME`), and a signal has
    /// stopped it. Only a debugger would let it go on.
    Trapped,
    Ended(Ended),
}

/// A child process that has not been reaped by this crate.
#[derive(Debug)]
pub(crate) struct Pidfd {
    fd: OwnedFd,
    pid: u32,
}

impl Pidfd {
    /// Returns whether the process has ended, reaped or not.
    pub(crate) fn has_ended(&self) -> bool {
        let mut this = [PollFd::new(&self.fd, PollFlags::IN)];
        // An error means a lack of memory: then nothing is known, and the process counts as
        // running.
        retry_on_intr(|| poll(&mut this, Some(&Timespec::default()))).is_ok_and(|ready| ready > 0)
    }

    /// Opens the descriptor of a child that was just spawned, and was not waited for.
    #[cfg(test)]
    pub(crate) fn of(child: std::process::Child) -> io::Result<Self> {
        Number(Pid::from_child(&child)).open()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends SIGKILL; see [`send`](Self::send).
    pub(crate) fn kill(&self) -> io::Result<()> {
        self.send(Signal::KILL)
    }

    /// Sends a signal. Does nothing if the process has ended, whether it was reaped or not.
    ///
    /// # Errors
    ///
    /// Fails if this process may not signal that one: its user has changed, or the call is
    /// forbidden.
    pub(crate) fn send(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends SIGKILL to the process group that this process leads, itself included. Does nothing if
    /// there is no such group.
    ///
    /// A group has no descriptor, only the number of its leader, which cannot be reused before the
    /// leader is reaped. So this asks first whether another part of the program has reaped the
    /// leader; then no signal is sent.
    pub(crate) fn kill_group(&self) {
        kill_group(self.pid, self.id());
    }

    /// Reaps the process if it has ended, after killing its group if it leads one. A call after
    /// `Some` is an error of the kernel (`ECHILD`), so the owner keeps the result.
    pub(crate) fn try_reap(&self, leads_group: bool) -> io::Result<ChildStatus> {
        try_reap(self.pid, self.id(), leads_group)
    }

    fn id(&self) -> WaitId<'_> {
        WaitId::PidFd(self.fd.as_fd())
    }
}

/// A child of this process that has not been waited for, known by its number alone. The number
/// cannot be reused before the child is reaped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number(Pid);

impl Number {
    pub(crate) fn new(pid: u32) -> Option<Self> {
        Pid::from_raw(pid.cast_signed()).map(Self)
    }

    /// Opens the child's descriptor.
    pub(crate) fn open(self) -> io::Result<Pidfd> {
        let fd = pidfd_open(self.0, PidfdFlags::empty())?;
        Ok(Pidfd {
            fd,
            pid: self.get(),
        })
    }

    /// Reaps the child like [`Pidfd::try_reap`], without a descriptor.
    pub(crate) fn try_reap(self, leads_group: bool) -> io::Result<ChildStatus> {
        try_reap(self.get(), self.id(), leads_group)
    }

    /// Sends SIGKILL to the child. Does nothing if it has ended.
    ///
    /// # Errors
    ///
    /// As for [`Pidfd::send`].
    pub(crate) fn kill(self) -> io::Result<()> {
        self.send(Signal::KILL)
    }

    /// Sends a signal to the child. Does nothing if it has ended, or if another part of the program
    /// has reaped it, so that its number may belong to another process.
    ///
    /// # Errors
    ///
    /// As for [`Pidfd::send`].
    pub(crate) fn send(self, signal: Signal) -> io::Result<()> {
        match peek(self.id()) {
            Ok(ChildStatus::Running | ChildStatus::Trapped) => Ok(kill_process(self.0, signal)?),
            Ok(ChildStatus::Ended(_)) | Err(_) => Ok(()),
        }
    }

    /// Sends SIGKILL to the process group that the child leads; see [`Pidfd::kill_group`].
    pub(crate) fn kill_group(self) {
        kill_group(self.get(), self.id());
    }

    fn id(self) -> WaitId<'static> {
        WaitId::Pid(self.0)
    }

    pub(crate) fn get(self) -> u32 {
        self.0.as_raw_nonzero().get().cast_unsigned()
    }
}

/// Returns the status of a child, without reaping it. Fails if it has been reaped.
fn peek(id: WaitId<'_>) -> io::Result<ChildStatus> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let status = retry_on_intr(|| waitid(id.clone(), options))?;
    Ok(interpret(status.as_ref()))
}

fn kill_group(pid: u32, id: WaitId<'_>) {
    let leader = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(leader) = leader
        && peek(id).is_ok()
    {
        // The members may also have changed their user, and then cannot be killed.
        let _ = kill_process_group(leader, Signal::KILL); // the group may be empty or not exist
    }
}

fn try_reap(pid: u32, id: WaitId<'_>, leads_group: bool) -> io::Result<ChildStatus> {
    if leads_group {
        // A process that ends after this check is reaped by the next one: its group has to be
        // killed first.
        let status = peek(id.clone())?;
        if !matches!(status, ChildStatus::Ended(_)) {
            return Ok(status);
        }
        // The number of the leader cannot belong to another group before it is reaped.
        kill_group(pid, id.clone());
    }
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status = retry_on_intr(|| waitid(id.clone(), options))?;
    Ok(interpret(status.as_ref()))
}

/// Reaps all children of this process that have ended, of whatever part of the program they are.
pub(crate) fn reap_all_children() {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    while let Ok(Some(_)) = retry_on_intr(|| waitid(WaitId::All, options)) {}
}

/// Looks at the threads of a child, apart from its first one, for those that have asked to be
/// traced by this process. Reaps those that have ended, without which the child does not end
/// either. Returns whether one is stopped.
pub(crate) fn has_trapped_thread(child: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{child}/task")) else {
        return false;
    };
    let numbers = threads.filter_map(|thread| thread.ok()?.file_name().to_str()?.parse().ok());
    // `__WALL`: a thread is a child that gives no signal at its end.
    let any_thread = WaitIdOptions::from_bits_retain(libc::__WALL.cast_unsigned());
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | any_thread;
    let statuses = numbers
        .filter(|&thread| thread != child)
        .filter_map(Number::new)
        .map(|thread| retry_on_intr(|| waitid(thread.id(), options)));
    // An error means that this process does not trace the thread. All are looked at.
    statuses
        .filter(|status| matches!(status, Ok(status) if interpret(status.as_ref()) == ChildStatus::Trapped))
        .count()
        > 0
}

/// Interprets the answer to a question for children that have ended. About a child that this
/// process traces, the kernel also answers that it is stopped.
fn interpret(status: Option<&WaitIdStatus>) -> ChildStatus {
    let Some(status) = status else {
        return ChildStatus::Running;
    };
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ChildStatus::Ended(Ended::Exited(code)),
        (None, Some(signal)) => ChildStatus::Ended(Ended::Signalled {
            signal,
            core: status.dumped(),
        }),
        (None, None) => ChildStatus::Trapped,
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn reap(process: &Pidfd) -> Ended {
        loop {
            if let ChildStatus::Ended(ended) = process.try_reap(false).unwrap() {
                return ended;
            }
            rustix::event::poll(
                &mut [rustix::event::PollFd::new(
                    &process.fd,
                    rustix::event::PollFlags::IN,
                )],
                None,
            )
            .unwrap();
        }
    }

    #[test]
    fn an_exit_code_is_reported() {
        let process =
            Pidfd::of(Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap()).unwrap();
        assert_eq!(reap(&process), Ended::Exited(7));
    }

    #[test]
    fn a_kill_is_reported_as_a_signal_and_killing_the_dead_is_harmless() {
        let process = Pidfd::of(Command::new("sleep").arg("1000").spawn().unwrap()).unwrap();
        assert_eq!(process.try_reap(false).unwrap(), ChildStatus::Running);
        process.kill().unwrap();
        assert_eq!(
            reap(&process),
            Ended::Signalled {
                signal: libc::SIGKILL,
                core: false
            }
        );
        process.kill().unwrap();
    }

    #[test]
    fn a_group_outlives_its_leader_until_it_is_killed_and_the_leader_can_be_reaped_then() {
        use std::io::{PipeReader, Read, pipe};
        use std::os::unix::process::CommandExt;
        let start = |script: &str| -> (Pidfd, PipeReader) {
            let (output, input) = pipe().unwrap();
            let mut shell = Command::new("sh");
            shell.args(["-c", script]).stdout(input).process_group(0);
            (Pidfd::of(shell.spawn().unwrap()).unwrap(), output)
        };
        // The shell has exited and is a zombie; its child holds the pipe.
        let (process, mut output) = start("sleep 60 & echo");
        output.read_exact(&mut [0]).unwrap();
        while peek(process.id()).unwrap() == ChildStatus::Running {
            std::thread::yield_now();
        }
        process.kill_group();
        assert_eq!(output.read(&mut [0]).unwrap(), 0, "nobody is left");
        assert_eq!(reap(&process), Ended::Exited(0));
        // After the reaping, the number may belong to another process.
        assert!(peek(process.id()).is_err());
        process.kill_group();
        // While the leader lives, it is killed with its group.
        let (process, mut output) = start("sleep 60 & echo; wait");
        output.read_exact(&mut [0]).unwrap();
        assert_eq!(peek(process.id()).unwrap(), ChildStatus::Running);
        process.kill_group();
        assert_eq!(output.read(&mut [0]).unwrap(), 0, "nobody is left");
        assert!(matches!(
            reap(&process),
            Ended::Signalled {
                signal: libc::SIGKILL,
                ..
            }
        ));
    }
}
