//! A local nursery's child may outlive the body, so it cannot borrow the body's variables.

fn main() {
    seedbed::run(seedbed::nursery::open_local_nursery(|n| async move {
        let count = std::cell::Cell::new(0);
        n.spawn(async { count.set(1) });
    }));
}
