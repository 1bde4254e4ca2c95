//! The event loop of one process: accepts connections, and lets hyper serve them.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::pin::pin;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use seedbed::sync::Event;
use seedbed::worker::Descriptor;
use seedbed::{CapacityLimiter, Nursery, move_on_after, on_cancel, open_nursery, shield, sleep};
use smol::Async;
use smol::future::or;
use smol_hyper::rt::{FuturesIo, SmolTimer};

use crate::pages::answer;

/// How long the requests in progress may take after the server has begun to end.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// How long a client may take to send the head of a request.
const HEAD_LIMIT: Duration = Duration::from_secs(5);

/// The pause after a failed accept, for example because there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections, at most `most` at a time, until the root scope of this worker is cancelled.
/// Then returns when the requests that were begun are answered.
///
/// ```text
/// open_nursery: a nursery
/// ├─ accept, until the cancellation
/// ├─ shield ── a connection, which ends after its request when `draining` is set
/// ├─ shield ── a connection
/// ┆
/// ```
pub async fn serve_connections((Descriptor(listener), most): (Descriptor<TcpListener>, usize)) {
    let listener = Async::new(listener).expect("the reactor takes a listener");
    let draining = Event::new();
    open_nursery(async |connections: Nursery<'_>| {
        let places = CapacityLimiter::new(most);
        let accepting = async {
            loop {
                let place = places.acquire().await;
                let stream = accept(&listener).await;
                let draining = &draining;
                connections.spawn(async move {
                    // An error concerns one client: it went away, or did not speak HTTP.
                    _ = attend_to(stream, most > 1, draining).await;
                    drop(place);
                });
            }
        };
        on_cancel(accepting, async { draining.set() }).await
    })
    .await;
}

/// Accepts the next connection. Errors are temporary: they concern one client, or a lack of
/// resources. After the end of the listening, this waits for its cancellation.
async fn accept(listener: &Async<TcpListener>) -> Async<TcpStream> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                if error.kind() != io::ErrorKind::InvalidInput {
                    eprintln!("no connection can be accepted at the moment: {error}");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection. Cancellation does not interrupt a request: after `draining` is set, the
/// connection ends when its request is answered, or at the limit.
async fn attend_to(
    stream: Async<TcpStream>,
    keep_alive: bool,
    draining: &Event,
) -> hyper::Result<()> {
    let connection = http1::Builder::new()
        .timer(SmolTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .keep_alive(keep_alive)
        .serve_connection(FuturesIo::new(stream), service_fn(answer));
    shield(async {
        let mut connection = pin!(connection);
        let undisturbed = async { Some(connection.as_mut().await) };
        let interrupted = async {
            draining.wait().await;
            None
        };
        if let Some(outcome) = or(undisturbed, interrupted).await {
            return outcome;
        }
        connection.as_mut().graceful_shutdown();
        move_on_after(DRAIN_LIMIT, connection)
            .await
            .unwrap_or(Ok(()))
    })
    .await
}
