//! The workers of a context end with its block, so the block's value cannot borrow the context.

use seedbed::{WorkerConfig, WorkerContext, open_worker_context};

fn main() {
    seedbed::run(open_worker_context(WorkerConfig::new(), async |workers: WorkerContext| {
        let context = &workers;
        async move { context.statistics() }
    }));
}
