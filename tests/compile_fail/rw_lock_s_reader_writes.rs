//! Whoever reads does not write: others read too.

use seedbed::sync::RwLock;

fn main() {
    let lock = RwLock::new(5);
    let mut guard = lock.try_read().unwrap();
    *guard += 1;
}
