//! A user's program: counts the letters of its arguments in worker processes, which get the same
//! arguments.

use user_crate::letters_of_all;

#[seedbed::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    println!("{} letters", letters_of_all(&words).await);
}
