//! A block is not `Send` if its body is not `Send`.

use std::rc::Rc;

fn main() {
    let block = seedbed::open_nursery(|n| async move {
        let shared = Rc::new(5);
        n.spawn(async {}).await;
        println!("{shared}");
    });
    std::thread::spawn(|| seedbed::run(block));
}
