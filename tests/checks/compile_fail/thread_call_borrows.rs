//! A thread continues when its caller is dropped, so its closure cannot borrow.

fn main() {
    let text = String::from("the caller's");
    seedbed::run(async {
        seedbed::thread::run_sync(|| println!("{text}")).await;
    });
}
