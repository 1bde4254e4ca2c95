#[seedbed::test]
async fn waits(time: u32) {
    drop(time);
}

#[seedbed::test]
async fn generic<T>() {}

#[seedbed::main]
async fn main(arguments: Vec<String>) {
    drop(arguments);
}
