//! An `async fn` is spawned, and no job for a worker.

async fn double(number: u64) -> u64 {
    2 * number
}

fn main() {
    let resources = seedbed::delayed::Resources::local();
    seedbed::run(seedbed::delayed::open(resources, async |jobs| {
        drop(jobs.call(double, 5u64));
    }));
}
