//! Programs that serve at a port, which the tests of example packages run as a user does.

#![allow(dead_code)] // each test program uses its own part of this

#[path = "dispositions.rs"]
mod dispositions;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

/// Nothing takes as long, unless something hangs.
pub const HANGS: Duration = Duration::from_secs(60);

/// A running program, which prints `listening at ADDRESS` first.
pub struct ServerProgram {
    process: KilledOnDrop,
    output: Lines,
    pub address: SocketAddr,
}

impl ServerProgram {
    pub fn start(command: &mut Command) -> Self {
        // The program handles Ctrl-C, so it must not inherit that SIGINT is ignored.
        dispositions::reset();
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = KilledOnDrop(command.spawn().unwrap());
        let mut output = Lines::new(process.0.stdout.take().unwrap());
        let line = output.next().expect("the program ends at once");
        let address = line.strip_prefix("listening at ").unwrap().parse().unwrap();
        Self {
            process,
            output,
            address,
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.process.0)
    }

    /// Returns the child processes of the program.
    fn children(&self) -> Vec<Pid> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let lists = threads
            .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
        lists
            .flat_map(|list| {
                let pids = list
                    .split_ascii_whitespace()
                    .map(|pid| pid.parse().unwrap());
                pids.filter_map(Pid::from_raw).collect::<Vec<_>>()
            })
            .collect()
    }

    /// Returns the workers that run now.
    pub fn workers(&self) -> Vec<Pid> {
        let is_worker = |pid: &Pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm"));
            name.is_ok_and(|name| name.trim_end().ends_with("-worker"))
        };
        let mut workers = self.children();
        workers.retain(is_worker);
        workers
    }

    /// Kills a worker, chosen at random. Returns whether there was one.
    fn kill_a_worker(&self) -> bool {
        let workers = self.workers();
        if workers.is_empty() {
            return false;
        }
        let pid = workers[fastrand::usize(..workers.len())];
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
            return false;
        };
        // The number may have been given to another process before it was opened.
        self.workers().contains(&pid) && pidfd_send_signal(&process, Signal::KILL).is_ok()
    }

    /// Does some work while workers are killed at random. Returns its value, and how many were
    /// killed.
    pub fn while_killing_workers<R>(&self, work: impl FnOnce() -> R) -> (R, usize) {
        let done = AtomicBool::new(false);
        let (outcome, killed) = thread::scope(|threads| {
            let killer = threads.spawn(|| {
                let mut killed = 0;
                while !done.load(Relaxed) {
                    killed += usize::from(self.kill_a_worker());
                    thread::sleep(Duration::from_millis(fastrand::u64(1..20)));
                }
                killed
            });
            // A panic must end the killer too, which the scope waits for.
            let outcome = catch_unwind(AssertUnwindSafe(work));
            done.store(true, Relaxed);
            (outcome, killer.join().unwrap())
        });
        (outcome.unwrap_or_else(|panic| resume_unwind(panic)), killed)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Sends a signal, and checks that the program ends with success and leaves no process. Returns
    /// the lines that it has printed.
    pub fn end(self, signal: Signal) -> Vec<String> {
        let children = self.children().into_iter();
        let children: Vec<_> = children
            .filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
            .collect();
        self.signal(signal);
        let printed = self.printed_until_its_end();
        for child in children {
            assert!(ends(&child), "a process is left");
        }
        printed
    }

    /// Waits until the program has ended with success. Returns the lines that it has printed.
    pub fn printed_until_its_end(mut self) -> Vec<String> {
        let printed = std::iter::from_fn(|| self.output.next()).collect();
        let process = pidfd_open(self.pid(), PidfdFlags::empty()).unwrap();
        assert!(ends(&process), "the program does not end");
        assert!(self.process.0.wait().unwrap().success());
        printed
    }
}

/// Runs a program until it ends. Returns its output.
pub fn run_to_end(command: &mut Command) -> Output {
    let command = command.stdin(Stdio::null());
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut program = command.spawn().unwrap();
    let process = pidfd_open(Pid::from_child(&program), PidfdFlags::empty()).unwrap();
    let has_ended = ends(&process);
    if !has_ended {
        program.kill().unwrap();
    }
    let output = program.wait_with_output().unwrap();
    assert!(has_ended, "{command:?} does not end: {output:?}");
    output
}

/// Waits until a process has ended. Returns false if it hangs.
fn ends(process: &OwnedFd) -> bool {
    let mut ended = [PollFd::new(process, PollFlags::IN)];
    let limit = Timespec::try_from(HANGS).unwrap();
    poll(&mut ended, Some(&limit)) == Ok(1)
}

/// The lines that a program prints. A thread reads them, because a pipe has no time limit. The lock
/// lets threads share a [`ServerProgram`].
struct Lines(Mutex<Receiver<String>>);

impl Lines {
    fn new(output: impl std::io::Read + Send + 'static) -> Self {
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let lines = BufReader::new(output).lines().map(Result::unwrap);
            // An error means that the test has ended.
            _ = lines.map(|line| sender.send(line)).find(Result::is_err);
        });
        Self(Mutex::new(lines))
    }

    /// Waits for the next line. Returns `None` when the program has closed its output.
    fn next(&mut self) -> Option<String> {
        match self.0.get_mut().unwrap().recv_timeout(HANGS) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the program hangs"),
        }
    }
}

/// A program that is killed if its test fails.
struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        // Errors mean that it has ended and was waited for.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}
