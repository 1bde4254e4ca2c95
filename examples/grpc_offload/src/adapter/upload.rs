//! The body of a request.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// The body of a request, which does not tell a handler that the client has gone.
///
/// A reset stream wakes both the body and the call. If the handler is polled first, it would see an
/// error, or even (for the reason NO_ERROR) the regular end: an upload that was cut off would look
/// complete. A body that fails stays pending instead. hyper notices the reset as well, and drops
/// its side of the call, which cancels the handler.
pub struct Upload(Incoming);

impl Upload {
    pub fn new(body: Incoming) -> Self {
        Upload(body)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match Pin::new(&mut self.0).poll_frame(cx) {
            Poll::Ready(Some(Err(_))) => Poll::Pending,
            Poll::Ready(None) if !self.0.is_end_stream() => Poll::Pending,
            polled => polled,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
