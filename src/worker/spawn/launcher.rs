//! Starts worker processes by executing this program again, from one thread that does nothing else.
//!
//! The program is executed as `/proc/self/exe`, which is right also when the file on disk has been
//! replaced. It starts in the directory in which this program reached its hook, because `main` may
//! open relative paths before it. `posix_spawn` starts it, whose cost does not grow with this
//! process's memory. There is one launcher thread for the whole process, for four reasons:
//!
//! * The kernel sends a parent-death signal when the *thread* that started the child ends, so that
//!   thread must live as long as this process.
//! * A child inherits the CPU affinity, the scheduling and the I/O priority of the thread that
//!   starts it. The launcher thread takes these from the main thread when it starts, whichever
//!   thread makes the first call.
//! * A child inherits the signal mask of the thread that starts it. The signals that a worker
//!   leaves to its parent, such as SIGINT and SIGTERM, are blocked on this thread, so that none of
//!   them can end a worker before it reaches the hook.
//! * Starting a process takes up to a millisecond, for which no executor should be blocked.
//!
//! A process that is started for a caller who has dropped the [`Spawning`] is killed and reaped.

use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use async_channel::{Receiver, Sender};
use async_io::Async;
use rustix::process::Pid;

use super::exec_spec::ExecSpec;
use crate::sys::main_thread::spawn_like_main;
use crate::sys::role::{HANDSHAKE_VARIABLE, Handshake};
use crate::sys::spawn::{Program, spawn};
use crate::sys::{answer, signal, socket};
use crate::transport::frame;
use crate::transport::frame::Kind;
use crate::transport::message::Prelude;
use crate::worker::child::Stdout;
use crate::worker::config::Environment;
use crate::worker::conn::connection::Connection;
use crate::worker::conn::worker::Launched;
use crate::worker::conn::worker_process::WorkerProcess;
use crate::worker::error::WorkerError;

/// A worker process that is being made, in whatever way.
pub(in crate::worker) trait Launch: fmt::Debug + Send {
    /// Waits until there is a process, or a fork has been requested.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Launched, WorkerError>>;

    /// Whether no process has been requested so far, so that dropping this leaves nothing to clean
    /// up.
    fn is_unrequested(&self) -> bool;

    /// Begins to end what was started. The start then ends with an error, or with a process that is
    /// about to be killed.
    fn cancel(&mut self) {}
}

/// A process that the launcher thread was asked for.
#[derive(Debug)]
pub(in crate::worker) struct Spawning {
    answer: Arc<Answer>,
}

/// A process that has been executed, and this program's end of its socket.
#[derive(Debug)]
pub(in crate::worker) struct Spawned {
    pub(in crate::worker) process: WorkerProcess,
    pub(in crate::worker) socket: Async<OwnedFd>,
    /// The reading end of its standard error, if that is captured.
    pub(in crate::worker) stderr: Option<OwnedFd>,
}

/// The process that a call has asked for, or the error.
type Answer = answer::Answer<Result<Spawned, WorkerError>>;

impl Spawning {
    /// Asks the launcher thread for a process.
    pub(in crate::worker) fn new(
        spec: Arc<ExecSpec>,
        environment: Environment,
        capture_stderr: bool,
    ) -> Result<Self, WorkerError> {
        let answer = Arc::new(Answer::new());
        let request = Request {
            spec,
            environment,
            capture_stderr,
            reply: answer.clone(),
        };
        launcher()?
            .try_send(request)
            .expect("the launcher thread lives as long as this process");
        Ok(Self { answer })
    }

    /// Waits until there is a process.
    pub(in crate::worker) fn poll_spawned(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Spawned, WorkerError>> {
        self.answer.poll(cx)
    }
}

impl Launch for Spawning {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Launched, WorkerError>> {
        let spawned = ready!(self.poll_spawned(cx))?;
        Poll::Ready(Ok(Launched {
            process: spawned.process,
            connection: Connection::new(spawned.socket),
            stderr: spawned.stderr,
            forked: false,
            image: None,
        }))
    }

