//! Maps: what becomes of the items, whatever happens to their workers and to the map. This file has
//! what the tests have in common.

pub mod ends;
pub mod failures;
pub mod results;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

fn double(n: u64) -> u64 {
    2 * n
}

/// A file to which jobs append the numbers of their items.
struct Log {
    folder: tempfile::TempDir,
}

impl Log {
    fn new() -> Self {
        Log {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The path of a file that tells jobs something by its existence.
    fn sign(&self) -> PathBuf {
        self.folder.path().join("sign")
    }

    /// Returns the items that were begun, in any order.
    fn items(&self) -> Vec<u64> {
        let text = std::fs::read_to_string(self.path()).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    #[track_caller]
    fn assert_each_begun_once(&self, items: impl Iterator<Item = u64>) {
        let mut begun = self.items();
        begun.sort_unstable();
        assert_eq!(begun, items.collect::<Vec<_>>());
    }
}

fn note(log: &Path, item: u64) {
    let mut log = OpenOptions::new()
        .append(true)
        .create(true)
        .open(log)
        .unwrap();
    log.write_all(format!("{item}\n").as_bytes()).unwrap();
}

fn wait_for(sign: &Path) {
    while !sign.exists() {
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Notes its item; then aborts, never ends, or returns the item.
fn work((log, item, deed): (PathBuf, u64, Deed)) -> u64 {
    note(&log, item);
    match deed {
        Deed::Return => {}
        Deed::Crash => std::process::abort(),
        Deed::CrashFirst(marker) => {
            if !marker.exists() {
                File::create(marker).unwrap();
                std::process::abort();
            }
        }
        Deed::Hang => loop {
            std::thread::park();
        },
        Deed::WaitFor(sign) => wait_for(&sign),
    }
    item
}

#[derive(Clone, Serialize, Deserialize)]
enum Deed {
    Return,
    Crash,
    CrashFirst(PathBuf),
    Hang,
    WaitFor(PathBuf),
}

/// Makes items of which one does something else than return.
fn items(log: &Log, count: u64, other: u64, deed: Deed) -> Vec<(PathBuf, u64, Deed)> {
    let item = |n| {
        let deed = if n == other {
            deed.clone()
        } else {
            Deed::Return
        };
        (log.path(), n, deed)
    };
    (0..count).map(item).collect()
}

async fn until_begun(log: &Log, items: usize) {
    while log.items().len() < items {
        smol::Timer::after(Duration::from_micros(200)).await;
    }
}
