//! Several threads may read the value at once, so it must be `Sync`.

use std::cell::Cell;

use seedbed::sync::RwLock;

fn main() {
    let lock = RwLock::new(Cell::new(5));
    std::thread::spawn(move || lock.try_read().unwrap().set(6));
}
