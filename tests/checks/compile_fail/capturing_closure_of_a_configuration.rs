//! The closures of a configuration capture nothing: their data is an argument.

fn main() {
    let threads = 3_usize;
    let config = seedbed::WorkerConfig::new().init(move || println!("{threads}"));
    println!("{config:?}");
}
