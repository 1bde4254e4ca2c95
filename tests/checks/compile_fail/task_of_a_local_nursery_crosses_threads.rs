//! The task of a local nursery's child is not `Send` if the child's result is not.

use std::rc::Rc;

fn main() {
    seedbed::run(seedbed::nursery::open_local_nursery(|n| async move {
        let task = n.spawn(async { Rc::new(5) });
        std::thread::spawn(move || smol::block_on(task));
    }));
}
