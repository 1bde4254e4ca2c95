#[seedbed::test]
fn waits() {}

#[seedbed::main]
fn main() {}
