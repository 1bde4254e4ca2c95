//! A context's workers end with its block: the block's value may not borrow from the context.

use seedbed::{WorkerConfig, WorkerContext, open_worker_context};

fn main() {
    seedbed::run(open_worker_context(WorkerConfig::new(), async |workers: WorkerContext| {
        let context = &workers;
        async move { context.statistics() }
    }));
}
