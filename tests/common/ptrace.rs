//! Sends a signal to a program at each system call that it makes between two marks.
//!
//! The program is traced, so it stands still at the call's entry or exit while the signal is sent.
//! Only its main thread is traced.

#![allow(dead_code)] // each test program uses its own part of this

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::ptr;

#[cfg(target_env = "musl")]
type Request = libc::c_int;
#[cfg(not(target_env = "musl"))]
type Request = libc::c_uint;

/// The descriptor that [`mark`] closes, which is never open.
const MARK: libc::c_int = 0x5eed_5eed;

/// The target of a signal.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// Any thread of the process may handle it while the main thread stands still.
    Process,
    MainThread,
}

/// Calls `tested` between two marks, and then gives another thread the time to handle the signal.
/// Called by the traced program.
pub fn between_marks(tested: impl FnOnce()) {
    mark();
    tested();
    mark();
    // Ends when the tracer has not sent a signal.
    _ = io::stdin().read(&mut [0]);
}

fn mark() {
    // SAFETY: closing a descriptor that is not open is an error without an effect.
    unsafe { libc::close(MARK) };
}

/// Runs `program` once for each system call between its marks, sends it the signal at the entry of
/// the call in one round and at the exit in the next one, and returns how each round ended, as
/// `waitpid` reports it. (Rounds differ in the number of calls, so some may end without a signal.)
/// Returns `None` if this system does not allow tracing.
pub fn signal_at_every_system_call(
    program: impl Fn() -> Command,
    signal: i32,
    target: Target,
) -> Option<Vec<libc::c_int>> {
    let Round { stops, .. } = Traced::start(program()).ok()?.run(None);
    assert!(
        stops > 20,
        "the program makes system calls between its marks"
    );
    let ended = (0..stops).filter_map(|stop| {
        let traced = Traced::start(program()).expect("it worked before");
        let round = traced.run(Some((stop, signal, target)));
        round.was_signalled.then_some(round.status)
    });
    Some(ended.collect())
}

/// The record of one traced process.
struct Round {
    /// The number of stops between the marks.
    stops: usize,
    was_signalled: bool,
    status: libc::c_int,
}

/// A traced process, which stands still.
struct Traced {
    pid: libc::pid_t,
    /// Closed when the process may return from `between_marks`.
    stdin: Option<ChildStdin>,
}

impl Traced {
    /// Starts a program, which stands still right after its `exec`.
    fn start(mut program: Command) -> io::Result<Self> {
        // SAFETY: the closure makes one system call, which is allowed after a fork.
        unsafe {
            program.pre_exec(|| {
                let zero = ptr::null_mut::<libc::c_void>();
                match libc::ptrace(libc::PTRACE_TRACEME, 0, zero, zero) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                }
            });
        }
        let mut child = program.stdin(Stdio::piped()).spawn()?;
        let traced = Traced {
            pid: child.id() as libc::pid_t,
            stdin: child.stdin.take(),
        };
        assert_eq!(traced.wait(), Some(libc::SIGTRAP), "stopped after its exec");
        // System calls are told from signals, and the program dies with the tracer.
        let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
        traced.request(libc::PTRACE_SETOPTIONS, options as usize);
        Ok(traced)
    }

    /// Runs the program to its end, and sends it the signal at a stop.
    fn run(mut self, inject: Option<(usize, i32, Target)>) -> Round {
        const SYSTEM_CALL: i32 = libc::SIGTRAP | 0x80;
        let (mut marks, mut stops, mut pass_on) = (0, 0, 0);
        loop {
            self.request(libc::PTRACE_SYSCALL, pass_on as usize);
            pass_on = 0;
            match self.wait_or_end() {
                Err(status) => {
                    return Round {
                        stops,
                        was_signalled: false,
                        status,
                    };
                }
                Ok(SYSTEM_CALL) if self.is_at_mark() => {
                    marks += 1;
                    if marks == 2 {
                        self.stdin = None;
                    }
                }
                // The first of these is the exit of the first mark.
                Ok(SYSTEM_CALL) if marks == 1 => {
                    if let Some((stop, signal, target)) = inject
                        && stop == stops
                    {
                        self.send(signal, target);
                        // An error if another thread has ended the process by now.
                        _ = self.try_request(libc::PTRACE_DETACH, 0);
                        return Round {
                            stops,
                            was_signalled: true,
                            status: self.end_within_bound(stop),
                        };
                    }
                    stops += 1;
                }
                Ok(SYSTEM_CALL) => {}
                Ok(signal) => pass_on = signal,
            }
        }
    }

    /// Returns whether the process enters the system call of [`mark`].
    fn is_at_mark(&self) -> bool {
        const ENTRY: u64 = 1;
        const PTRACE_GET_SYSCALL_INFO: Request = 0x420e;
        // One word with the kind of the stop in its first byte, two addresses, the call's number
        // and its arguments.
        let mut info = [0_u64; 11];
        // SAFETY: the kernel writes at most as many bytes as the second number says.
        let result = unsafe {
            let size = size_of_val(&info);
            libc::ptrace(PTRACE_GET_SYSCALL_INFO, self.pid, size, info.as_mut_ptr())
        };
        assert!(result > 0, "{}", io::Error::last_os_error());
        info[0] & 0xff == ENTRY && info[3] == libc::SYS_close as u64 && info[4] as i32 == MARK
    }

    fn send(&self, signal: i32, target: Target) {
        // SAFETY: both calls take numbers. The process is this one's child and not reaped.
        let sent = unsafe {
            match target {
                Target::Process => libc::kill(self.pid, signal).into(),
                Target::MainThread => libc::syscall(libc::SYS_tgkill, self.pid, self.pid, signal),
            }
        };
        assert_eq!(sent, 0);
    }

    fn request(&self, request: Request, data: usize) {
        self.try_request(request, data).unwrap();
    }

    fn try_request(&self, request: Request, data: usize) -> io::Result<()> {
        // SAFETY: these requests read no memory of this process.
        match unsafe { libc::ptrace(request, self.pid, ptr::null_mut::<u8>(), data) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Waits until the process stops, and returns the signal; `None` if it has ended.
    fn wait(&self) -> Option<i32> {
        self.wait_or_end().ok()
    }

    fn wait_or_end(&self) -> Result<i32, libc::c_int> {
        let mut status = 0;
        // SAFETY: `status` has room for an `int`.
        let waited = unsafe { libc::waitpid(self.pid, &raw mut status, libc::__WALL) };
        assert_eq!(waited, self.pid, "{}", io::Error::last_os_error());
        if libc::WIFSTOPPED(status) {
            Ok(libc::WSTOPSIG(status))
        } else {
            Err(status)
        }
    }

    /// Reaps the process, which is not traced any more. A process that hangs is killed.
    fn end_within_bound(&self, stop: usize) -> libc::c_int {
        let pid = rustix::process::Pid::from_raw(self.pid).expect("not 0");
        let hangs = !super::scenarios::ends_within_bound(pid);
        if hangs {
            _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let status = self.wait_or_end().expect_err("it has ended");
        assert!(
            !hangs,
            "a signal at stop {stop} is swallowed, or hangs the program"
        );
        status
    }
}
