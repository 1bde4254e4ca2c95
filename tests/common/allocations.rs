//! An allocator that counts, for each thread, what it holds.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What this thread has allocated and not freed. What is freed on another thread counts there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub blocks: isize,
    pub bytes: isize,
}

thread_local! {
    static HELD: Cell<Held> = const { Cell::new(Held { blocks: 0, bytes: 0 }) };
}

/// What this thread holds now.
pub fn held() -> Held {
    HELD.get()
}

fn count(blocks: isize, bytes: isize) {
    let before = HELD.get();
    HELD.set(Held {
        blocks: before.blocks + blocks,
        bytes: before.bytes + bytes,
    });
}

struct Counting;

// SAFETY: all is done by the system's allocator, whose promises are passed on; counting allocates nothing, as the
// thread-local is constant and has no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as isize);
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-1, -(layout.size() as isize));
        // SAFETY: the caller's promises are the same, and every block is the system allocator's.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;
