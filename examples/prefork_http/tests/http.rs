//! Runs the server as a user does, while its processes crash, are killed, or are asked to end.

#[path = "../../../tests/common/dispositions.rs"]
mod dispositions;

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

/// No answer takes as long, unless something hangs.
const HANGS: Duration = Duration::from_secs(60);

/// A running server.
struct Server {
    process: Child,
    address: SocketAddr,
    output: BufReader<std::process::ChildStdout>,
}

impl Server {
    fn start(options: &[&str]) -> Self {
        // The server handles Ctrl-C, so it must not inherit that SIGINT is ignored.
        dispositions::reset();
        let mut process = Command::new(env!("CARGO_BIN_EXE_prefork_http"))
            .args(options)
            .arg("127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening at ").unwrap();
        Self {
            address: address.parse().unwrap(),
            process,
            output,
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// Returns the workers that run now.
    fn workers(&self) -> Vec<Pid> {
        let is_worker = |pid: &Pid| {
            let name = fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_pid()));
            name.is_ok_and(|name| name.trim_end().ends_with("-worker"))
        };
        let mut workers = self.children();
        workers.retain(is_worker);
        workers
    }

    /// Returns the child processes of the server.
    fn children(&self) -> Vec<Pid> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
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

    /// Kills workers at random until `done` is set. Returns how many.
    fn kill_workers_until(&self, done: &AtomicBool) -> usize {
        let mut killed = 0;
        while !done.load(Relaxed) {
            killed += usize::from(self.kill_a_worker());
            thread::sleep(Duration::from_millis(fastrand::u64(1..20)));
        }
        killed
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Sends a signal, and checks that the server ends in order and leaves no process.
    fn end(self, signal: Signal) {
        let children = self.children().into_iter();
        let children: Vec<_> = children
            .filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
            .collect();
        self.signal(signal);
        self.ended();
        for child in children {
            let mut ended = [PollFd::new(&child, PollFlags::IN)];
            let limit = Timespec::try_from(HANGS).unwrap();
            assert_eq!(poll(&mut ended, Some(&limit)), Ok(1), "a process is left");
        }
    }

    /// Waits until the server has ended in order.
    fn ended(mut self) {
        let mut printed = String::new();
        self.output.read_to_string(&mut printed).unwrap();
        assert_eq!(printed, "ended\n");
        assert!(self.process.wait().unwrap().success());
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(HANGS))?;
        stream.set_write_timeout(Some(HANGS))?;
        Ok(stream)
    }

    /// Sends a request on a new connection. Returns the body of the answer, or `None` if the
    /// connection was lost before a whole answer came.
    fn get(&self, path: &str) -> Option<String> {
        let exchange = || {
            let mut stream = self.connect()?;
            write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            io::Result::Ok(answer)
        };
        let began = Instant::now();
        let answer = exchange().unwrap_or_default();
        assert!(began.elapsed() < HANGS, "no answer for GET {path}");
        let (head, body) = answer.split_once("\r\n\r\n")?;
        assert!(head.starts_with("HTTP/1.1 200 "), "GET {path}: {head}");
        let length = format!("content-length: {}", body.len());
        head.contains(&length).then(|| body.to_owned())
    }
}

