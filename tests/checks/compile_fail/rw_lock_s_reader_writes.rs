//! A read guard gives no write access, because other readers may exist.

use seedbed::sync::RwLock;

fn main() {
    let lock = RwLock::new(5);
    let mut guard = lock.try_read().unwrap();
    *guard += 1;
}
