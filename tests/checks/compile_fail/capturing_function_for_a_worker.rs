//! A job's function captures nothing: its data is passed as the argument.

fn main() {
    let factor = 3_u64;
    seedbed::run(async {
        let product = seedbed::run_sync(move |number: u64| factor * number, 5).await;
        println!("{product:?}");
    });
}
