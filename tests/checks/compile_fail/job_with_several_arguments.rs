//! A job takes one argument; several are a tuple.

fn add(one: u8, other: u8) -> u8 {
    one + other
}

fn main() {
    seedbed::run(async {
        let sum = seedbed::run_sync(add, (1, 2)).await;
        println!("{sum:?}");
    });
}
