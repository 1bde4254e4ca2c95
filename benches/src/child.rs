//! Child processes for the limits: this executable, started again with an argument that names a
//! task.
//!
//! Starting the executable again gives a child like a fork, without `unsafe`, and before the child
//! has any thread.

use std::{
    io::{ErrorKind, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream},
    },
    process::{Child, Command},
};

use rustix::{
    process::{Signal, set_parent_process_death_signal},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

use smol::Async;

use crate::{measure, options::Pins};

pub const ECHO: &str = "--child=echo";
pub const SPIN: &str = "--child=spin";
pub const BUSY: &str = "--child=busy";
pub const MAILBOX: &str = "--child=mailbox";
pub const FORK_SERVER: &str = "--child=fork-server";

/// The number that [`start_echo`]'s child answers with the CPU time that it has used, in
/// nanoseconds.
pub const CPU_TIME: u64 = u64::MAX;

/// Starts a child that answers each number of eight bytes with its successor, until the stream
/// closes. It runs on `core`, if given.
pub fn start_echo(core: Option<usize>) -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let child = this_program(ECHO)
        .args(core.map(|core| core.to_string()))
        .stdin(OwnedFd::from(theirs))
        .spawn()
        .expect("this executable starts again");
    (child, ours)
}

/// Returns the command of a process that calls [`spin`].
pub fn spin_command(telling: &str) -> Command {
    let mut command = this_program(SPIN);
    command.arg(telling);
    command
}

/// A process that only uses CPU time. It ends when this value is dropped.
pub struct BusyProcess(Child);

impl BusyProcess {
    /// Starts the process.
    pub fn start() -> Self {
        let child = this_program(BUSY).spawn();
        BusyProcess(child.expect("this executable starts again"))
    }
}

impl Drop for BusyProcess {
    fn drop(&mut self) {
        self.0.kill().expect("a child can be killed");
        self.0.wait().expect("a child can be waited for");
    }
}

/// Spins until this process is killed or its parent dies.
pub fn busy() -> ! {
    set_parent_process_death_signal(Some(Signal::KILL)).expect("prctl");
    loop {
        std::hint::spin_loop();
    }
}

/// Runs this program with its callers and workers pinned to cores, and waits for its end.
pub fn run_pinned(pins: Pins, arguments: impl Iterator<Item = String>) {
    let mut program = this_program(&pins.to_argument());
    let status = program.args(arguments).status();
    let status = status.expect("this executable starts again");
    assert!(status.success(), "the pinned part failed");
}

/// Returns the cores that this process may use.
pub fn allowed_cores() -> Vec<usize> {
    let allowed = sched_getaffinity(None).expect("the allowed cores");
    (0..CpuSet::MAX_CPU)
        .filter(|core| allowed.is_set(*core))
        .collect()
}

/// Pins this thread, and all threads and processes that it starts later, to one core.
pub fn pin_to_core(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).expect("the core is allowed");
}

/// Tells a [`Listener`] that it spins, and spins until it is killed or its parent dies.
pub fn spin(telling: String) {
    set_parent_process_death_signal(Some(Signal::KILL)).expect("prctl");
    let address = SocketAddr::from_abstract_name(&telling).expect("a short name");
    let socket = UnixDatagram::unbound().expect("a socket");
    socket
        .send_to_addr(b"!", &address)
        .expect("the parent listens");
    loop {
        std::hint::spin_loop();
    }
}

/// Receives a message when a process begins to [`spin`].
pub struct Listener {
    socket: Async<UnixDatagram>,
    name: String,
}

impl Listener {
    /// Listens under a name that contains this process's id and `purpose`.
    pub fn new(purpose: &str) -> Listener {
        let name = format!("seedbed-benches-{}-{purpose}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        let socket = UnixDatagram::bind_addr(&address).expect("nobody else has the name");
        let socket = Async::new(socket).expect("a socket has readiness");
        Listener { socket, name }
    }

    /// Returns the argument for [`spin`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until the next process spins.
    pub async fn wait(&self) {
        self.socket.recv(&mut [0]).await.expect("our own socket");
    }
}

/// Connects to the [`Gathering`] of that name, and waits until it is over.
pub fn attend(name: String) {
    let address = SocketAddr::from_abstract_name(&name).expect("a short name");
    let mut stream = UnixStream::connect_addr(&address).expect("the parent listens");
    let rest = stream.read_to_end(&mut Vec::new());
    rest.expect("the parent closes the stream");
}

/// A barrier for jobs: they wait for each other, so that each of them occupies a worker.
pub struct Gathering {
    listener: Async<UnixListener>,
    name: String,
}

impl Gathering {
    /// Opens a gathering under a name that contains this process's id and `purpose`.
    pub fn new(purpose: &str) -> Gathering {
        let name = format!("seedbed-benches-{}-{purpose}-gathering", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        let listener = UnixListener::bind_addr(&address).expect("nobody else has the name");
        let listener = Async::new(listener).expect("a socket has readiness");
        Gathering { listener, name }
    }

    /// Returns the argument for [`attend`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until this many jobs attend, then releases them.
    pub async fn of(&self, many: usize) {
        let mut streams = Vec::new();
        while streams.len() < many {
            streams.push(self.listener.accept().await.expect("our own socket"));
        }
    }
}

/// Returns the command that starts this program again, with `argument` as its first argument.
pub fn this_program(argument: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(argument);
    command
}

/// Returns the stream that is this child's standard input.
pub fn stdin_as_stream() -> UnixStream {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned();
    UnixStream::from(stdin.expect("a descriptor"))
}

/// Answers each number of eight bytes with its successor, until the stream closes.
pub fn echo() {
    let mut stream = stdin_as_stream();
    let mut number = [0; 8];
    loop {
        match stream.read_exact(&mut number) {
            Err(end) if end.kind() == ErrorKind::UnexpectedEof => return,
            read => read.expect("the parent's stream is readable"),
        }
        let answer = match u64::from_ne_bytes(number) {
            CPU_TIME => measure::process_time().as_nanos() as u64,
            number => number + 1,
        };
        stream
            .write_all(&answer.to_ne_bytes())
            .expect("the parent's stream is writable");
    }
}
