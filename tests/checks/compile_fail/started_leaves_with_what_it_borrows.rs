//! The value that a child passes to `started.send` cannot borrow the child's variables.

fn main() {
    seedbed::run(seedbed::open_nursery(|n| async move {
        let started = n.start(|started: seedbed::nursery::Started<&str>| async move {
            let text = String::from("the child's");
            started.send(&text);
            seedbed::time::sleep_forever().await;
        });
        println!("{}", started.await.unwrap());
    }));
}
