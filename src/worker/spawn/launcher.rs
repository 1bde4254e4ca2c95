//! Starts worker processes by executing this program again, from one thread that does nothing else.
//!
//! The program is executed as `/proc/self/exe`, which is right also when the file on disk has been
//! replaced. No `pre_exec` closure is used, so the standard library calls `posix_spawn`, whose cost
//! does not grow with this process's memory. There is one launcher thread for the whole process,
//! for three reasons:
//!
//! * The kernel sends a parent-death signal when the *thread* that started the child ends, so that
//!   thread must live as long as this process.
//! * A child inherits the signal mask of the thread that starts it. SIGINT is blocked on this
//!   thread only, so that Ctrl-C cannot hit a worker before the worker ignores it.
//! * Starting a process takes up to a millisecond, for which no executor should be blocked.
//!
//! A process that is started for a caller who has dropped the [`Spawning`] is killed and reaped.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::panic::catch_unwind;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::{Context, Poll, ready};

use async_io::Async;
use futures_lite::Stream;

use super::exec_spec::ExecSpec;
use crate::sys::process::Pidfd;
use crate::sys::role::{HANDSHAKE_VARIABLE, Handshake};
use crate::sys::{signal, socket};
use crate::transport::frame;
use crate::transport::frame::Kind;
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
}

/// A process that the launcher thread was asked for.
#[derive(Debug)]
pub(in crate::worker) struct Spawning {
    answer: Pin<Box<async_channel::Receiver<Result<Launched, WorkerError>>>>,
}

impl Spawning {
    /// Asks the launcher thread for a process.
    pub(in crate::worker) fn new(
        spec: Arc<ExecSpec>,
        environment: Environment,
        capture_stderr: bool,
    ) -> Result<Self, WorkerError> {
        let (reply, answer) = async_channel::bounded(1);
        let request = Request {
            spec,
            environment,
            capture_stderr,
            reply,
        };
        launcher()?
            .send(request)
            .expect("the launcher thread lives as long as this process");
        Ok(Self {
            answer: Box::pin(answer),
        })
    }
}

impl Launch for Spawning {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Launched, WorkerError>> {
        let answer = ready!(self.answer.as_mut().poll_next(cx));
        Poll::Ready(answer.expect("the launcher answers each request once"))
    }

    fn is_unrequested(&self) -> bool {
        false
    }
}

struct Request {
    spec: Arc<ExecSpec>,
    environment: Environment,
    capture_stderr: bool,
    reply: async_channel::Sender<Result<Launched, WorkerError>>,
}

/// Returns the channel to the launcher thread, which the first call starts.
fn launcher() -> Result<mpsc::Sender<Request>, WorkerError> {
    static LAUNCHER: Mutex<Option<mpsc::Sender<Request>>> = Mutex::new(None);
    let mut launcher = LAUNCHER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(launcher) = &*launcher {
        return Ok(launcher.clone());
    }
    let (sender, requests) = mpsc::channel();
    std::thread::Builder::new()
        .name("seedbed-launch".into())
        .spawn(move || serve(&requests))
        .map_err(|error| WorkerError::start("the launcher thread", error))?;
    Ok(launcher.insert(sender).clone())
}

fn serve(requests: &mpsc::Receiver<Request>) {
    signal::block_only_sigint();
    for Request {
        spec,
        environment,
        capture_stderr,
        reply,
    } in requests
    {
        if !reply.is_closed() {
            // If the caller is gone by now, the process is dropped, which kills and reaps it.
            drop(reply.try_send(launch_without_panic(&spec, &environment, capture_stderr)));
        }
    }
}

/// Makes a panic an error: when this thread ends, the kernel kills all workers.
fn launch_without_panic(
    spec: &ExecSpec,
    environment: &Environment,
    capture_stderr: bool,
) -> Result<Launched, WorkerError> {
    catch_unwind(|| launch(spec, environment, capture_stderr)).unwrap_or_else(|_| {
        let error = io::Error::other("panicked; its message went to the panic hook");
        Err(WorkerError::start("the launcher thread", error))
    })
}

fn launch(
    spec: &ExecSpec,
    environment: &Environment,
    capture_stderr: bool,
) -> Result<Launched, WorkerError> {
    let (ours, theirs) =
        sockets(spec.stdout).map_err(|error| WorkerError::start("its socket", error))?;
    // Registered before the process is started, so that an error leaves no process behind.
    let ours = Async::new(ours).map_err(|error| WorkerError::start("its socket", error))?;
    let mut child = command(spec, environment, capture_stderr, theirs)
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => WorkerError::start_without_proc(error),
            _ => WorkerError::start("executing `/proc/self/exe`", error),
        })?;
    let stderr = child.stderr.take().map(OwnedFd::from);
    let process = Pidfd::adopt(child).map(WorkerProcess::new);
    let process = process.map_err(|error| WorkerError::start("its process descriptor", error))?;
    Ok(Launched {
        process,
        connection: Connection::new(ours),
        stderr,
        forked: false,
    })
}

/// Makes the two ends of a worker's socket, and sends the prelude.
fn sockets(stdout: Stdout) -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socket::pair()?;
    match stdout {
        Stdout::Inherited => socket::send_all(&ours, &frame::of_bytes(Kind::Prelude, 0, b""))?,
        Stdout::Deferred => {
            let prelude = frame::of_bytes(Kind::Prelude, 1, b"");
            socket::send_with_fds(&ours, &prelude, &[io::stdout().as_fd()])?;
        }
    }
    Ok((ours, theirs))
}

fn command(
    spec: &ExecSpec,
    environment: &Environment,
    capture_stderr: bool,
    socket: OwnedFd,
) -> Command {
    let inode = socket::socket_inode(&socket).expect("a new socket has an inode");
    let handshake = Handshake {
        parent: std::process::id(),
        inode,
    };
    let mut command = Command::new("/proc/self/exe");
    environment.apply_to(&mut command); // before our variable, which must win
    command
        .arg0(&spec.argument_zero)
        .args(&spec.arguments)
        .env(HANDSHAKE_VARIABLE, handshake.to_string())
        .stdin(Stdio::from(socket));
    if spec.stdout == Stdout::Deferred {
        command.stdout(Stdio::null());
    }
    if capture_stderr {
        command.stderr(Stdio::piped());
    }
    command
}
