//! The result of a child on an executor comes from another thread, so it must be `Send`.

use std::rc::Rc;

fn main() {
    seedbed::run(seedbed::open_nursery(|n| async move {
        n.spawn_on(&|child| smol::spawn(child).detach(), async { Rc::new(5) });
    }));
}
