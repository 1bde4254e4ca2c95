//! The task that waits for a thread may be gone before the thread is, so what it is asked to do may not borrow.

fn main() {
    seedbed::run(seedbed::thread::run_sync(|| {
        let text = String::from("the thread's");
        seedbed::thread::run_in_host(|| async { println!("{text}") }).unwrap();
        seedbed::thread::run_sync_in_host(|| println!("{text}")).unwrap();
    }));
}
