//! A local nursery's handle stays on its thread: its children may be anything.

fn main() {
    seedbed::run(seedbed::open_local_nursery(|n| async move {
        std::thread::spawn(move || n.spawn(async {}));
    }));
}
