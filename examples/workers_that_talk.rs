//! How do workers pass work on to each other, without their parent in between?
//!
//! ```text
//! cargo run --example workers_that_talk
//! ```
//!
//! Two workers form a pipeline: one makes text, the other counts its words. The parent starts them,
//! receives the counts, and asks the first one to stop.

use seedbed::worker::{Receiver, Sender, channel};
use seedbed::{open_nursery, run_sync};

/// The first stage: writes pages until it is told to stop.
fn write(mut pages: Sender<String>, mut stop: Receiver<()>) -> u32 {
    let mut written = 0;
    // A sender that is dropped tells the job to stop, as a message would.
    while stop.try_recv().is_err_and(|error| !error.is_end()) {
        let page = "word ".repeat(written as usize % 100);
        if pages.send_blocking(page).is_err() {
            break; // the next stage has ended
        }
        written += 1;
    }
    written
}

/// The second stage: counts the words of each page. Its loop ends when the first stage has dropped
/// its sender.
fn count(pages: Receiver<String>, mut counts: Sender<usize>) {
    for page in pages {
        let page = page.expect("the first stage is not killed");
        let words = page.split_whitespace().count();
        counts
            .send_blocking(words)
            .expect("the parent receives until the end");
    }
}

#[seedbed::main]
async fn main() -> std::io::Result<()> {
    let (pages, pages_of_count) = channel(16)?;
    let (counts, mut received) = channel(16)?;
    let (stop, stop_of_write) = channel(1)?;
    let total = open_nursery(async |n| {
        let writing = n.spawn(run_sync(
            |(pages, stop)| write(pages, stop),
            (pages, stop_of_write),
        ));
        n.spawn(run_sync(
            |(pages, counts)| count(pages, counts),
            (pages_of_count, counts),
        ));
        let (mut seen, mut words) = (0, 0);
        while seen < 1000 {
            words += received.recv().await.expect("there are more pages");
            seen += 1;
        }
        drop(stop);
        // Counts that were written before the end still arrive.
        while let Ok(count) = received.recv().await {
            words += count;
            seen += 1;
        }
        let written = writing.await.expect("the first stage ends");
        assert_eq!(seen, written);
        println!("{written} pages were written, and all of them counted.");
        words
    })
    .await;
    println!(
        "The first thousand had {} words.",
        10 * (0..100).sum::<usize>()
    );
    assert!(total >= 10 * (0..100).sum::<usize>());
    Ok(())
}
