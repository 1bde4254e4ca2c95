//! A number of what?

fn main() {
    let resources = seedbed::delayed::Resources::local();
    seedbed::run(seedbed::delayed::open(resources, async |jobs| {
        drop(jobs.on(4));
    }));
}
