//! A lock hands its value from thread to thread, so it has to be `Send`.

use std::rc::Rc;

use seedbed::sync::Mutex;

fn main() {
    let lock = Mutex::new(Rc::new(5));
    std::thread::spawn(move || drop(lock.try_lock()));
}
