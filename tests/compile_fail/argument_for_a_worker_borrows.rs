//! What goes to another process is made anew there, and has nothing to borrow from.

fn length(text: &str) -> usize {
    text.len()
}

fn main() {
    let text = String::from("not static");
    seedbed::run(async { seedbed::run_sync(length, &*text).await.unwrap() });
}
