//! The block may be sent to another thread, so its children must be `Send`.

use std::rc::Rc;

fn main() {
    seedbed::run(seedbed::open_nursery(|n| async move {
        let shared = Rc::new(5);
        n.spawn(async move {
            seedbed::checkpoint().await;
            println!("{shared}");
        });
    }));
}
