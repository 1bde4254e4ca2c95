//! A `&str` is not owned data, also if it is static.

fn length(text: &str) -> usize {
    text.len()
}

fn main() {
    seedbed::run(async { seedbed::run_sync(length, "five").await.unwrap() });
}
