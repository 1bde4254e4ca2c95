//! An allocator that counts the memory of each thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The memory that a thread has allocated, less the memory that it has freed, also if another
/// thread allocated that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub blocks: isize,
    pub bytes: isize,
}

thread_local! {
    static HELD: Cell<Held> = const { Cell::new(Held { blocks: 0, bytes: 0 }) };
}

/// Returns the memory of this thread.
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

// SAFETY: each method passes its arguments to the system's allocator and returns its result, so it
// keeps the contract as that allocator does. Counting neither allocates nor panics: the
// thread-local is initialised by a constant and has no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as isize);
        // SAFETY: the caller promises that `layout` has a size above zero, which is all that
        // `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-1, -(layout.size() as isize));
        // SAFETY: the caller promises that this allocator returned `block` for `layout`; each such
        // block is from `System`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;
