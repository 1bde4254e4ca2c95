//! The task that waits for a thread may end first, so a future for that task cannot borrow.

fn main() {
    seedbed::run(seedbed::thread::run_sync(|| {
        let text = String::from("the thread's");
        seedbed::thread::call_async_in_task(|| async { println!("{text}") }).unwrap();
        seedbed::thread::call_in_task(|| println!("{text}")).unwrap();
    }));
}
