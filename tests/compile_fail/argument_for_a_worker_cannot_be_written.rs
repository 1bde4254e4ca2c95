//! What goes to another process is written and read, so it needs `Serialize` and `Deserialize`.

struct Opaque;

fn look(_: Opaque) {}

fn main() {
    seedbed::run(async { seedbed::run_sync(look, Opaque).await.unwrap() });
}
