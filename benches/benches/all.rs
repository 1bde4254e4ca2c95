//! `cargo bench -p seedbed-benches`: the same measurements as `cargo run --release -p
//! seedbed-benches`.

fn main() -> std::process::ExitCode {
    seedbed_benches::main()
}
