//! Allocations and memory of one nursery child, and of single operations.
//!
//! The program's global allocator is the system's, with counters. The counters run only while this
//! section measures; other measurements pay one relaxed load per allocation. A global allocator
//! cannot be written without `unsafe`.
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
};

use crate::{nursery, options::Options, report};

const SECTION: &str = "memory";
const CHILDREN: u64 = 10_000;

/// Prints the sections.
pub fn compare(options: &Options) {
    let tokio = nursery::Tokio::start();
    let child = nursery::Yields;
    let ours = || seedbed::run(nursery::our_nursery(CHILDREN, child));
    let unordered = || {
        smol::block_on(nursery::futures_unordered(CHILDREN, child));
    };
    let executor = || {
        smol::block_on(nursery::local_executor(CHILDREN, child));
    };
    let moro = || smol::block_on(nursery::moro_scope(CHILDREN, child));
    let buffered = || {
        smol::block_on(nursery::futures_buffered(CHILDREN, child));
    };
    let join_set = || {
        tokio
            .one_thread
            .block_on(nursery::join_set(CHILDREN, child));
    };
    let mut theirs: Vec<(&str, &dyn Fn())> = vec![
        ("futures-util FuturesUnordered", &unordered),
        ("smol LocalExecutor", &executor),
        ("moro scope", &moro),
        ("tokio JoinSet on its thread", &join_set),
        ("futures-buffered", &buffered),
    ];
    theirs.retain(|(name, _)| options.wants(SECTION, name));
    if theirs.is_empty() {
        return;
    }
    report::counts_section(
        "memory/allocations and peak bytes per child of 10000, all alive at once",
    );
    let ours = Usage::of(&ours);
    let future = size_of_val(&nursery::Child::child(child, 0)) as f64;
    report::count_within("seedbed itself: allocations", ours.allocations, 1.0);
    report::count_within(
        "seedbed itself: bytes beside the future",
        ours.peak_bytes - future,
        128.0,
    );
    for (name, theirs) in theirs {
        let theirs = Usage::of(theirs);
        report::counts(
            &format!("{name}: allocations"),
            ours.allocations,
            theirs.allocations,
        );
        report::counts(
            &format!("{name}: bytes"),
            ours.peak_bytes,
            theirs.peak_bytes,
        );
    }
}

/// Prints the average number of allocations of `operation` under `seedbed::run`, over a thousand
/// calls.
pub fn count<F: Future>(options: &Options, name: &str, operation: impl Fn() -> F) {
    const SECTION: &str = "primitives/allocations";
    const TIMES: u64 = 1_000;
    if !options.wants(SECTION, name) {
        return;
    }
    let counted = seedbed::run(async {
        // Run once without counting, so that allocations per run are not counted.
        operation().await;
        ALLOCATIONS.store(0, Relaxed);
        COUNTING.store(true, Relaxed);
        for _ in 0..TIMES {
            operation().await;
        }
        COUNTING.store(false, Relaxed);
        ALLOCATIONS.load(Relaxed)
    });
    report::count(&format!("{SECTION}, {name}"), counted as f64 / TIMES as f64);
}

/// The memory that one block of [`CHILDREN`] used, divided by the number of children.
struct Usage {
    /// Successful allocations and reallocations.
    allocations: f64,
    /// The greatest amount held at one time, in bytes.
    peak_bytes: f64,
}

impl Usage {
    fn of(block: &dyn Fn()) -> Usage {
        // Run once without counting, so that allocations per thread or runtime are not counted.
        block();
        ALLOCATIONS.store(0, Relaxed);
        LIVE_BYTES.store(0, Relaxed);
        PEAK_BYTES.store(0, Relaxed);
        COUNTING.store(true, Relaxed);
        block();
        COUNTING.store(false, Relaxed);
        let per_child = |total: f64| total / CHILDREN as f64;
        Usage {
            allocations: per_child(ALLOCATIONS.load(Relaxed) as f64),
            peak_bytes: per_child(PEAK_BYTES.load(Relaxed) as f64),
        }
    }
}

static COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Bytes held. Below zero when blocks from before the counting are freed during it.
static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);
static PEAK_BYTES: AtomicI64 = AtomicI64::new(0);

fn got(bytes: usize, instead_of: usize) {
    if COUNTING.load(Relaxed) {
        ALLOCATIONS.fetch_add(1, Relaxed);
        let more = bytes as i64 - instead_of as i64;
        PEAK_BYTES.fetch_max(LIVE_BYTES.fetch_add(more, Relaxed) + more, Relaxed);
    }
}

fn gave_back(bytes: usize) {
    if COUNTING.load(Relaxed) {
        LIVE_BYTES.fetch_sub(bytes as i64, Relaxed);
    }
}

/// The system's allocator, which is the default one, with counters.
struct Counted;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

// SAFETY: every call is passed to `System` unchanged, and `System` keeps the trait's contract; the
// counters allocate nothing and cannot unwind.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        got(layout.size(), 0);
        // SAFETY: the caller's promises about `layout` are the ones that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        got(layout.size(), 0);
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        got(size, layout.size());
        // SAFETY: `block` came from `System` through this allocator, with this `layout`. The caller
        // guarantees the rest.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        gave_back(layout.size());
        // SAFETY: `block` came from `System` through this allocator, with this `layout`.
        unsafe { System.dealloc(block, layout) }
    }
}
