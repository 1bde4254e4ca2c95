//! How far is a job, and what does it say?
//!
//! ```text
//! cargo run --example progress
//! ```
//!
//! A job in a worker process reports its progress through a channel, and its `tracing` events reach
//! the subscriber of this process.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU32, Ordering};

use seedbed::worker::{Sender, TracingLevel, channel};
use seedbed::{WorkerConfig, open_nursery, open_worker_context};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Counts the words of all pages. Reports each page that is done.
fn count((pages, mut progress): (Vec<String>, Sender<usize>)) -> usize {
    tracing::info!(pages = pages.len(), "the job has begun");
    let mut words = 0;
    for (index, page) in pages.iter().enumerate() {
        let count = page.split_whitespace().count();
        if count == 0 {
            tracing::warn!(page = index + 1, "an empty page");
        }
        tracing::debug!(count, "too unimportant to be forwarded");
        words += count;
        // Nothing depends on it, so the job does not wait for a parent that reads slowly.
        let _ = progress.try_send(index + 1);
    }
    words
}

#[seedbed::main]
async fn main() -> std::io::Result<()> {
    // Behind the hook, so only this process has it. Most programs use that of `tracing-subscriber`.
    tracing::subscriber::set_global_default(Printer).expect("there is no other one");

    let texts = ["to be", "or not", "", "to be"];
    let pages: Vec<_> = texts
        .iter()
        .cycle()
        .take(40)
        .map(|&text| text.into())
        .collect();
    let all = pages.len();
    let config = WorkerConfig::new().forward_tracing(TracingLevel::Info);
    let words = open_worker_context(config, async |workers| {
        let (job_progress, mut progress) = channel(all)?;
        open_nursery(async |n| {
            let words = n.spawn(workers.run_sync(count, (pages, job_progress)));
            while let Ok(done) = progress.recv().await {
                if done % 10 == 0 {
                    println!("{done} of {all} pages are done");
                }
            }
            Ok::<_, std::io::Error>(words.await.expect("the job counts to the end"))
        })
        .await
    })
    .await?;
    println!("{words} words");
    assert_eq!(words, 60);
    assert_eq!(EVENTS.load(Ordering::Relaxed), 11); // the beginning, and ten empty pages
    Ok(())
}

/// The number of events of the job that were printed.
static EVENTS: AtomicU32 = AtomicU32::new(0);

/// A subscriber that prints the events of this program.
struct Printer;

impl Subscriber for Printer {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("progress")
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        println!(
            "{} {}{}",
            event.metadata().level(),
            event.metadata().target(),
            line.0
        );
        EVENTS.fetch_add(1, Ordering::Relaxed);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {field}={value:?}").expect("a string takes any text");
    }
}
