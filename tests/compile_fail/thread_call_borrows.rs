//! A thread cannot be ended, and goes on when its caller is dropped: what it works on may not be borrowed.

fn main() {
    let text = String::from("the caller's");
    seedbed::run(async {
        seedbed::thread::run_sync(|| println!("{text}")).await;
    });
}
