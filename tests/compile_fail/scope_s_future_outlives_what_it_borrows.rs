//! A scope's future borrows what its body does, though the scope itself may be kept for ever.

fn main() {
    let scope = seedbed::CancelScope::new();
    let running = {
        let text = String::from("gone too early");
        scope.run(async { println!("{text}") })
    };
    seedbed::run(running);
}
