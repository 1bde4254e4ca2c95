//! How do several processes share one port, so that a crash costs one request?
//!
//! `open_loops` runs the `async fn` [`serve_connections`] in each of several worker processes. All
//! get the same listener through `worker::Descriptor`. A connection goes to one that accepts it, or
//! waits in the kernel's queue. A process that crashes loses the connections that it has accepted,
//! and is started again. Each process accepts one connection at a time, so that is one request.
//! With `--connections` it accepts more: then connections stay open between requests, and a crash
//! costs every request in that process.
//!
//! SIGTERM or Ctrl-C ends the server in order:
//!
//! 1. the port is closed for all processes at once, so that new clients go elsewhere;
//! 2. the block of the loops ends, which cancels the root scope of each;
//! 3. each process finishes the requests that it has begun, within a time limit, and ends;
//! 4. the program ends when no worker is left.
//!
//! A second signal cuts the requests: each process holds a socket, and reads its end when the
//! parent has shut down the other side. A process that does not even notice that is killed when its
//! time is over. The program prints what was cut.
//!
//! Clients have a time limit for each step of a request, so a slow one does not keep its process.
//!
//! ```text
//! cargo run --release -- --processes 4 127.0.0.1:8080
//! curl http://127.0.0.1:8080/double/21
//! curl http://127.0.0.1:8080/crash
//! ```

mod limits;
mod pages;
mod server;
mod timed;

use std::error::Error;
use std::io::{self, Read};
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use limits::Limits;
use rustix::net::Shutdown as Direction;
use seedbed::remote::open_loops;
use seedbed::run::CtrlC;
use seedbed::service::{Shutdown, serve};
use seedbed::time::sleep_forever;
use seedbed::worker::{Descriptor, default_context_statistics};
use seedbed::{Nursery, on_cancel, open_nursery};
use server::serve_connections;

/// How long a process may need to end when its requests have ended, before it is killed.
const EXIT_GRACE: Duration = Duration::from_secs(2);

/// The pause before the first restart of a process in a row, and the longest one. It bounds what
/// requests that crash on purpose can cost: ten starts a second for each process.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

struct Arguments {
    address: String,
    processes: NonZeroUsize,
    limits: Limits,
}

impl Arguments {
    fn parse() -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;

        let mut arguments = Self {
            address: "127.0.0.1:8080".to_owned(),
            processes: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            limits: Limits {
                connections: 1,
                transfer: Duration::from_secs(5),
                drain: Duration::from_secs(10),
            },
        };
        let limits = &mut arguments.limits;
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("processes") => arguments.processes = parser.value()?.parse()?,
                Long("connections") => {
                    limits.connections = parser.value()?.parse::<NonZeroUsize>()?.get();
                }
                Long("transfer-limit") => limits.transfer = parser.value()?.parse_with(seconds)?,
                Long("drain-limit") => limits.drain = parser.value()?.parse_with(seconds)?,
                Value(address) => arguments.address = address.string()?,
                _ => return Err(argument.unexpected()),
            }
        }
        Ok(arguments)
    }
}

fn seconds(text: &str) -> Result<Duration, Box<dyn Error + Send + Sync>> {
    Ok(Duration::try_from_secs_f64(text.parse()?)?)
}

// `serve` handles Ctrl-C, so the run must not.
#[seedbed::main(ctrl_c = CtrlC::Leave)]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments = Arguments::parse().map_err(|error| format!("{error}\n{USAGE}"))?;
    let listener = TcpListener::bind(&arguments.address)
        .map_err(|error| format!("cannot listen at {}: {error}", arguments.address))?;
    println!("listening at {}", listener.local_addr()?);

    let limits = arguments.limits;
    let kill_after = limits.drain.saturating_add(EXIT_GRACE);
    // Each process waits for the end of what this side sends, and reports in it what it has cut.
    let (processes, parent) = UnixStream::pair()?;
    let service = async |shutdown: Shutdown| {
        let shared = (Descriptor(listener.try_clone()?), Descriptor(parent));
        // A request can crash its process at any time, so no number of crashes ends the server.
        let loops = open_loops(
            arguments.processes.get(),
            serve_connections,
            (shared, limits),
        )
        .backoff(PAUSES.0, PAUSES.1)
        .limit(u32::MAX)
        .kill_after(kill_after)
        .open(async {
            shutdown.begun().await;
            stop_listening(&listener)
        });
        let block = open_nursery(async |n: Nursery<'_, _>| {
            // Cancelled when the service is cut, while the loops still finish their requests.
            n.spawn(on_cancel(sleep_forever(), async {
                let ended = rustix::net::shutdown(&processes, Direction::Write);
                ended.expect("a connected socket can be shut down");
            }));
            loops.await.map_err(io::Error::other)?
        });
        block.daemon().await
    };
    // `None` if the service was cut.
    if let Some(outcome) = serve(service).drain_for(kill_after).await? {
        outcome?;
    }
    print_losses(processes)?;
    println!("ended");
    Ok(())
}

/// Prints what was not finished, when no process is left.
fn print_losses(mut processes: UnixStream) -> io::Result<()> {
    let mut reports = Vec::new();
    processes.read_to_end(&mut reports)?;
    if !reports.is_empty() {
        println!("connections that were cut: {}", reports.len());
    }
    match default_context_statistics().killed {
        0 => {}
        killed => println!("processes that were killed: {killed}"),
    }
    Ok(())
}

/// Closes the port for all processes that have this listener. Closing a descriptor would only close
/// the one of this process. Clients that no process has accepted are refused: no request of theirs
/// was begun.
fn stop_listening(listener: &TcpListener) -> io::Result<()> {
    Ok(rustix::net::shutdown(listener, Direction::Read)?)
}

const USAGE: &str = "usage: prefork_http [--processes N] [--connections N] \
    [--transfer-limit SECONDS] [--drain-limit SECONDS] [ADDRESS]";
