//! One connection of HTTP/2.

use std::pin::pin;
use std::time::Duration;

use hyper::server::conn::http2;
use seedbed::cancel::ScopeGroup;
use seedbed::service::Shutdown;
use seedbed::{Nursery, open_nursery};
use smol::io::{AsyncRead, AsyncWrite};
use smol_hyper::rt::FuturesIo;

use super::calls::{Calls, GrpcService};
use super::executor::{InNursery, RunTimer};

/// The calls of one connection at a time.
const MAX_STREAMS: u32 = 200;

/// The bytes that a client may send on one stream before the handler takes them. This is the real
/// length of every queue that an upload fills.
const STREAM_WINDOW: u32 = 64 << 10;

/// The bytes that a client may send on one connection before they are taken: enough for all of its
/// streams, so that uploads that no handler reads do not block the other calls.
const CONNECTION_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;

/// The bytes of one response that are kept for a client that does not read.
const SEND_BUFFER: usize = 64 << 10;

/// The time after which a silent client is asked whether it is there.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// The time that a client has for this answer, before its connection is cut.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves a connection until either side ends it. When the shutdown begins, it finishes its calls.
pub async fn serve_connection<S, I>(stream: I, service: S, scopes: ScopeGroup, shutdown: &Shutdown)
where
    S: GrpcService,
    I: AsyncRead + AsyncWrite + Send + Unpin,
{
    open_nursery(async |children: Nursery<'_>| {
        let nursery = children.spawner();
        let mut settings = http2::Builder::new(InNursery(nursery.clone()));
        settings
            .timer(RunTimer)
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            // A client may cancel all of its calls at once. With the default of 20, that would end
            // the connection, and the calls that it did not cancel.
            .max_pending_accept_reset_streams(MAX_STREAMS as usize);
        let calls = Calls {
            service,
            nursery,
            scopes,
        };
        let mut connection = pin!(settings.serve_connection(FuturesIo::new(stream), calls));
        // An error concerns this client only: it has gone, or does not follow the protocol. Its
        // calls are cancelled, and the nursery waits for them.
        if shutdown.until(connection.as_mut()).await.is_none() {
            connection.as_mut().graceful_shutdown();
            // An error concerns this client only.
            _ = connection.await;
        }
    })
    .await
}
