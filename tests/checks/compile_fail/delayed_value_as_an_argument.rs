//! A job takes values that are there.

fn square(x: f64) -> f64 {
    x * x
}

fn main() {
    let resources = seedbed::delayed::Resources::local();
    seedbed::run(seedbed::delayed::open(resources, async |jobs| {
        let four = jobs.call(square, 2.0);
        let sixteen = jobs.call(square, four);
        drop(sixteen);
    }));
}
