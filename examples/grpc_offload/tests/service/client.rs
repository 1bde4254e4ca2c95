//! tonic's clients over hyper's connections, in a nursery.

use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::task::{Context, Poll};

use grpc_offload::adapter::executor::{InNursery, RunTimer};
use grpc_offload::generated::offload_client::OffloadClient;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use seedbed::{Nursery, open_nursery};
use smol::Async;
use smol::io::{AsyncRead, AsyncWrite};
use smol_hyper::rt::FuturesIo;

pub type Client = OffloadClient<Channel>;

/// Connects to a server while `test` runs.
pub async fn with_channel<R: Send>(address: SocketAddr, test: impl AsyncFnOnce(Channel) -> R) -> R {
    let stream = Async::<TcpStream>::connect(address).await.unwrap();
    stream.get_ref().set_nodelay(true).unwrap();
    with_channel_over(stream, test).await
}

/// Speaks HTTP/2 over a stream while `test` runs.
pub async fn with_channel_over<R: Send>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    test: impl AsyncFnOnce(Channel) -> R,
) -> R {
    open_nursery(async |n: Nursery<'_, R>| {
        let handshake = http2::Builder::new(InNursery(n.spawner()))
            .timer(RunTimer)
            .handshake(FuturesIo::new(stream))
            .await;
        let (sender, connection) = handshake.unwrap();
        // The calls see the errors of their connection.
        n.spawn(async { _ = connection.await });
        test(Channel(sender)).await
    })
    .daemon()
    .await
}

/// The authority that clients name in their requests.
pub fn origin() -> http::Uri {
    http::Uri::from_static("http://localhost")
}

/// The connection, as tonic wants it.
#[derive(Clone)]
pub struct Channel(http2::SendRequest<tonic::body::Body>);

impl tower_service::Service<http::Request<tonic::body::Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
