//! A function pointer is data, and not one function.

fn main() {
    seedbed::run(seedbed::open_worker_context(
        seedbed::WorkerConfig::new(),
        async |workers| {
            let functions: [fn(i32) -> i32; 2] = [i32::abs, i32::signum];
            println!("{:?}", workers.run_sync(functions[0], -5).await);
        },
    ));
}
