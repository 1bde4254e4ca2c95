//! A tree variable's value is seen from anywhere below, so it may not borrow.

use seedbed::TreeVar;

fn main() {
    static NAME: TreeVar<&'static str> = TreeVar::new();
    let text = String::from("not static");
    seedbed::run(NAME.scope(&text, async {}));
}