/// The end of a test that fails.
impl Drop for Server {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// Sends numbers to be doubled from several clients at once. Returns how many got no answer.
fn double_from_clients(server: &Server, clients: u64, requests: u64) -> usize {
    let lost = AtomicUsize::new(0);
    thread::scope(|threads| {
        for client in 0..clients {
            let lost = &lost;
            threads.spawn(move || {
                for request in 0..requests {
                    let number = client * requests + request;
                    match server.get(&format!("/double/{number}")) {
                        Some(answer) => assert_eq!(answer, format!("{}\n", 2 * number)),
                        None => _ = lost.fetch_add(1, Relaxed),
                    }
                }
            });
        }
    });
    lost.into_inner()
}

#[test]
fn processes_share_the_port() {
    let server = Server::start(&["--processes", "3"]);
    // One connection that says nothing keeps one process busy, so the others have to answer.
    let silent = server.connect().unwrap();
    let mut answers: Vec<_> = (0..50).map(|_| server.get("/").unwrap()).collect();
    answers.sort();
    answers.dedup();
    assert!((1..=3).contains(&answers.len()), "{answers:?}");
    assert_eq!(double_from_clients(&server, 8, 25), 0);
    drop(silent);
    server.end(Signal::TERM);
}

#[test]
fn a_request_that_crashes_its_process_costs_that_request_alone() {
    let server = Server::start(&["--processes", "2"]);
    let lost = thread::scope(|threads| {
        threads.spawn(|| {
            for _ in 0..30 {
                assert_eq!(server.get("/crash"), None);
            }
        });
        double_from_clients(&server, 6, 50)
    });
    assert_eq!(lost, 0);
    server.end(Signal::TERM);
}

#[test]
fn a_worker_that_is_killed_costs_at_most_one_request_and_nothing_hangs() {
    let server = Server::start(&["--processes", "3"]);
    let done = AtomicBool::new(false);
    let (lost, killed) = thread::scope(|threads| {
        let killer = threads.spawn(|| server.kill_workers_until(&done));
        let lost = double_from_clients(&server, 8, 100);
        done.store(true, Relaxed);
        (lost, killer.join().unwrap())
    });
    assert!(killed > 0);
    assert!(
        lost <= killed,
        "{lost} requests were lost to {killed} kills"
    );
    assert_eq!(
        double_from_clients(&server, 2, 10),
        0,
        "the server has recovered"
    );
    server.end(Signal::INT);
}

#[test]
fn a_signal_closes_the_port_and_lets_a_request_in_progress_finish() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Server::start(&["--processes", "2"]);
        let mut stream = server.connect().unwrap();
        let head = "POST /echo HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        // This line comes when the page reads the body, so the request is in progress.
        let mut answer = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        answer.read_line(&mut line).unwrap();
        assert_eq!(line, "HTTP/1.1 100 Continue\r\n");

        server.signal(signal);
        let began = Instant::now();
        while server.connect().is_ok() {
            assert!(began.elapsed() < HANGS, "the port stays open");
            thread::yield_now();
        }
        stream.write_all(b"hello").unwrap();
        let mut rest = String::new();
        answer.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("HTTP/1.1 200 OK\r\n"), "{rest}");
        assert!(rest.ends_with("\r\n\r\nhello"), "{rest}");
        server.ended();
    }
}

#[test]
fn connections_stay_open_if_a_process_has_several() {
    let server = Server::start(&["--processes", "2", "--connections", "10"]);
    let streams: Vec<_> = (0..10).map(|_| server.connect().unwrap()).collect();
    for request in 0..3 {
        for stream in &streams {
            let mut writer = stream;
            write!(
                writer,
                "GET /double/{request} HTTP/1.1\r\nhost: test\r\n\r\n"
            )
            .unwrap();
        }
        for stream in &streams {
            let expected = format!("\r\n\r\n{}\n", 2 * request);
            let mut answer = Vec::new();
            while !answer.ends_with(expected.as_bytes()) {
                let mut byte = [0];
                let mut reader = stream;
                reader.read_exact(&mut byte).unwrap();
                answer.push(byte[0]);
            }
        }
    }
    // These connections wait for a next request, which does not delay the end.
    server.end(Signal::TERM);
}

/// Needs the program `wrk`, of the Debian package of that name.
#[test]
#[ignore = "needs wrk; .ci/run runs it"]
fn under_the_load_of_wrk_while_workers_are_killed() {
    let server = Server::start(&["--processes", "3"]);
    let done = AtomicBool::new(false);
    let url = format!("http://{}/double/21", server.address);
    let (output, killed) = thread::scope(|threads| {
        let killer = threads.spawn(|| server.kill_workers_until(&done));
        let mut wrk = Command::new("wrk");
        wrk.args(["--threads", "2", "--connections", "32", "--duration", "3s"]);
        let output = wrk.args(["--timeout", "3s"]).arg(&url).output().unwrap();
        done.store(true, Relaxed);
        (output, killer.join().unwrap())
    });
    let printed = String::from_utf8(output.stdout).unwrap();
    println!("{printed}\n{killed} workers were killed");
    assert!(output.status.success() && killed > 0);
    assert!(!printed.contains("Non-2xx"), "{printed}");
    // Socket errors: connect 0, read 17, write 0, timeout 0
    let errors = printed.lines().find(|line| line.contains("Socket errors:"));
    let numbers = errors.map_or(Vec::new(), |line| {
        let numbers = line.split(|c: char| !c.is_ascii_digit());
        numbers.filter_map(|n| n.parse::<usize>().ok()).collect()
    });
    if let [connect, read, write, timeout] = numbers[..] {
        assert_eq!((connect, timeout), (0, 0), "{printed}");
        assert!(read + write <= killed, "{printed}");
    }
    server.end(Signal::TERM);
}
