//! An argument implements serde's traits.

struct Settings;

fn apply(_: Settings) -> u8 {
    1
}

fn main() {
    seedbed::run(async {
        let applied = seedbed::run_sync(apply, Settings).await;
        println!("{applied:?}");
    });
}
