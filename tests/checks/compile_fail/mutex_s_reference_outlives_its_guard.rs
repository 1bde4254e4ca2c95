//! A reference from a mutex guard cannot outlive the guard.

use seedbed::sync::Mutex;

fn main() {
    let lock = Mutex::new(String::from("the lock's"));
    let text = {
        let guard = lock.try_lock().unwrap();
        guard.as_str()
    };
    println!("{text}");
}
