//! A task may be awaited on another thread, so its result must be `Send`.

use std::rc::Rc;

fn main() {
    seedbed::run(seedbed::open_nursery(|n| async move {
        n.spawn(async { Rc::new(5) });
    }));
}
