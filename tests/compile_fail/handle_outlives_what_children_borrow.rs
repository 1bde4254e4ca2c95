//! A handle that was kept could put in a child that borrows what is gone.

fn main() {
    let mut kept: Option<seedbed::Nursery<'static>> = None;
    seedbed::run(seedbed::open_nursery(|n| {
        kept = Some(n.clone());
        async {}
    }));
    let text = String::from("not static");
    kept.unwrap().spawn(async { println!("{text}") });
}
