//! Waiting takes the guard away: the lock is free meanwhile, and comes back with another guard.

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
