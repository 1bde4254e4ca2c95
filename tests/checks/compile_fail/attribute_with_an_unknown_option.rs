#[seedbed::test(flavor = "current_thread")]
async fn waits() {}

#[seedbed::test(shuffle = 1, shuffle = 2)]
async fn twice() {}

#[seedbed::test(clock)]
async fn without_a_value() {}

#[seedbed::main("clock")]
async fn main() {}
