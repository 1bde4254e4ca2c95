//! A local nursery's block stays on its thread, whatever its children are.

fn main() {
    let block = seedbed::open_local_nursery(|n| async move {
        n.spawn(async {});
    });
    std::thread::spawn(|| seedbed::run(block));
}
