//! Starting worker processes, from one thread that does nothing else.
//!
//! A worker is `/proc/self/exe` executed again: right also when the file on disk has been replaced meanwhile. It is
//! started without any `pre_exec`, so the standard library takes the `posix_spawn` path, whose cost does not grow with
//! this process's memory. There is one launcher thread for the whole process, for three reasons:
//!
//! * the kernel ties a "kill me when my parent dies" to the *thread* that started the child, so that thread must live as
//!   long as this process; the launcher does;
//! * the child inherits this thread's signal mask: with SIGINT blocked here, and only here, Ctrl-C cannot hit a worker
//!   before it has said that it ignores it;
//! * starting a process takes the better part of a millisecond, which no executor should be blocked for.
//!
//! A caller that loses interest just drops the [`Launch`]: a process that comes up for nobody is killed and reaped.

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

use super::fork_server::ForkServer;
use super::forking::Forking;
use super::hook::Recipe;
use crate::sys::process::Pidfd;
use crate::sys::role::{HANDSHAKE_VARIABLE, Handshake};
use crate::sys::{signal, socket};
use crate::transport::frame;
use crate::transport::frame::Kind;
use crate::worker::child::Stdout;
use crate::worker::config::Environment;
use crate::worker::conn::connection::Connection;
use crate::worker::conn::process::Process;
use crate::worker::error::WorkerError;

/// A process that has been started, or asked for, and told nothing but the prelude.
#[derive(Debug)]
pub(in crate::worker) struct Launched {
    pub(in crate::worker) process: Process,
    pub(in crate::worker) connection: Connection,
    /// What the worker writes to its standard error, if that is captured.
    pub(in crate::worker) stderr: Option<OwnedFd>,
    /// It is, or will be, a copy of a fork server, which has got its set-up for it.
    pub(in crate::worker) forked: bool,
}

#[cfg(test)]
impl Launched {
    /// Executes something that never reaches the hook.
    pub(in crate::worker) fn instead(command: &mut Command) -> Self {
        let (ours, theirs) = socket::pair().unwrap();
        let child = command.stdin(Stdio::from(theirs)).spawn().unwrap();
        Launched {
            process: Process::new(Pidfd::adopt(child).unwrap()),
            connection: Connection::new(Async::new(ours).unwrap()),
            stderr: None,
            forked: false,
        }
    }
}

/// A worker process in the making.
#[derive(Debug)]
pub(in crate::worker) enum Launch {
    /// By the launcher.
    Spawn(Pin<Box<async_channel::Receiver<Result<Launched, WorkerError>>>>),
    Fork(Box<Forking>),
}

impl Launch {
    /// Asks the context's fork server for a process.
    pub(in crate::worker) fn fork(fork_server: ForkServer, recipe: Arc<Recipe>) -> Self {
        Launch::Fork(Box::new(Forking::new(fork_server, recipe)))
    }

    /// Asks the launcher for a process.
    pub(in crate::worker) fn spawn(
        recipe: Arc<Recipe>,
        environment: Environment,
        capture_stderr: bool,
    ) -> Result<Self, WorkerError> {
        let (reply, answer) = async_channel::bounded(1);
        let request = Request {
            recipe,
            environment,
            capture_stderr,
            reply,
        };
        launcher()?
            .send(request)
            .expect("the launcher serves as long as this process lives");
        Ok(Launch::Spawn(Box::pin(answer)))
    }

    pub(in crate::worker) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Launched, WorkerError>> {
        match self {
            Launch::Spawn(answer) => {
                let answer = ready!(answer.as_mut().poll_next(cx));
                Poll::Ready(
                    answer.unwrap_or_else(|| {
                        unreachable!("the launcher answers every request, once")
                    }),
                )
            }
            Launch::Fork(forking) => forking.poll(cx),
        }
    }

