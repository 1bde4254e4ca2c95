//! The event loop of one process: accepts connections, and lets hyper serve them.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
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

use crate::limits::Limits;
use crate::pages::answer;
use crate::timed::Timed;

/// The sockets that all processes share: the listener, and one that is connected with the parent.
/// The latter is at its end when the requests are to be cut, and takes a byte for each connection
/// that a process has cut.
pub type Shared = (Descriptor<TcpListener>, Descriptor<UnixStream>);

/// The pause after a failed accept, for example because there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until the root scope of this worker is cancelled. Then returns when the
/// requests that were begun are answered, or cut.
///
/// ```text
/// open_nursery: a nursery
/// ├─ accept, until the cancellation
/// ├─ shield ── a connection, which ends after its request when `draining` is set
/// ├─ shield ── a connection
/// ┆
/// ```
pub async fn serve_connections((shared, limits): (Shared, Limits)) {
    let (Descriptor(listener), Descriptor(parent)) = shared;
    let listener = Async::new(listener).expect("the reactor takes a listener");
    let ending = Ending {
        draining: Event::new(),
        parent: Async::new(parent).expect("the reactor takes a socket"),
    };
    open_nursery(async |connections: Nursery<'_>| {
        let places = CapacityLimiter::new(limits.connections);
        let accepting = async {
            loop {
                let place = places.acquire().await;
                let stream = accept(&listener).await;
                let ending = &ending;
                connections.spawn(async move {
                    serve_connection(stream, limits, ending).await;
                    drop(place);
                });
            }
        };
        on_cancel(accepting, async { ending.draining.set() }).await
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

/// How the requests in progress learn that the server ends.
struct Ending {
    /// Each connection ends after its request.
    draining: Event,
    /// Can be read when the requests are to be cut.
    parent: Async<UnixStream>,
}

impl Ending {
    /// Tells the parent that a connection was cut.
    fn report_cut(&self) {
        // An error means that the parent has ended, or has this many reports that it has not read.
        _ = self.parent.get_ref().write(&[1]);
    }
}

/// Serves one connection. Cancellation does not interrupt a request: after `draining` is set, the
/// connection ends when its request is answered, at the limit, or when it is cut.
async fn serve_connection(stream: Async<TcpStream>, limits: Limits, ending: &Ending) {
    let stream = Timed::new(stream, limits.transfer);
    let connection = http1::Builder::new()
        .timer(SmolTimer::new())
        .header_read_timeout(limits.transfer)
        .keep_alive(limits.connections > 1)
        .serve_connection(
            FuturesIo::new(stream),
            service_fn(|request| answer(request, limits.transfer)),
        );
    shield(async {
        let mut connection = pin!(connection);
        let undisturbed = async {
            // An error concerns this client: it went away, was too slow, or did not speak HTTP.
            _ = connection.as_mut().await;
            true
        };
        let interrupted = async {
            ending.draining.wait().await;
            false
        };
        if or(undisturbed, interrupted).await {
            return;
        }
        connection.as_mut().graceful_shutdown();
        let finished = async {
            // An error concerns this client.
            _ = connection.await;
            true
        };
        let cut = async {
            // An error says no more than that the socket cannot be waited for: then the rest is
            // cut.
            _ = ending.parent.readable().await;
            false
        };
        let outcome = move_on_after(limits.drain, or(finished, cut)).await;
        if outcome != Some(true) {
            ending.report_cut();
        }
    })
    .await
}
