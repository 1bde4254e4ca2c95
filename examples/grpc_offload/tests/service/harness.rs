//! A server and clients in one run, whose tasks take turns in an order that a seed decides.

use std::future::IntoFuture;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use seedbed::service::{Shutdown, serve};
use seedbed::sync::channel;
use seedbed::{CapacityLimiter, RunBuilder, WorkerConfig, cache_scope};
use smol::Async;
use smol::future::{or, zip};

use crate::client::{Channel, Client, origin, with_channel};

/// No test takes as long, unless something hangs.
const HANGS: Duration = Duration::from_secs(60);

/// The order of tasks differs with each of these.
pub const SEEDS: std::ops::Range<u64> = 0..10;

/// The jobs of calls that run at a time in one test.
pub const JOBS_OF_CALLS: usize = 2;

/// A running server.
pub struct Server {
    pub address: SocketAddr,
    pub shutdown: Shutdown,
}

/// Runs a server and, at the same time, `test`. Then shuts the server down, and checks that it
/// ends in order.
pub fn with_server(
    builder: RunBuilder,
    service: impl AsyncFnOnce(Async<TcpListener>, &Shutdown),
    test: impl AsyncFnOnce(&Server),
) {
    with_limited_server(builder, HANGS, service, test);
}

/// Runs a server that is cut after this time of its shutdown, which must suffice.
pub fn with_limited_server(
    builder: RunBuilder,
    drain_limit: Duration,
    service: impl AsyncFnOnce(Async<TcpListener>, &Shutdown),
    test: impl AsyncFnOnce(&Server),
) {
    let both = async {
        let listener = Async::<TcpListener>::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.get_ref().local_addr().unwrap();
        let (sender, handles) = channel(1);
        let serving = serve(async |shutdown: Shutdown| {
            sender.send(shutdown.clone()).await.unwrap();
            service(listener, &shutdown).await;
        });
        let testing = async {
            let shutdown = handles.recv().await.unwrap();
            let server = Server { address, shutdown };
            test(&server).await;
            server.shutdown.begin();
        };
        let serving = serving.signals(&[]).drain_for(drain_limit);
        let (ended, ()) = zip(serving.into_future(), testing).await;
        assert!(ended.unwrap().is_some(), "the server was cut");
    };
    // In real time, also if the run's clock is a virtual one.
    let watchdog = async {
        smol::Timer::after(HANGS).await;
        panic!("something hangs");
    };
    let _running = watch_this_thread();
    // Tests on other threads have workers, and a limiter, of their own.
    let workers = WorkerConfig::new().limiter(&CapacityLimiter::new(JOBS_OF_CALLS));
    builder.run(cache_scope(workers, or(both, watchdog)));
}

/// Ends the test program if a handler blocks the thread of the test, where no task can notice it.
/// Dropping the value ends the watch.
fn watch_this_thread() -> mpsc::Sender<()> {
    let (running, ended) = mpsc::channel();
    let name = thread::current().name().unwrap_or_default().to_owned();
    thread::spawn(move || {
        if ended.recv_timeout(2 * HANGS) == Err(RecvTimeoutError::Timeout) {
            eprintln!("the thread of the test {name} is blocked");
            std::process::abort();
        }
    });
    running
}

/// Returns a builder of runs with this order of tasks.
pub fn shuffled(seed: u64) -> RunBuilder {
    RunBuilder::new().shuffle(seed)
}

impl Server {
    /// Connects a client of the service while `test` runs.
    pub async fn with_client<R: Send>(&self, test: impl AsyncFnOnce(Client) -> R) -> R {
        let test = async |channel| test(Client::with_origin(channel, origin())).await;
        self.with_channel(test).await
    }

    /// Connects a client of any service while `test` runs.
    pub async fn with_channel<R: Send>(&self, test: impl AsyncFnOnce(Channel) -> R) -> R {
        with_channel(self.address, test).await
    }
}
