//! The argument of a job is decoded in the worker process, so it cannot contain references.

fn length(text: &str) -> usize {
    text.len()
}

fn main() {
    let text = String::from("not static");
    seedbed::run(async { seedbed::run_sync(length, &*text).await.unwrap() });
}
