//! Waiting takes the guard away: the lock is free meanwhile, and comes back with another guard.

use seedbed::sync::Condition;

fn main() {
    let condition = Condition::new(0);
    seedbed::run(async {
        let mut guard = condition.acquire().await;
        let wait = condition.wait(guard);
        *guard += 1;
        wait.await;
    });
}
