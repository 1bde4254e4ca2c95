//! The two sides of a response: [`Reply`] in the call, [`Head`] and [`Frames`] in hyper.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, Response};
use http_body::{Body, Frame};
use seedbed::CancelScope;
use seedbed::sync::{Receiver, Sender, channel};
use smol::stream::Stream;
use tonic::Status;

use super::status::trailers;

/// The call's side of its response. It outlives the scope of the call, to report its end.
pub struct Reply {
    head: Option<Sender<Start>>,
    rest: Option<Sender<Part>>,
}

/// The beginning of a response: the head, and the frames that were ready with it. With a unary
/// call, these are all, so it needs no second channel.
struct Start {
    parts: Parts,
    ready: VecDeque<Frame<Bytes>>,
    /// `None` if there is no more.
    rest: Option<Receiver<Part>>,
}

enum Part {
    Frame(Frame<Bytes>),
    /// The end of a stream that did not end by itself.
    End(HeaderMap),
    /// The regular end, after which the body was dropped.
    Complete,
}

/// Makes both sides. Dropping hyper's side cancels the scope.
pub fn reply(scope: &CancelScope) -> (Reply, Head) {
    let (sender, receiver) = channel(1);
    let reply = Reply {
        head: Some(sender),
        rest: None,
    };
    let head = Head {
        receiver,
        guard: Some(CancelOnDrop(scope.clone())),
    };
    (reply, head)
}

impl Reply {
    /// Sends the head. If `is_complete`, the frames are all of the body.
    pub async fn start(&mut self, parts: Parts, ready: VecDeque<Frame<Bytes>>, is_complete: bool) {
        let (sender, rest) = match is_complete {
            true => (None, None),
            false => {
                let (sender, receiver) = channel(1);
                (Some(sender), Some(receiver))
            }
        };
        self.rest = sender;
        if let Some(head) = self.head.take() {
            // There is room for one. An error means that the client has gone.
            _ = head.send(Start { parts, ready, rest }).await;
        }
    }

    /// Sends the next frame of the body, when hyper has taken the one before the last.
    pub async fn frame(&mut self, frame: Frame<Bytes>) {
        self.part(Part::Frame(frame)).await;
    }

    /// Marks the body as complete.
    pub async fn complete(&mut self) {
        self.part(Part::Complete).await;
        self.rest = None;
    }

    /// Ends the response with a status, wherever it is.
    pub async fn fail(mut self, status: Status) {
        if self.head.is_some() {
            let (parts, ()) = status.into_http::<()>().into_parts();
            self.start(parts, VecDeque::new(), true).await;
        } else {
            self.part(Part::End(trailers(&status))).await;
        }
    }

    async fn part(&mut self, part: Part) {
        if let Some(rest) = &self.rest {
            // An error means that the client has gone. The drop of hyper's side cancels the call.
            _ = rest.send(part).await;
        }
    }
}

struct CancelOnDrop(CancelScope);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel_because("the client has gone");
    }
}

/// The response, for hyper: it only receives. Dropping it cancels the call.
pub struct Head {
    receiver: Receiver<Start>,
    guard: Option<CancelOnDrop>,
}

impl Future for Head {
    type Output = Result<Response<Frames>, CallLost>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(start) = ready!(Pin::new(&mut self.receiver).poll_next(cx)) else {
            return Poll::Ready(Err(CallLost));
        };
        let frames = Frames {
            ready: start.ready,
            is_complete: start.rest.is_none(),
            rest: start.rest,
            _guard: self.guard.take(),
        };
        Poll::Ready(Ok(Response::from_parts(start.parts, frames)))
    }
}

/// The body of a response, for hyper: it only receives. Dropping it cancels the call.
pub struct Frames {
    ready: VecDeque<Frame<Bytes>>,
    rest: Option<Receiver<Part>>,
    is_complete: bool,
    _guard: Option<CancelOnDrop>,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = CallLost;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CallLost>>> {
        if let Some(frame) = self.ready.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if self.is_complete {
            return Poll::Ready(None);
        }
        let part = match &mut self.rest {
            Some(rest) => ready!(Pin::new(rest).poll_next(cx)),
            None => None,
        };
        Poll::Ready(match part {
            Some(Part::Frame(frame)) => Some(Ok(frame)),
            Some(Part::End(trailers)) => {
                self.is_complete = true;
                Some(Ok(Frame::trailers(trailers)))
            }
            Some(Part::Complete) => {
                self.is_complete = true;
                None
            }
            // The stream is reset, so that the client does not take it for complete.
            None => Some(Err(CallLost)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_complete && self.ready.is_empty()
    }
}

/// The call was cancelled together with its connection.
#[derive(Debug)]
pub struct CallLost;

impl fmt::Display for CallLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the call was cancelled with its connection")
    }
}

impl Error for CallLost {}
