//! A block whose body is not `Send` stays on its thread.

use std::rc::Rc;

fn main() {
    let block = seedbed::open_nursery(|n| async move {
        let shared = Rc::new(5);
        n.spawn(async {}).await;
        println!("{shared}");
    });
    std::thread::spawn(|| seedbed::run(block));
}
