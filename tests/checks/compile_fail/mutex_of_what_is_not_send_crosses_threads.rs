//! A mutex gives several threads access to its value, so the value must be `Send`.

use std::rc::Rc;

use seedbed::sync::Mutex;

fn main() {
    let lock = Mutex::new(Rc::new(5));
    std::thread::spawn(move || drop(lock.try_lock()));
}
