//! How do I run a parser on input that I do not trust?
//!
//! In a worker process with limits. The small language below has everything that makes a document
//! dangerous: it nests, repeats, loops and includes files. A document that goes too far ends one
//! worker, or the kernel refuses its request. The program gets an error that names the limit, and
//! continues.
//!
//! ```text
//! cargo run --example hostile_input
//! ```

use std::time::Duration;

use seedbed::worker::WorkerErrorKind;
use seedbed::{WorkerConfig, open_worker_context};

/// Parses one document: `(..)` nests, `*n` repeats the text n times, `!` loops forever, `<file>`
/// includes a file, and any other character is text.
fn read(document: String) -> Result<usize, String> {
    let mut text = String::new();
    read_group(&mut document.chars(), &mut text)?;
    Ok(text.len())
}

fn read_group(rest: &mut std::str::Chars<'_>, text: &mut String) -> Result<(), String> {
    while let Some(next) = rest.next() {
        match next {
            '(' => read_group(rest, text)?,
            ')' => break,
            '*' => {
                *text =
                    text.repeat(10_usize.pow(rest.next().and_then(|n| n.to_digit(10)).unwrap_or(0)))
            }
            '!' => loop {
                std::hint::spin_loop();
            },
            '<' => {
                let name: String = rest.by_ref().take_while(|&c| c != '>').collect();
                let content = std::fs::read_to_string(name);
                text.push_str(&content.map_err(|error| error.to_string())?);
            }
            letter => text.push(letter),
        }
    }
    Ok(())
}

#[seedbed::main]
async fn main() {
    let config = WorkerConfig::new()
        .memory_limit(128 << 20)
        .cpu_limit(Duration::from_millis(200))
        .open_file_limit(0)
        // A recursive parser needs stack for each level, up to a depth that no honest document
        // has.
        .stack_size(16 << 20)
        // Documents must not read the environment, and parsing has a low priority.
        .env_clear()
        .current_dir("/")
        .nice(19)
        .kill_tree(true)
        .capture_stderr(true);

    open_worker_context(config, async |workers| {
        let length = workers.run_sync(read, "((seed)bed)*2".to_owned()).await;
        println!(
            "An honest document has {} letters.",
            length.unwrap().unwrap()
        );

        let refused = workers.run_sync(read, "</etc/passwd>".to_owned()).await;
        println!("The curious one: {}", refused.unwrap().unwrap_err());

        let deep = "(".repeat(10_000_000);
        for (name, document) in [
            ("large", "seedbed*9*9".to_owned()),
            ("endless", "!".to_owned()),
            ("deep", deep),
        ] {
            let error = workers.run_sync(read, document).await.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Broken);
            let exit = error.exit().expect("the worker has ended");
            println!("The {name} one: {}.", exit.cause());
        }

        let length = workers.run_sync(read, "seed".to_owned()).await;
        println!("The next honest one has {}.", length.unwrap().unwrap());
    })
    .await;
}
