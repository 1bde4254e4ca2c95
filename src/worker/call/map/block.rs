//! The block of a map: it polls the map and the code that takes the results, and ends when nothing
//! of the map runs any more.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use super::driver::Driver;
use super::order::MapOrder;
use super::results::{MapResults, Outlet};
use crate::cancel::{WaitReport, on_cancel, shield};
use crate::sys::fork_detector::{is_forked_copy, refuse_in_forked_copy};
use crate::sys::primitives::lock;
use crate::worker::data::{Argument, JobResult};
use crate::worker::error::WorkerError;
use crate::worker::tuning::MAP_ROUNDS_PER_POLL;

/// The results of a map as they are delivered.
pub(super) type Delivered<R, O> = <O as MapOrder>::Delivered<Result<R, WorkerError>>;

/// A map and the state of its polls.
struct Map<'a, A, R, O: MapOrder> {
    driver: Driver<'a, A, R, O>,
    has_ended: bool,
    report: WaitReport,
}

impl<A: Argument, R: JobResult, O: MapOrder> Map<'_, A, R, O> {
    fn poll(&mut self, cx: &mut Context<'_>, outlet: &Outlet<Delivered<R, O>>) {
        outlet.register_map(cx);
        if self.has_ended {
            return;
        }
        refuse_in_forked_copy("a map");
        outlet.block_until(0);
        let polled = if outlet.is_closed() {
            self.driver.poll_stop(cx)
        } else {
            self.driver.poll(cx)
        };
        self.has_ended = polled.is_ready();
    }

    fn poll_stop(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if is_forked_copy() {
            return Poll::Ready(()); // the workers belong to the original process
        }
        let stopped = self.driver.poll_stop(cx);
        if stopped.is_pending() {
            let driver = &self.driver;
            self.report.poll_here(cx, &mut |what| driver.describe(what));
        }
        stopped
    }
}

/// Runs `body` with the results of the map, and stops the map when the body ends, panics or is
/// cancelled.
pub(super) async fn run<A, R, O, F, B>(
    driver: Driver<'_, A, R, O>,
    outlet: Arc<Outlet<Delivered<R, O>>>,
    body: F,
) -> B::Output
where
    A: Argument,
    R: JobResult,
    O: MapOrder,
    F: FnOnce(MapResults<Delivered<R, O>>) -> B,
    B: Future,
{
    // Never contended: its users are polled one after the other. It makes the future `Send`.
    let map = Mutex::new(Map {
        driver,
        has_ended: false,
        report: WaitReport::new(),
    });
    let results = outlet.results();
    let both = async {
        let mut body = pin!(body(results));
        poll_fn(|cx| {
            for _ in 0..MAP_ROUNDS_PER_POLL {
                lock(&map).poll(cx, &outlet);
                if let Poll::Ready(value) = body.as_mut().poll(cx) {
                    return Poll::Ready(value);
                }
                if !outlet.is_unblocked() {
                    return Poll::Pending;
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    };
    let outcome = on_cancel(caught(both), poll_fn(|cx| lock(&map).poll_stop(cx)))
        .quiet()
        .await;
    shield(poll_fn(|cx| lock(&map).poll_stop(cx))).quiet().await;
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Polls a future to its end or its panic.
async fn caught<F: Future>(future: F) -> Result<F::Output, Box<dyn Any + Send>> {
    let mut future = pin!(future);
    // After a panic, the future is dropped, and the map is stopped.
    poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        },
    )
    .await
}
