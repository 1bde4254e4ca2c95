//! The data of a configuration's closure comes before the closure.

fn load(words: &String) {
    println!("{words}");
}

fn main() {
    let config = seedbed::WorkerConfig::new().init_with(load, String::from("seed bed"));
    println!("{config:?}");
}
