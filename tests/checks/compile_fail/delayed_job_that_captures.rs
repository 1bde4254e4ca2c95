//! A job captures nothing.

fn main() {
    let resources = seedbed::delayed::Resources::local();
    seedbed::run(seedbed::delayed::open(resources, async |jobs| {
        let factor = jobs.statistics().queued as u64;
        drop(jobs.call(move |number: u64| factor * number, 5u64));
    }));
}
