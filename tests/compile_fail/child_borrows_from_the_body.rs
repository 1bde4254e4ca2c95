//! A child may outlive the body, so it may not borrow the body's variables.

fn main() {
    seedbed::run(seedbed::open_nursery(|n| async move {
        let text = String::from("the body's");
        n.spawn(async { println!("{text}") });
    }));
}
