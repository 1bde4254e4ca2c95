//! The processes that the limits talk to: this executable again, told by its first argument to be one of them.
//!
//! Starting ourselves anew is what a fork would be, without `unsafe` and before any thread exists in the child.

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

/// What [`start_echo`]'s child answers with the nanoseconds of the processor's time that it has used.
pub const CPU_TIME: u64 = u64::MAX;

/// Starts a child, on that core if one is given, that answers every eight bytes with the number after theirs, until the
/// stream closes.
pub fn start_echo(core: Option<usize>) -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let child = this_program(ECHO)
        .args(core.map(|core| core.to_string()))
        .stdin(OwnedFd::from(theirs))
        .spawn()
        .expect("this executable starts again");
    (child, ours)
}

/// The command whose process calls [`spin`].
pub fn spin_command(telling: &str) -> Command {
    let mut command = this_program(SPIN);
    command.arg(telling);
    command
}

/// A process that does nothing but use a processor. It ends when this is dropped.
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

pub fn busy() -> ! {
    set_parent_process_death_signal(Some(Signal::KILL)).expect("prctl");
    loop {
        std::hint::spin_loop();
    }
}

/// Starts this program with its callers and its workers pinned, and waits for its end.
pub fn run_pinned(pins: Pins, arguments: impl Iterator<Item = String>) {
    let mut program = this_program(&pins.to_argument());
    let status = program.args(arguments).status();
    let status = status.expect("this executable starts again");
    assert!(status.success(), "the pinned part failed");
}

/// The cores that this process may use.
pub fn allowed_cores() -> Vec<usize> {
    let allowed = sched_getaffinity(None).expect("the allowed cores");
    (0..CpuSet::MAX_CPU)
        .filter(|core| allowed.is_set(*core))
        .collect()
}

/// Keeps this thread, and all threads and processes that come from it, on one core.
pub fn pin_to_core(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).expect("the core is allowed");
}

/// Tells a [`Listener`] that it spins, and does so for ever, unless its parent dies: the job that can only be killed.
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

/// Hears that a process has begun to [`spin`].
pub struct Listener {
    socket: Async<UnixDatagram>,
    name: String,
}

impl Listener {
    /// Listens under a name that no other process has, for the purpose `purpose` of this one.
    pub fn new(purpose: &str) -> Listener {
        let name = format!("seedbed-benches-{}-{purpose}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        let socket = UnixDatagram::bind_addr(&address).expect("nobody else has the name");
        let socket = Async::new(socket).expect("a socket has readiness");
        Listener { socket, name }
    }

    /// What [`spin`] must be given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until the next process spins.
    pub async fn wait(&self) {
        self.socket.recv(&mut [0]).await.expect("our own socket");
    }
}

/// Waits, on a stream of its own, until the [`Gathering`] of that name is over.
pub fn attend(name: String) {
    let address = SocketAddr::from_abstract_name(&name).expect("a short name");
    let mut stream = UnixStream::connect_addr(&address).expect("the parent listens");
    let rest = stream.read_to_end(&mut Vec::new());
    rest.expect("the parent closes the stream");
}

/// Where jobs wait for each other, so that each of them has a worker of its own.
pub struct Gathering {
    listener: Async<UnixListener>,
    name: String,
}

impl Gathering {
    /// Opens one under a name that no other has.
    pub fn new(purpose: &str) -> Gathering {
        let name = format!("seedbed-benches-{}-{purpose}-gathering", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        let listener = UnixListener::bind_addr(&address).expect("nobody else has the name");
        let listener = Async::new(listener).expect("a socket has readiness");
        Gathering { listener, name }
    }

    /// What [`attend`] must be given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until that many attend, then lets them go.
    pub async fn of(&self, many: usize) {
        let mut streams = Vec::new();
        while streams.len() < many {
            streams.push(self.listener.accept().await.expect("our own socket"));
        }
    }
}

/// The command that starts this program again, to do what `argument` says.
pub fn this_program(argument: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(argument);
    command
}

/// The stream that a child has been given as its standard input.
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
