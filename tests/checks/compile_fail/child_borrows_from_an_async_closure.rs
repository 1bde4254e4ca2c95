//! A child cannot borrow the variables of a body that is an `async` closure.

fn main() {
    seedbed::run(seedbed::open_nursery(async |n| {
        let text = String::from("the body's");
        n.spawn(async { println!("{text}") });
    }));
}
