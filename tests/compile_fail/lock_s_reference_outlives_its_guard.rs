//! What a lock's guard lends ends with the guard.

use seedbed::sync::Lock;

fn main() {
    let lock = Lock::new(String::from("the lock's"));
    let text = {
        let guard = lock.try_acquire().unwrap();
        guard.as_str()
    };
    println!("{text}");
}
