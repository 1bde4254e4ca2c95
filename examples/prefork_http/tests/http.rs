//! Runs the server as a user does, while its processes crash, are killed, or are asked to end.

#[path = "../../../tests/common/server_program.rs"]
mod server_program;

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use server_program::{HANGS, ServerProgram};

/// A running server.
struct Server(ServerProgram);

impl Deref for Server {
    type Target = ServerProgram;

    fn deref(&self) -> &ServerProgram {
        &self.0
    }
}

impl Server {
    fn start(options: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_prefork_http"));
        command.args(options).arg("127.0.0.1:0");
        Self(ServerProgram::start(&mut command))
    }

    /// Sends a signal, and checks that the server ends in order and leaves no process.
    fn end(self, signal: Signal) {
        assert_eq!(self.0.end(signal), ["ended"]);
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

    /// Begins a request with a body of that many bytes, and waits until a page reads it.
    fn begin_echo(&self, length: usize) -> TcpStream {
        let mut stream = self.connect().unwrap();
        write!(
            stream,
            "POST /echo HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        )
        .unwrap();
        // This comes when the page reads the body, so the request is in progress.
        let expected = b"HTTP/1.1 100 Continue\r\n\r\n";
        let mut answer = vec![0; expected.len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, expected, "{}", answer.escape_ascii());
        stream
    }

    /// Waits until new connections are refused, so that the first signal has been handled.
    fn wait_until_the_port_is_closed(&self) {
        let began = Instant::now();
        while self.connect().is_ok() {
            assert!(began.elapsed() < HANGS, "the port stays open");
            thread::yield_now();
        }
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
                        None => {
                            lost.fetch_add(1, Relaxed);
                        }
                    }
                }
            });
        }
    });
    lost.into_inner()
}

/// Returns the rest of the answer to a request.
fn rest_of(mut stream: TcpStream) -> String {
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    rest
}

/// Waits for the next byte. Returns whether the connection was closed or reset instead.
fn is_cut(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

/// Each process has one connection at a time, so requests that are in progress at the same time are
/// in different ones.
#[test]
fn processes_share_the_port() {
    let server = Server::start(&["--processes", "3", "--transfer-limit", "3600"]);
    let begun: Vec<_> = (0..3).map(|_| server.begin_echo(5)).collect();
    let answering = begun.into_iter().map(|mut stream| {
        stream.write_all(b"hello").unwrap();
        let answer = rest_of(stream);
        let mut lines = answer.lines();
        let process = lines.find_map(|line| line.strip_prefix("x-process: "));
        process.unwrap().parse().unwrap()
    });
    let answering: BTreeSet<i32> = answering.collect();
    let workers: BTreeSet<i32> = server.workers().into_iter().map(Pid::as_raw_pid).collect();
    assert_eq!(answering.len(), 3);
    assert!(answering.is_subset(&workers), "{answering:?} {workers:?}");
    assert_eq!(double_from_clients(&server, 8, 25), 0);
    server.end(Signal::TERM);
}

/// There is one process with one connection, so each connection is accepted when the one before it
/// has lost its place.
#[test]
fn a_client_that_sends_too_slowly_loses_its_connection() {
    let server = Server::start(&["--processes", "1", "--transfer-limit", "0.2"]);
    // Returns all that the server says to a client that sends this and no more.
    let exchange = |sent: &str| {
        let mut stream = server.connect()?;
        stream.write_all(sent.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        io::Result::Ok(answer)
    };
    let began = Instant::now();
    let answer = exchange("GET / HTTP/1.1\r\nhost: te").unwrap_or_default();
    assert!(!answer.contains("200 OK"), "{answer}");

    let body = "POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhell";
    let answer = loop {
        match exchange(body) {
            Ok(answer) if !answer.is_empty() => break answer,
            // On a busy machine, this client may need more than the limit for the head.
            _ => assert!(began.elapsed() < HANGS, "no answer"),
        }
    };
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(began.elapsed() < HANGS, "the connections stay open");
    server.end(Signal::TERM);
}

/// Each request is read after the answer to the one before it is written, so a client that reads
/// none fills the buffers of the kernel, and then neither side goes on.
#[test]
fn a_client_that_does_not_read_its_answers_loses_its_connection() {
    let options = ["--connections", "2", "--transfer-limit", "1"];
    let server = Server::start(&options);
    let mut client = server.connect().unwrap();
    let head = "POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\n";
    let request = [head.as_bytes(), &[b'x'; 1_000_000]].concat();
    let error = loop {
        if let Err(error) = client.write_all(&request) {
            break error;
        }
    };
    // After `HANGS`, it would be another one.
    let lost = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
    assert!(lost.contains(&error.kind()), "{error}");
    server.end(Signal::TERM);
}

/// The time limits are such that the requests would go on for an hour.
#[test]
fn a_second_signal_cuts_the_requests() {
    let server = Server::start(&[
        "--processes",
        "2",
        "--transfer-limit",
        "3600",
        "--drain-limit",
        "3600",
    ]);
    let mut begun = [server.begin_echo(5), server.begin_echo(5)];
    server.signal(Signal::TERM);
    server.wait_until_the_port_is_closed();
    server.signal(Signal::INT);
    for stream in &mut begun {
        assert!(is_cut(stream));
    }
    let printed = server.0.printed_until_its_end();
    assert_eq!(printed, ["connections that were cut: 2", "ended"]);
}

#[test]
fn requests_that_are_not_over_at_the_drain_limit_are_cut_and_reported() {
    let limits = ["--transfer-limit", "3600", "--drain-limit", "0.2"];
    let server = Server::start(&[&["--processes", "2"], &limits[..]].concat());
    let mut begun = [server.begin_echo(5), server.begin_echo(5)];
    server.signal(Signal::TERM);
    for stream in &mut begun {
        assert!(is_cut(stream));
    }
    let printed = server.0.printed_until_its_end();
    assert_eq!(printed, ["connections that were cut: 2", "ended"]);
}

/// A stopped process stands for one whose page computes without an end.
#[test]
fn a_process_that_does_not_notice_the_drain_limit_is_killed_and_reported() {
    let limits = ["--transfer-limit", "3600", "--drain-limit", "0.2"];
    let server = Server::start(&[&["--processes", "1"], &limits[..]].concat());
    let mut begun = server.begin_echo(5);
    let [worker] = server.workers()[..] else {
        panic!("there is one process");
    };
    kill_process(worker, Signal::STOP).unwrap();
    server.signal(Signal::TERM);
    assert!(is_cut(&mut begun));
    let printed = server.0.printed_until_its_end();
    assert_eq!(printed, ["processes that were killed: 1", "ended"]);
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
    let (lost, killed) = server.while_killing_workers(|| double_from_clients(&server, 8, 100));
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
        let mut stream = server.begin_echo(5);
        server.signal(signal);
        server.wait_until_the_port_is_closed();
        stream.write_all(b"hello").unwrap();
        let rest = rest_of(stream);
        assert!(rest.contains("HTTP/1.1 200 OK\r\n"), "{rest}");
        assert!(rest.ends_with("\r\n\r\nhello"), "{rest}");
        assert_eq!(server.0.printed_until_its_end(), ["ended"]);
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
    let url = format!("http://{}/double/21", server.address);
    let mut wrk = Command::new("wrk");
    wrk.args(["--threads", "2", "--connections", "32", "--duration", "3s"]);
    wrk.args(["--timeout", "3s"]).arg(&url);
    let (output, killed) = server.while_killing_workers(|| wrk.output().unwrap());
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
