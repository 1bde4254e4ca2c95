//! What a child on an executor returns comes from another thread.

use std::rc::Rc;

fn main() {
    seedbed::run(seedbed::open_nursery(|n| async move {
        n.spawn_on(&|child| smol::spawn(child).detach(), async { Rc::new(5) });
    }));
}
