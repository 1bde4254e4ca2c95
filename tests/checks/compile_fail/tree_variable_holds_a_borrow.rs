//! Every task below may read a tree variable's value, so the value cannot borrow.

use seedbed::nursery::TreeVar;

fn main() {
    static NAME: TreeVar<&'static str> = TreeVar::new();
    let text = String::from("not static");
    seedbed::run(NAME.scope(&text, async {}));
}
