//! The same with the other closure form.

fn main() {
    seedbed::run(seedbed::open_nursery(async |n| {
        let text = String::from("the body's");
        n.spawn(async { println!("{text}") });
    }));
}
