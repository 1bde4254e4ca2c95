//! The argument of a job must implement `Serialize` and `Deserialize`.

struct Opaque;

fn look(_: Opaque) {}

fn main() {
    seedbed::run(async { seedbed::run_sync(look, Opaque).await.unwrap() });
}
