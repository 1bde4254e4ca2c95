//! Every task below may read a tree variable at any time, so the variable must be `'static`.

use seedbed::nursery::TreeVar;

fn main() {
    let name: TreeVar<u32> = TreeVar::new();
    seedbed::run(name.scope(5, async {}));
}
