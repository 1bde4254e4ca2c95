//! The handle of a local nursery is not `Send`, because its children need not be.

fn main() {
    seedbed::run(seedbed::nursery::open_local_nursery(|n| async move {
        std::thread::spawn(move || n.spawn(async {}));
    }));
}
