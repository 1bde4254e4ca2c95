//! Executes calls in workers of this process.

use super::call::{Attempt, AttemptArgument};
use super::in_worker::Surroundings;
use super::interface::{Executing, Executor};
use crate::delayed::setup::Setup;
use crate::resource::{Allocation, Resources};
use crate::sync::CapacityLimiter;
use crate::worker::{Answer, ContextSet, UntypedCall, WorkerContext, WorkerError};

/// The workers of this process.
pub(in crate::delayed) struct Local {
    setup: Setup,
    /// One context for each number of cores.
    contexts: ContextSet,
    /// The limiter of calls whose number the resources limit.
    unlimited: CapacityLimiter,
}

/// The workers of an attempt.
struct Workers {
    /// `None` for the current context.
    context: Option<WorkerContext>,
    /// Whether other calls use them, too.
    is_shared: bool,
    /// Whether the job's resources limit the number of its calls, and no other limiter does.
    is_unlimited: bool,
}

impl Local {
    pub(in crate::delayed) fn new(setup: Setup) -> Self {
        Self {
            setup,
            contexts: ContextSet::new(),
            unlimited: CapacityLimiter::unlimited(),
        }
    }

    /// A job that is pinned or limited runs in a worker of the block that had as many cores before:
    /// a library that has made a thread pool of two threads would not make one of four.
    fn choose_workers(
        &self,
        context: Option<WorkerContext>,
        allocation: Option<&Allocation>,
    ) -> Workers {
        let cores = allocation.map_or(0, |allocation| allocation.cores().len());
        let has_memory = allocation.is_some_and(|allocation| allocation.memory().is_some());
        let is_unlimited = cores > 0 || has_memory;
        let of_block = context.is_none() && is_unlimited;
        Workers {
            context: if of_block {
                Some(self.contexts.get(cores))
            } else {
                context
            },
            is_shared: !of_block,
            is_unlimited,
        }
    }
}

impl Executor for Local {
    fn begin(&self) -> Result<Resources, String> {
        self.contexts
            .use_current_configuration(self.setup.block_name());
        self.setup.load().map_err(|error| error.to_string())
    }

    fn run(&self, attempt: Attempt) -> Executing<'_, Result<Answer, WorkerError>> {
        let allocation = attempt.allocation.as_deref();
        let workers = self.choose_workers(attempt.context, allocation);
        let surroundings = allocation.map(|allocation| Surroundings {
            allocation: allocation.clone(),
            is_shared: workers.is_shared,
        });
        let call = UntypedCall {
            code: attempt.call.code(),
            job: attempt.call.waits(),
            argument: Box::new(AttemptArgument {
                call: attempt.call,
                surroundings,
            }),
            context: workers.context,
            limiter: workers.is_unlimited.then(|| self.unlimited.clone()),
            kill_on_cancel: attempt.kill_on_cancel,
            time_limit: attempt.time_limit,
        };
        Box::pin(call.run())
    }

    fn end(&self) -> Executing<'_, ()> {
        Box::pin(self.contexts.close())
    }
}
