//! A call of a fallible job, with one `Result` in place of two.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::future::RunSyncFuture;
use crate::worker::error::WorkerError;

/// Waits for a call whose job returns a `Result`; made by
/// [`RunSync::flatten`](crate::worker::RunSync::flatten).
///
/// [`run_sync`](crate::run_sync()) documents what dropping it does, under "Cancellation".
#[must_use = "futures do nothing unless awaited"]
pub struct FlatRunSync<A, T, E> {
    call: RunSyncFuture<A, Result<T, E>>,
}

impl<A, T, E> FlatRunSync<A, T, E> {
    pub(super) fn new(call: RunSyncFuture<A, Result<T, E>>) -> Self {
        Self { call }
    }
}

impl<A, T, E> Future for FlatRunSync<A, T, E>
where
    E: From<WorkerError>,
{
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, E>> {
        let call = Pin::new(&mut self.call);
        call.poll(cx)
            .map(|result| result.unwrap_or_else(|error| Err(error.into())))
    }
}

impl<A, T, E> fmt::Debug for FlatRunSync<A, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlatRunSync").finish_non_exhaustive()
    }
}
