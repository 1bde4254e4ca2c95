//! How do I do several things at once, and be sure that all of them are over?
//!
//! ```text
//! cargo run --example hello
//! ```

use std::sync::Mutex;
use std::time::Duration;

use seedbed::time::sleep_forever;
use seedbed::{move_on_after, open_nursery, sleep};

seedbed::main! {
    async fn main() {
        // Local variables, on the stack of this function.
        let guests = [("Ada", 300), ("Grace", 200), ("Barbara", 100)];
        let greeted = Mutex::new(Vec::new());

        // A nursery is a block that contains tasks. The tasks may borrow values that outlive the
        // block: no `Arc`, no `clone` and no `'static` is needed.
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

        // The block ends when the last task in it has ended, so all have been greeted. They waited
        // concurrently: Ada was spawned first and greeted last.
        assert_eq!(greeted.into_inner().unwrap(), ["Barbara", "Grace", "Ada"]);

        // Any future can have a time limit, also a whole block. These two tasks would sleep
        // forever; when the time is up, they are dropped where they wait, and the block's result is
        // `None`.
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
}
