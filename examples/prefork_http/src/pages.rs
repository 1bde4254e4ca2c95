//! The pages of the server. They know nothing of processes and signals.

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use seedbed::fail_after;

/// The largest body of a request.
const MAX_BODY_BYTES: usize = 1 << 20;

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// Answers one request. Code that computes may do so here, in the event loop: other requests are
/// served by other processes. `transfer_limit` is the time for the body of the request.
pub async fn answer(
    request: Request<Incoming>,
    transfer_limit: Duration,
) -> Result<Answer, Infallible> {
    let path = request.uri().path().to_owned();
    Ok(match (request.method(), path.as_str()) {
        (&Method::GET, "/") => page(StatusCode::OK, format!("process {}\n", std::process::id())),
        (&Method::GET, "/crash") => crash(),
        (&Method::POST, "/echo") => echo(request, transfer_limit).await,
        (&Method::GET, path) => match path.strip_prefix("/double/").map(str::parse::<u64>) {
            Some(Ok(number)) => page(StatusCode::OK, format!("{}\n", u128::from(number) * 2)),
            Some(Err(error)) => page(StatusCode::BAD_REQUEST, format!("{error}\n")),
            None => page(StatusCode::NOT_FOUND, "no such page\n"),
        },
        _ => page(StatusCode::METHOD_NOT_ALLOWED, "GET, or POST /echo\n"),
    })
}

/// Ends the process, as a fault in a C library would.
fn crash() -> Answer {
    std::process::abort()
}

async fn echo(request: Request<Incoming>, transfer_limit: Duration) -> Answer {
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
    match fail_after(transfer_limit, body).await {
        Ok(Ok(body)) => page(StatusCode::OK, body.to_bytes()),
        Ok(Err(error)) => page(StatusCode::PAYLOAD_TOO_LARGE, format!("{error}\n")),
        Err(_) => page(StatusCode::REQUEST_TIMEOUT, "the body took too long\n"),
    }
}

/// Makes an answer, which names the process that made it.
fn page(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()).boxed());
    *answer.status_mut() = status;
    let process = std::process::id().into();
    answer.headers_mut().insert("x-process", process);
    answer
}
