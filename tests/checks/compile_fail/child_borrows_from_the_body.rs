//! A child may outlive the body, so it cannot borrow the body's variables.

fn main() {
    seedbed::run(seedbed::open_nursery(|n| async move {
        let words = vec!["the", "body's"];
        for word in &words {
            n.spawn(async move { println!("{word}") });
        }
    }));
}
