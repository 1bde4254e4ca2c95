//! Readers look at the value on several threads at once, so it has to be `Sync`.

use std::cell::Cell;

use seedbed::sync::RwLock;

fn main() {
    let lock = RwLock::new(Cell::new(5));
    std::thread::spawn(move || lock.try_read().unwrap().set(6));
}
