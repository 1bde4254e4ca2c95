//! System tasks: spawning them, counting them, and cancelling the run when one panics.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;

use super::inbox::RunInbox;
use crate::cancel::{CancelReason, CancelSource, SharedTree};
use crate::task::Task;

/// Spawns a system task. Returns the future as an error if all system tasks of the run have ended.
pub(super) fn spawn<F>(
    inbox: &Arc<RunInbox>,
    tree: &Arc<SharedTree>,
    future: F,
) -> Result<Task<F::Output>, F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let waker = || Waker::from(inbox.clone());
    let Some(nursery) = inbox.system.nursery(tree, waker) else {
        return Err(future);
    };
    let task = SystemTask {
        future,
        counted: Counted::new(inbox.clone()),
    };
    nursery
        .spawn_if_open(task)
        .map_err(|closed| closed.into_future().future)
}

pin_project! {
    /// A system task, which ends the run if it panics.
    struct SystemTask<F> {
        #[pin]
        future: F,
        counted: Counted,
    }
}

impl<F: Future> Future for SystemTask<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let poll = AssertUnwindSafe(|| this.future.poll(cx));
        catch_unwind(poll).unwrap_or_else(|payload| {
            // The nursery keeps the panic until all its children have ended. The main future is
            // cancelled at once.
            let reason = CancelReason::new(CancelSource::Panic);
            this.counted.0.main_scope.cancel_for(reason);
            resume_unwind(payload)
        })
    }
}

/// Counts a system task until it is dropped.
struct Counted(Arc<RunInbox>);

impl Counted {
    fn new(inbox: Arc<RunInbox>) -> Self {
        inbox.system.tasks.fetch_add(1, Ordering::Relaxed);
        Counted(inbox)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.system.tasks.fetch_sub(1, Ordering::Relaxed);
    }
}
