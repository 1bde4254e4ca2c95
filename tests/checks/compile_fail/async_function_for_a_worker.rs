//! A job is not asynchronous.

async fn double(number: u64) -> u64 {
    2 * number
}

fn main() {
    seedbed::run(async {
        let doubled = seedbed::run_sync(double, 5).await;
        drop(doubled);
    });
}
