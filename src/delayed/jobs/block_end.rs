//! The end of a block within another one: it waits for the jobs that its body has left.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::job_group::JobGroup;
use crate::delayed::value::awaiter::AWAITER;
use crate::sys::primitives::lock;

/// Records that the job around a block waits for the end of its jobs, once the body has ended.
#[derive(Clone, Default)]
pub(super) struct BlockEnd {
    pub(super) jobs: Arc<JobGroup>,
    wait: Arc<Mutex<Option<Box<dyn Any + Send + Sync>>>>,
}

impl BlockEnd {
    /// Runs the body of the block.
    pub(super) fn after<F: Future>(&self, body: F) -> Body<F> {
        Body {
            body,
            end: self.clone(),
        }
    }

    /// Runs the whole block.
    pub(super) async fn of<B: Future>(self, block: B) -> B::Output {
        let value = block.await;
        let wait = lock(&self.wait).take();
        drop(wait); // without the lock
        value
    }
}

pin_project! {
    /// The body of a block.
    pub(super) struct Body<F> {
        #[pin]
        body: F,
        end: BlockEnd,
    }
}

impl<F: Future> Future for Body<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let polled = this.body.poll(cx);
        if polled.is_ready()
            && let Some(around) = AWAITER.get()
        {
            let wait = around.begin_wait_for(this.end.jobs.clone());
            *lock(&this.end.wait) = Some(wait);
        }
        polled
    }
}
