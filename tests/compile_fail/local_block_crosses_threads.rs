//! A local nursery's block stays on its thread, whatever its children are.

fn send<T: Send>(_: T) {}

fn main() {
    send(seedbed::open_local_nursery(|n| {
        n.spawn(async {});
        async {}
    }));
}
