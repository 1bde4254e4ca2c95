//! A wait consumes the guard: the mutex is free during the wait, and a new guard comes back.

use seedbed::sync::Condvar;

fn main() {
    let condition = Condvar::new(0);
    seedbed::run(async {
        let mut guard = condition.lock().await;
        let wait = condition.wait(guard);
        *guard += 1;
        wait.await;
    });
}
