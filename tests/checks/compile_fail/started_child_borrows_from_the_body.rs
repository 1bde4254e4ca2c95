//! A child from `start` may outlive the body, so it cannot borrow the body's variables.

fn main() {
    seedbed::run(seedbed::open_nursery(|n| async move {
        let text = String::from("the body's");
        n.start(|started: seedbed::nursery::Started<()>| async {
            started.send(());
            println!("{text}");
        })
        .await
        .unwrap();
    }));
}
