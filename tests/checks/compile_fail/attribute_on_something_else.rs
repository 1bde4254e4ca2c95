#[seedbed::test]
struct Test;

#[seedbed::test]
async unsafe fn dangerous() {}

#[seedbed::main]
async fn start() {}
