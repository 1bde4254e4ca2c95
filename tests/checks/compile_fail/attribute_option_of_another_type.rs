#[seedbed::main(shuffle = "one")]
async fn main() {
    let number: u32 = "two";
}
