//! `cargo run --release -p seedbed-benches`: prints every figure; see `benches/README.md`.

fn main() -> std::process::ExitCode {
    seedbed_benches::main()
}