    /// Whether nothing has been started for this worker, so that there is nothing to wait for.
    pub(in crate::worker) fn is_nothing_yet(&self) -> bool {
        match self {
            Launch::Spawn(_) => false,
            Launch::Fork(forking) => forking.is_nothing_yet(),
        }
    }
}

struct Request {
    recipe: Arc<Recipe>,
    environment: Environment,
    capture_stderr: bool,
    reply: async_channel::Sender<Result<Launched, WorkerError>>,
}

/// Returns the way to the launcher thread, which is started by the first call.
fn launcher() -> Result<mpsc::Sender<Request>, WorkerError> {
    static LAUNCHER: Mutex<Option<mpsc::Sender<Request>>> = Mutex::new(None);
    let mut launcher = LAUNCHER.lock().unwrap_or_else(PoisonError::into_inner);
    if launcher.is_none() {
        let (sender, requests) = mpsc::channel();
        std::thread::Builder::new()
            .name("seedbed-launch".into())
            .spawn(move || serve(&requests))
            .map_err(|error| WorkerError::start("the launcher thread", error))?;
        *launcher = Some(sender);
    }
    Ok(launcher.clone().expect("it was just put there"))
}

fn serve(requests: &mpsc::Receiver<Request>) {
    signal::block_only_sigint();
    for Request {
        recipe,
        environment,
        capture_stderr,
        reply,
    } in requests
    {
        if !reply.is_closed() {
            // Whoever asked may be gone by now; then the process is dropped, which kills and reaps it.
            drop(reply.try_send(launch_or_survive(&recipe, &environment, capture_stderr)));
        }
    }
}

/// The end of the launcher's thread would be the end of all workers, so no panic may end it.
fn launch_or_survive(
    recipe: &Recipe,
    environment: &Environment,
    capture_stderr: bool,
) -> Result<Launched, WorkerError> {
    catch_unwind(|| launch(recipe, environment, capture_stderr)).unwrap_or_else(|_| {
        let error = io::Error::other("panicked; its message went to the panic hook");
        Err(WorkerError::start("the launcher thread", error))
    })
}

fn launch(
    recipe: &Recipe,
    environment: &Environment,
    capture_stderr: bool,
) -> Result<Launched, WorkerError> {
    let (ours, theirs) =
        sockets(recipe.stdout).map_err(|error| WorkerError::start("its socket", error))?;
    // Before there is a process that could be left behind: the first of all registrations makes the reactor, which panics
    // where there are no descriptors left for it.
    let ours = Async::new(ours).map_err(|error| WorkerError::start("its socket", error))?;
    let mut child = command(recipe, environment, capture_stderr, theirs)
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => WorkerError::start_without_proc(error),
            _ => WorkerError::start("executing `/proc/self/exe`", error),
        })?;
    let stderr = child.stderr.take().map(OwnedFd::from);
    let process = Pidfd::adopt(child).map(Process::new);
    let process = process.map_err(|error| WorkerError::start("its process descriptor", error))?;
    Ok(Launched {
        process,
        connection: Connection::new(ours),
        stderr,
        forked: false,
    })
}

/// Makes the two ends of a worker's socket, with the prelude already on its way.
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
    recipe: &Recipe,
    environment: &Environment,
    capture_stderr: bool,
    socket: OwnedFd,
) -> Command {
    let inode = socket::socket_inode(&socket).expect("a socket that was just made has an inode");
    let mut command = Command::new("/proc/self/exe");
    environment.apply_to(&mut command); // ours comes last
    command
        .arg0(&recipe.name)
        .args(&recipe.arguments)
        .env(
            HANDSHAKE_VARIABLE,
            Handshake {
                parent: std::process::id(),
                inode,
            }
            .to_string(),
        )
        .stdin(Stdio::from(socket));
    if recipe.stdout == Stdout::Deferred {
        command.stdout(Stdio::null());
    }
    if capture_stderr {
        command.stderr(Stdio::piped());
    }
    command
}
