//! What a thread works on, and what comes of it, cross threads.

use std::rc::Rc;

fn main() {
    let count = Rc::new(5);
    seedbed::run(async {
        seedbed::thread::run_sync(move || *count).await;
        seedbed::thread::run_sync(|| Rc::new(5)).await;
    });
}
