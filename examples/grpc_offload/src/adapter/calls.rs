//! Calls: each is a child of its connection's nursery, in a scope of its own.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::service::Service;
use seedbed::cancel::{CancelSource, ScopeGroup, checkpoint_if_cancelled};
use seedbed::nursery::Spawner;
use seedbed::{CancelScope, Nursery, open_nursery};
use smol::future::{FutureExt, poll_fn};
use tonic::Status;
use tonic::body::Body;

use super::reply::{Head, Reply, reply};
use super::status::{server_ends, trailers};
use super::timeout::grpc_timeout;
use super::upload::Upload;

/// The frames that may travel with the head of a response. More are sent one by one, so that a
/// stream whose values are always ready does not fill the memory.
const FRAMES_WITH_HEAD: usize = 4;

/// A generated service of tonic, or several behind a router.
pub trait GrpcService:
    tower_service::Service<
        Request<Upload>,
        Response = Response<Body>,
        Error = Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> GrpcService for S where
    S: tower_service::Service<
            Request<Upload>,
            Response = Response<Body>,
            Error = Infallible,
            Future: Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

/// The nursery of a call, in the extensions of its request. The call ends when its children have
/// ended, and cancels them when it is cancelled.
///
/// ```
/// use grpc_offload::adapter::calls::CallNursery;
///
/// fn in_a_handler(request: &tonic::Request<()>) {
///     if let Some(CallNursery(nursery)) = request.extensions().get() {
///         nursery.spawn(async {});
///     }
/// }
/// ```
#[derive(Clone)]
pub struct CallNursery(pub Spawner<'static>);

/// Starts a call for each request of a connection.
pub struct Calls<'env, S> {
    pub service: S,
    pub nursery: Spawner<'env>,
    /// The scopes of all calls, which are cancelled when the grace period is over.
    pub scopes: ScopeGroup,
}

impl<S: GrpcService> Service<Request<Incoming>> for Calls<'_, S> {
    type Response = Response<super::reply::Frames>;
    type Error = super::reply::CallLost;
    type Future = Head;

    fn call(&self, request: Request<Incoming>) -> Head {
        let scope = self.scopes.open_child();
        if let Some(timeout) = grpc_timeout(request.headers()) {
            scope.set_timeout(timeout);
        }
        let (reply, head) = reply(&scope);
        let call = Call {
            service: self.service.clone(),
            request: request.map(Upload::new),
            scope,
            scopes: self.scopes.clone(),
        };
        let name = call.request.uri().path().to_owned();
        // If the connection has ended, the head reports that the call is lost.
        _ = self.nursery.named(name).spawn_if_open(call.run(reply));
        head
    }
}

struct Call<S> {
    service: S,
    request: Request<Upload>,
    scope: CancelScope,
    scopes: ScopeGroup,
}

impl<S: GrpcService> Call<S> {
    /// Runs the handler, and sends what it returns. Its panic ends this call only.
    async fn run(self, mut reply: Reply) {
        let Call {
            mut service,
            mut request,
            scope,
            scopes,
        } = self;
        let call = open_nursery(|children: Nursery<'static, ()>| {
            let reply = &mut reply;
            request
                .extensions_mut()
                .insert(CallNursery(children.spawner()));
            drop(children);
            async move {
                let Ok(response) = service.call(request).await;
                send(response, reply).await;
            }
        });
        let outcome = AssertUnwindSafe(scope.run(call)).catch_unwind().await;
        match outcome {
            Ok(Some(())) => {}
            Ok(None) => reply.fail(cancelled(&scope, &scopes)).await,
            // The panic was printed where it happened.
            Err(_) => reply.fail(Status::internal("the handler panicked")).await,
        }
    }
}

/// Sends a response as far as it is there, and then as its body goes on.
///
/// No status passes once the call is cancelled: by its scope, or by its nursery, after the panic of
/// a child. While the parts of a cancelled call are dropped one by one, its stream may end early,
/// and the status that follows would say that all is well.
async fn send(response: Response<Body>, reply: &mut Reply) {
    let (parts, mut body) = response.into_parts();
    let mut ready = VecDeque::new();
    let is_complete = loop {
        let polled = poll_fn(|cx| Poll::Ready(poll_frame(&mut body, cx))).await;
        match polled {
            Poll::Ready(Some(frame)) => ready.push_back(frame),
            Poll::Ready(None) => break true,
            Poll::Pending => break false,
        }
        if ready.len() == FRAMES_WITH_HEAD && !body.is_end_stream() {
            break false;
        }
    };
    // A head may contain a status, and so may these frames.
    checkpoint_if_cancelled().await;
    reply.start(parts, ready, is_complete).await;
    if is_complete {
        return;
    }
    while let Some(frame) = poll_fn(|cx| poll_frame(&mut body, cx)).await {
        if frame.is_trailers() {
            checkpoint_if_cancelled().await;
        }
        reply.frame(frame).await;
    }
    reply.complete().await;
}

fn poll_frame(body: &mut Body, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
    Pin::new(body).poll_frame(cx).map(|frame| match frame? {
        Ok(frame) => Some(frame),
        Err(status) => Some(Frame::trailers(trailers(&status))),
    })
}

/// The status of a call that was cancelled.
fn cancelled(scope: &CancelScope, scopes: &ScopeGroup) -> Status {
    let source = scope.cancel_reason().map(|reason| reason.source());
    if source == Some(CancelSource::Deadline) {
        Status::deadline_exceeded("the call took longer than its client allowed")
    } else if scopes.is_cancelled() {
        server_ends()
    } else {
        Status::cancelled("the call was cancelled")
    }
}
