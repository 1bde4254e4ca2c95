//! All connections of a server, and its end in order.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use seedbed::cancel::ScopeGroup;
use seedbed::service::Shutdown;
use seedbed::{CancelScope, CapacityLimiter, Nursery, open_nursery, sleep};
use smol::Async;

use super::calls::GrpcService;
use super::connection::serve_connection;
use super::preface::{Replayed, read_preface};

/// The connections at a time. Others wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1000;

/// How long a client may take to begin to speak HTTP/2.
const PREFACE_LIMIT: Duration = Duration::from_secs(5);

/// How long answers may take to be written when all calls have been cancelled.
pub const FLUSH_GRACE: Duration = Duration::from_secs(5);

/// The pause after a failed accept, for example because there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the calls of all clients until the shutdown begins, and then ends in order:
///
/// 1. The port is closed, and clients are told to begin no more calls.
/// 2. Calls may finish within `grace`. Then they are cancelled, and answer UNAVAILABLE.
/// 3. The connections end when these answers are written. After [`FLUSH_GRACE`], those of clients
///    that do not read are cut.
///
/// The shutdown's own `drain_for` must be longer than both together.
pub async fn serve_grpc<S: GrpcService>(
    listener: Async<TcpListener>,
    service: S,
    grace: Duration,
    shutdown: &Shutdown,
) {
    let calls = &ScopeGroup::new();
    let connections = &CancelScope::new();
    let block = open_nursery(async |timer: Nursery<'_>| {
        timer.spawn(async move {
            shutdown.begun().await;
            connections.set_timeout(grace.saturating_add(FLUSH_GRACE));
            sleep(grace).await;
            calls.cancel();
        });
        let accepting = accept_connections(listener, service, calls, shutdown);
        // `None` if the last connections were cut.
        _ = connections.run(accepting).await;
    });
    // The timer is of no use when the connections have ended.
    block.daemon().await
}

/// Accepts connections until the shutdown begins, and waits for their ends.
async fn accept_connections<S: GrpcService>(
    listener: Async<TcpListener>,
    service: S,
    calls: &ScopeGroup,
    shutdown: &Shutdown,
) {
    open_nursery(async |connections: Nursery<'_>| {
        let limiter = CapacityLimiter::new(MAX_CONNECTIONS);
        let accept = async || (limiter.acquire().await, accept(&listener).await);
        while let Some((token, stream)) = shutdown.until(accept()).await {
            let service = service.clone();
            connections.spawn(async move {
                serve_stream(stream, service, calls, shutdown).await;
                drop(token);
            });
        }
        drop(listener);
    })
    .await
}

/// Accepts the next connection. Errors are temporary: they concern one client, or a lack of
/// resources.
async fn accept(listener: &Async<TcpListener>) -> Async<TcpStream> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                eprintln!("no connection can be accepted at the moment: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one client. A client that says nothing is left, after a time, or when the server ends.
async fn serve_stream<S: GrpcService>(
    stream: Async<TcpStream>,
    service: S,
    calls: &ScopeGroup,
    shutdown: &Shutdown,
) {
    let opened = shutdown.until(open(stream)).await;
    if let Some(Ok(stream)) = opened {
        serve_connection(stream, service, calls.clone(), shutdown).await;
    }
}

async fn open(stream: Async<TcpStream>) -> io::Result<Replayed<Async<TcpStream>>> {
    // Small messages are not held back for larger ones.
    stream.get_ref().set_nodelay(true)?;
    read_preface(stream, PREFACE_LIMIT).await
}
