//! How do I do several things at once, and be sure that all of them have ended?
//!
//! ```text
//! cargo run --example hello
//! ```

use std::sync::Mutex;
use std::time::Duration;

use seedbed::time::sleep_forever;
use seedbed::{move_on_after, open_nursery, sleep};

#[seedbed::main]
async fn main() {
    // Local variables on the stack of this function.
    let guests = [("Ada", 300), ("Grace", 200), ("Barbara", 100)];
    let greeted = Mutex::new(Vec::new());

    // A nursery is a block that tasks live in. The tasks may borrow data that outlives the
    // block, so there is no `Arc` here, no `clone` and no `'static`.
    open_nursery(async |n| {
        for (name, milliseconds) in &guests {
            let greeted = &greeted;
            n.spawn(async move {
                sleep(Duration::from_millis(*milliseconds)).await;
                println!("Hello, {name}!");
                greeted.lock().unwrap().push(*name);
            });
        }
        println!("Three tasks are on their way.");
    })
    .await;

    // The block ends when its last task has ended, so none is forgotten. The tasks waited at
    // the same time: Ada was spawned first, and greeted last.
    assert_eq!(greeted.into_inner().unwrap(), ["Barbara", "Grace", "Ada"]);

    // Any future can have a time limit, and so can a whole block. These two tasks would sleep
    // forever. When the time is up they are dropped where they wait, and the result is `None`,
    // because the block did not end by itself.
    let outcome = move_on_after(Duration::from_millis(100), async {
        open_nursery(async |n| {
            n.spawn(sleep_forever());
            n.spawn(sleep_forever());
        })
        .await
    })
    .await;
    assert_eq!(outcome, None);
    println!("Nobody sleeps for ever.");
}
