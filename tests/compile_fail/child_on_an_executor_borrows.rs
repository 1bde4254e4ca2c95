//! An executor may keep its children for longer than the block lasts, so they may not borrow.

fn main() {
    seedbed::run(async {
        let text = String::from("on the stack");
        let text = &text;
        seedbed::open_nursery(|n| async move {
            let global = |child| smol::spawn(child).detach();
            n.spawn_on(&global, async move { text.len() });
        })
        .await;
    });
}
