//! A child that `start` waited for lives on after the body, so neither it may borrow the body's variables.

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
