//! All connections of a server, and its end in order.

use std::future::ready;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use futures_rustls::TlsAcceptor;
use seedbed::cancel::ScopeGroup;
use seedbed::service::Shutdown;
use seedbed::{CancelScope, CapacityLimiter, Nursery, fail_after, open_nursery, sleep};
use smol::Async;
use smol::io::{AsyncRead, AsyncWrite};

use super::calls::GrpcService;
use super::connection::serve_connection;
use super::preface::read_preface;

/// The connections at a time. Others wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1000;

/// How long a client may take for the handshake of TLS, and to begin to speak HTTP/2.
const OPENING_LIMIT: Duration = Duration::from_secs(5);

/// How long answers may take to be written when all calls have been cancelled.
pub const FLUSH_GRACE: Duration = Duration::from_secs(5);

/// The pause after a failed accept, for example because there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The port that clients connect to.
pub struct Listener {
    pub port: Async<TcpListener>,
    /// `None` for clients that do not use TLS.
    pub tls: Option<TlsAcceptor>,
}

impl From<Async<TcpListener>> for Listener {
    fn from(port: Async<TcpListener>) -> Self {
        Self { port, tls: None }
    }
}

/// Serves the calls of all clients until the shutdown begins, and then ends in order:
///
/// 1. The port is closed, and clients are told to begin no more calls.
/// 2. Calls may finish within `grace`. Then they are cancelled, and answer UNAVAILABLE.
/// 3. The connections end when these answers are written. After [`FLUSH_GRACE`], those of clients
///    that do not read are cut.
///
/// The shutdown's own `drain_for` must be longer than both together.
pub async fn serve_grpc<S: GrpcService>(
    listener: impl Into<Listener>,
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
        let accepting = accept_connections(listener.into(), service, calls, shutdown);
        // `None` if the last connections were cut.
        _ = connections.run(accepting).await;
    });
    // The timer is of no use when the connections have ended.
    block.daemon().await
}

/// Accepts connections until the shutdown begins, and waits for their ends.
async fn accept_connections<S: GrpcService>(
    Listener { port, tls }: Listener,
    service: S,
    calls: &ScopeGroup,
    shutdown: &Shutdown,
) {
    let tls = &tls;
    open_nursery(async |connections: Nursery<'_>| {
        let limiter = CapacityLimiter::new(MAX_CONNECTIONS);
        let accept = async || (limiter.acquire().await, accept(&port).await);
        while let Some((token, stream)) = shutdown.until(accept()).await {
            let service = service.clone();
            connections.spawn(async move {
                serve_stream(stream, tls, service, calls, shutdown).await;
                drop(token);
            });
        }
        drop(port);
    })
    .await
}

/// Accepts the next connection. Errors are temporary: they concern one client, or a lack of
/// resources.
async fn accept(port: &Async<TcpListener>) -> Async<TcpStream> {
    loop {
        match port.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                eprintln!("no connection can be accepted at the moment: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one client, with TLS or without.
async fn serve_stream<S: GrpcService>(
    stream: Async<TcpStream>,
    tls: &Option<TlsAcceptor>,
    service: S,
    calls: &ScopeGroup,
    shutdown: &Shutdown,
) {
    // Small messages are not held back for larger ones. An error means that the client has gone.
    _ = stream.get_ref().set_nodelay(true);
    match tls {
        None => open_and_serve(ready(Ok(stream)), service, calls, shutdown).await,
        Some(tls) => open_and_serve(tls.accept(stream), service, calls, shutdown).await,
    }
}

/// Serves one client after its handshake. A client that does not finish it, or that says nothing
/// then, is left, after a time, or when the server ends.
async fn open_and_serve<S, I>(
    handshake: impl Future<Output = io::Result<I>>,
    service: S,
    calls: &ScopeGroup,
    shutdown: &Shutdown,
) where
    S: GrpcService,
    I: AsyncRead + AsyncWrite + Send + Unpin,
{
    let opening = fail_after(OPENING_LIMIT, async {
        read_preface(handshake.await?).await
    });
    // An error concerns this client only: it is too slow, has gone, or speaks something else.
    if let Some(Ok(Ok(stream))) = shutdown.until(opening).await {
        serve_connection(stream, service, calls.clone(), shutdown).await;
    }
}
