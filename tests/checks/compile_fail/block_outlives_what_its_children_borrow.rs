//! A block cannot outlive the variables that its children borrow.

fn main() {
    let block;
    let text = String::from("dropped first");
    let text = &text;
    block = seedbed::open_nursery(|n| async move {
        n.spawn(async move { println!("{text}") });
    });
    seedbed::run(block);
}
