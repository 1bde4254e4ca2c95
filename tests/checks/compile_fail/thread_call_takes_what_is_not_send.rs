//! The closure of a thread call and its result move between threads, so both must be `Send`.

use std::rc::Rc;

fn main() {
    let count = Rc::new(5);
    seedbed::run(async {
        seedbed::thread::run_sync(move || *count).await;
        seedbed::thread::run_sync(|| Rc::new(5)).await;
    });
}
