//! An executor may keep a child after the block has ended, so the child cannot borrow.

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
