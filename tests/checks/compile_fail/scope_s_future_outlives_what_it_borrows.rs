//! The future of a scope borrows what its body borrows, even if the scope itself is `'static`.

fn main() {
    let scope = seedbed::CancelScope::new();
    let running = {
        let text = String::from("gone too early");
        scope.run(async { println!("{text}") })
    };
    seedbed::run(running);
}
