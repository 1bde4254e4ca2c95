//! The result of a local nursery's child stays on its thread, if it is not `Send`.

use std::rc::Rc;

fn main() {
    seedbed::run(seedbed::open_local_nursery(|n| async move {
        let task = n.spawn(async { Rc::new(5) });
        std::thread::spawn(move || smol::block_on(task));
    }));
}
