//! An executor polls children on other threads, so they must be `Send`.

use std::rc::Rc;

fn main() {
    seedbed::run(seedbed::open_nursery(|n| async move {
        let shared = Rc::new(5);
        n.spawn_on(&|child| smol::spawn(child).detach(), async move {
            seedbed::checkpoint().await;
            println!("{shared}");
        });
    }));
}
