//! Prints every figure: `cargo run --release -p seedbed-benches`. See `benches/README.md`.

fn main() -> std::process::ExitCode {
    seedbed_benches::main()
}
