//! Whoever is below may look at a tree variable at any time, so it has to be there for ever.

use seedbed::TreeVar;

fn main() {
    let name: TreeVar<u32> = TreeVar::new();
    seedbed::run(name.scope(5, async {}));
}
