//! A handle that outlives a variable could spawn a child that borrows it, so this is refused.

fn main() {
    let mut kept: Option<seedbed::Nursery<'static>> = None;
    seedbed::run(seedbed::open_nursery(|n| {
        kept = Some(n.clone());
        async {}
    }));
    let text = String::from("not static");
    kept.unwrap().spawn(async { println!("{text}") });
}
