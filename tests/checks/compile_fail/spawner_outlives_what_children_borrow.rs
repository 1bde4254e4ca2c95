//! A spawner could spawn a child that borrows a variable, so it cannot outlive the variable.

fn main() {
    let mut kept = None;
    let text = String::from("shorter than the spawner");
    seedbed::run(seedbed::open_nursery(|n| {
        kept = Some(n.spawner());
        n.spawn(async { println!("{text}") });
        async {}
    }));
}
