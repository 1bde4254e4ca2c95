//! The arguments of a job are those of its function.

fn add(a: f64, b: f64) -> f64 {
    a + b
}

fn main() {
    let resources = seedbed::delayed::Resources::local();
    seedbed::run(seedbed::delayed::open(resources, async |jobs| {
        drop(jobs.call(add, (1.0, 2.0, 3.0)));
    }));
}
