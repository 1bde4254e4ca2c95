//! The block of a local nursery is not `Send`, whatever its children are.

fn send<T: Send>(_: T) {}

fn main() {
    send(seedbed::nursery::open_local_nursery(|n| {
        n.spawn(async {});
        async {}
    }));
}
