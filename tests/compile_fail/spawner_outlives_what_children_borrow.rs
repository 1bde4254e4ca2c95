//! A spawner puts children in as the nursery's handle does, so it may not outlive what they borrow either.

fn main() {
    let mut kept = None;
    let text = String::from("shorter than the spawner");
    seedbed::run(seedbed::open_nursery(|n| {
        kept = Some(n.spawner());
        n.spawn(async { println!("{text}") });
        async {}
    }));
}