    fn is_unrequested(&self) -> bool {
        false
    }
}

struct Request {
    spec: Arc<ExecSpec>,
    environment: Environment,
    capture_stderr: bool,
    reply: Arc<Answer>,
}

/// Returns the channel to the launcher thread, which the first call starts.
fn launcher() -> Result<Sender<Request>, WorkerError> {
    static LAUNCHER: Mutex<Option<Sender<Request>>> = Mutex::new(None);
    let mut launcher = LAUNCHER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(launcher) = &*launcher {
        return Ok(launcher.clone());
    }
    let (sender, requests) = async_channel::unbounded();
    spawn_like_main("seedbed-launch", move || serve(&requests))
        .map_err(|error| WorkerError::start("the launcher thread", error))?;
    Ok(launcher.insert(sender).clone())
}

fn serve(requests: &Receiver<Request>) {
    signal::block_only_termination_signals();
    while let Ok(Request {
        spec,
        environment,
        capture_stderr,
        reply,
    }) = requests.recv_blocking()
    {
        if Arc::strong_count(&reply) > 1 {
            // If the caller is gone by then, the process is dropped, which kills and reaps it.
            reply.give(launch_without_panic(&spec, &environment, capture_stderr));
        }
    }
}

/// Makes a panic an error: when this thread ends, the kernel kills all workers.
fn launch_without_panic(
    spec: &ExecSpec,
    environment: &Environment,
    capture_stderr: bool,
) -> Result<Spawned, WorkerError> {
    catch_unwind(|| launch(spec, environment, capture_stderr)).unwrap_or_else(|_| {
        let error = io::Error::other("panicked; its message went to the panic hook");
        Err(WorkerError::start("the launcher thread", error))
    })
}

fn launch(
    spec: &ExecSpec,
    environment: &Environment,
    capture_stderr: bool,
) -> Result<Spawned, WorkerError> {
    let prepared = || -> io::Result<_> {
        let (ours, theirs) = socket::pair()?;
        let directory = spec.former_directory();
        let present = directory.as_ref().map(|(_, present)| present.as_fd());
        send_prelude(&ours, spec.stdout, present)?;
        // Registered before the process is started, so that an error leaves no process behind.
        Ok((Async::new(ours)?, theirs, directory))
    };
    let (ours, theirs, directory) =
        prepared().map_err(|error| WorkerError::start("its socket", error))?;
    let directory = directory.as_ref().map(|(former, _)| former.as_fd());
    let (pid, stderr) = execute(spec, environment, capture_stderr, &theirs, directory)?;
    let process = WorkerProcess::adopt_number(pid.as_raw_nonzero().get().cast_unsigned());
    let process = process.map_err(|error| WorkerError::start("its process descriptor", error))?;
    Ok(Spawned {
        process,
        socket: ours,
        stderr,
    })
}

/// Sends the prelude, the first message to a worker.
fn send_prelude(
    ours: &OwnedFd,
    stdout: Stdout,
    directory: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let prelude = Prelude {
        stdout: stdout == Stdout::Deferred,
        directory: directory.is_some(),
    };
    let program_stdout = io::stdout();
    let stdout = prelude.stdout.then(|| program_stdout.as_fd());
    let fds: Vec<_> = stdout.into_iter().chain(directory).collect();
    let message = frame::of_bytes(Kind::Prelude, prelude.to_number(), b"");
    socket::send_with_fds(ours, &message, &fds)
}

/// Executes the program, with an empty standard input. Returns the reading end of its standard
/// error, if that is captured.
fn execute(
    spec: &ExecSpec,
    environment: &Environment,
    capture_stderr: bool,
    socket: &OwnedFd,
    directory: Option<BorrowedFd<'_>>,
) -> Result<(Pid, Option<OwnedFd>), WorkerError> {
    let no_room = |error| WorkerError::start("its standard input and output", error);
    let nothing = socket::empty_input().map_err(no_room)?;
    // Reserves the number that the socket has in the new process.
    let place = socket::move_out_of_the_way(socket.as_fd()).map_err(no_room)?;
    let mut descriptors = vec![
        (nothing.as_fd(), libc::STDIN_FILENO),
        (socket.as_fd(), place.as_raw_fd()),
    ];
    let discarded;
    if spec.stdout == Stdout::Deferred {
        discarded = socket::dev_null().map_err(no_room)?;
        descriptors.push((discarded.as_fd(), libc::STDOUT_FILENO));
    }
    let (stderr, writer);
    if capture_stderr {
        let (reader, end) = socket::pipe().map_err(no_room)?;
        (stderr, writer) = (Some(reader), end);
        descriptors.push((writer.as_fd(), libc::STDERR_FILENO));
    } else {
        stderr = None;
    }
    let handshake = Handshake {
        parent: std::process::id(),
        socket: place.as_raw_fd(),
        inode: socket::socket_inode(socket).expect("a new socket has an inode"),
    };
    let program = Program {
        path: PROGRAM,
        arguments: &spec.command_line(),
        environment: &strings(environment, handshake),
        directory,
        descriptors: &descriptors,
    };
    let spawned = spawn(&program).or_else(|error| match directory {
        // This program may have lost the right to enter that directory.
        Some(_) => spawn(&Program {
            directory: None,
            ..program
        }),
        None => Err(error),
    });
    let pid = spawned.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if rustix::fs::stat(PROGRAM).is_ok() => {
            WorkerError::start_without_loader(error)
        }
        io::ErrorKind::NotFound => WorkerError::start_without_proc(error),
        _ => WorkerError::start("executing `/proc/self/exe`", error),
    })?;
    Ok((pid, stderr))
}

/// The path by which a new process executes this program.
const PROGRAM: &CStr = c"/proc/self/exe";

/// Returns the environment of the new process, which includes its handshake.
fn strings(environment: &Environment, handshake: Handshake) -> Vec<CString> {
    let mut variables = environment.variables();
    variables.insert(HANDSHAKE_VARIABLE.into(), handshake.to_string().into());
    let strings = variables.into_iter().map(|(name, value)| {
        CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())
            .expect("the configuration was checked for zero bytes, and an environment has none")
    });
    strings.collect()
}
