//! How do I do several things at once, and be sure that all of them are over?
//!
//! ```text
//! cargo run --example hello
//! ```

use std::sync::Mutex;
use std::time::Duration;

use seedbed::{current_time, move_on_after, open_nursery, sleep, sleep_forever};

seedbed::main! {
    async fn main() {
        // These live on the stack of this function, as local variables do.
        let names = ["Ada", "Grace", "Barbara"];
        let greeted = Mutex::new(Vec::new());
        let start = current_time();

        // A nursery is a block that tasks live in. The tasks may borrow whatever lives longer than the block: there is
        // no `Arc` here, no `clone` and no `'static`.
        open_nursery(async |n| {
            for name in &names {
                let greeted = &greeted;
                n.spawn(async move {
                    sleep(Duration::from_millis(200)).await;
                    println!("Hello, {name}!");
                    greeted.lock().unwrap().push(name);
                });
            }
            println!("Three tasks are on their way.");
        })
        .await;

        // The block ends when the last task in it has ended, so nobody has been forgotten. The tasks waited at the
        // same time: three waits of 0.2 s took one, and not three.
        assert_eq!(greeted.lock().unwrap().len(), 3);
        assert!(start.elapsed() < Duration::from_millis(500));

        // Any future can be given a time limit, and so can a whole block. These two tasks would sleep for ever; when
        // the time is up they are dropped where they wait, and `None` says that the block had no chance to end.
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
