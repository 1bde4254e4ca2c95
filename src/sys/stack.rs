//! The stack of the current thread: its bounds, and whether there is room left on it.
//!
//! A thread's bounds are read once. The stack of the main thread grows up to a limit that the
//! program may change, so that its lower part is looked up each time it is needed. Code that runs
//! on a stack of its own, as jobs do with `stack_size`, and coroutines, is found among the mappings
//! of the process.
//!
//! `unsafe` is needed to ask the C library for the bounds; see [`bounds_of_thread`].
#![allow(unsafe_code)]

use std::cell::Cell;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::Range;

use rustix::process::{Resource, getrlimit};

use super::thread;

/// The least number of bytes that are left for the code between two checks, and for dropping a
/// value that was decoded in part. A frame of unoptimized derived code has a few KiB.
const RESERVE_BYTES: usize = 128 * 1024;

/// More than the frames take that are on a new stack when it is adopted.
#[cfg(feature = "stack_size")]
const CALLER_FRAMES_BYTES: usize = 64 * 1024;

/// How much of the main thread's stack is used without asking for the limit of its size.
const MAIN_STACK_SURE_BYTES: usize = 512 * 1024;

/// A stack of the main thread of this size may meet other mappings before its limit. The kernel
/// leaves a gap below it.
const LARGE_STACK_BYTES: usize = 64 << 20;
const STACK_GUARD_GAP_BYTES: usize = (1 << 20) + 64 * 1024;

/// The stack of the thread on which a value that is nested deeply is dropped. Only the pages that
/// are used take memory.
const DROP_STACK_BYTES: usize = 1 << 30;

thread_local! {
    /// The addresses at which there certainly is room, lowest first; zero before the first use.
    static ROOM: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// The addresses at which a frame of the current thread has room below it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StackLimit {
    low: usize,
    length: usize,
}

impl StackLimit {
    /// A limit that is looked up when it is first needed.
    pub(crate) const UNKNOWN: Self = Self { low: 0, length: 0 };

    /// Returns whether the stack certainly has room for code that is called from here.
    #[inline(always)]
    pub(crate) fn has_room(&self) -> bool {
        // Also false above the range, where a stack is another one.
        here().wrapping_sub(self.low) < self.length
    }

    /// Looks up the bounds of the stack, and returns whether it has room.
    pub(crate) fn has_room_indeed(&mut self) -> bool {
        if self.length == 0 {
            let (low, high) = ROOM.get();
            self.low = low;
            self.length = high - low;
            if self.has_room() {
                return true;
            }
        }
        self.look_up();
        self.has_room()
    }

    /// Looks up the bounds of the stack as they are now.
    #[cold]
    fn look_up(&mut self) {
        if ROOM.get() == (0, 0)
            && let Some(bounds) = first_bounds()
        {
            let room = room(Some(bounds));
            ROOM.set((room.start, room.end));
            *self = Self::of(room);
            if self.has_room() {
                return;
            }
        }
        *self = Self::of(room(exact_bounds(here())));
    }

    /// Returns whether the stack has room for code that takes this many bytes, in addition to the
    /// reserve.
    pub(crate) fn has_bytes(&mut self, bytes: usize) -> bool {
        let has = |limit: &Self| limit.has_room() && here() - limit.low >= bytes;
        has(self) || (self.has_room_indeed() && has(self))
    }

    fn of(room: Range<usize>) -> Self {
        Self {
            low: room.start,
            length: room.end.saturating_sub(room.start),
        }
    }
}

/// Notes that this thread has changed to a stack of stacker's for the rest of its life. Opens no
/// file, because the worker may not be allowed to.
#[cfg(feature = "stack_size")]
pub(crate) fn adopt() {
    if let Some(left) = stacker::remaining_stack() {
        let here = here();
        // The frames of the callers are above this one.
        let room = room(Some(here.saturating_sub(left)..here + CALLER_FRAMES_BYTES));
        ROOM.set((room.start, room.end.max(room.start)));
    }
}

/// Drops a value that may be nested too deeply for the stack of this thread, or leaks it if there
/// is no room for a large stack. (In a box, so that values of all types share the code that starts
/// a thread.)
pub(crate) fn drop_deep(value: Box<dyn Send>) {
    // The closure is dropped if no thread can be had.
    let value = ManuallyDrop::new(value);
    let dropping = std::thread::Builder::new()
        .name("seedbed-drop".to_owned())
        .stack_size(DROP_STACK_BYTES)
        .spawn(move || drop(ManuallyDrop::into_inner(value)));
    if let Ok(dropping) = dropping {
        let _ = dropping.join();
    }
}

/// Returns an address in the current frame.
#[inline(always)]
fn here() -> usize {
    let marker = 0_u8;
    (&raw const marker).addr()
}

/// Returns the part of a stack in which a frame has enough room below it.
fn room(bounds: Option<Range<usize>>) -> Range<usize> {
    let Range { start, end } = bounds.unwrap_or(0..0);
    // A small stack needs some room above the reserve.
    let reserve = RESERVE_BYTES.min((end - start) / 2);
    start + reserve..end
}

/// Returns bounds of the thread's own stack that hold as long as the thread lives. For the main
/// thread, it returns the upper part of the stack only, and opens no file. The C library finds the
/// whole stack by reading all mappings of the process.
fn first_bounds() -> Option<Range<usize>> {
    if !thread::is_main() {
        return bounds_of_thread();
    }
    let Range { start, end } = bounds_of_main_stack()?;
    let sure = MAIN_STACK_SURE_BYTES + RESERVE_BYTES;
    Some(start.max(end.saturating_sub(sure))..end)
}

/// Returns the bounds of the stack that has the frame at `address`, as they are now.
fn exact_bounds(address: usize) -> Option<Range<usize>> {
    bounds_of_thread()
        .filter(|bounds| bounds.contains(&address))
        .or_else(|| mapping_around(address))
}

/// Returns the bounds of the thread's own stack.
fn bounds_of_thread() -> Option<Range<usize>> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let (mut lowest, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: `attributes` has room for what the call initializes. It asks about this thread, which
    // lives.
    let asked = unsafe { libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) };
    if asked != 0 {
        return thread::is_main().then(bounds_of_main_stack).flatten();
    }
    // SAFETY: the attributes are initialized, because the call succeeded, and both results are
    // valid for writes.
    let read = unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &mut lowest, &mut size) };
    // SAFETY: the attributes are initialized and not used again.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    if read != 0 {
        return None;
    }
    let end = lowest.addr().checked_add(size)?;
    let gap = if size >= LARGE_STACK_BYTES && thread::is_main() {
        STACK_GUARD_GAP_BYTES
    } else {
        0
    };
    Some(lowest.addr() + gap..end)
}

/// Returns the bounds of the main thread's stack. Opens no file, as the C library does, for a
/// process that has no descriptor left. The kernel puts the name of the program above the first
/// frame, and counts the limit from there, to within a page.
fn bounds_of_main_stack() -> Option<Range<usize>> {
    let end = rustix::param::linux_execfn().as_ptr().addr();
    let limit = getrlimit(Resource::Stack).current;
    let size = limit.map_or(LARGE_STACK_BYTES, |limit| {
        usize::try_from(limit).map_or(LARGE_STACK_BYTES, |limit| limit.min(LARGE_STACK_BYTES))
    });
    let bounds = end.saturating_sub(size)..end;
    bounds.contains(&here()).then_some(bounds)
}

/// Returns the bounds of the mapping that holds `address`.
fn mapping_around(address: usize) -> Option<Range<usize>> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines()
        .filter_map(bounds_of_mapping)
        .find(|bounds| bounds.contains(&address))
}

/// Returns the bounds in a line of `/proc/self/maps`.
fn bounds_of_mapping(line: &str) -> Option<Range<usize>> {
    let (start, rest) = line.split_once('-')?;
    let (end, _) = rest.split_once(' ')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

/// Returns how many bytes of the stack of a new thread `f` writes to: those that are not zero.
#[cfg(all(test, not(miri)))]
pub(crate) fn bytes_touched_by(f: impl FnOnce()) -> usize {
    let bounds = bounds_of_thread().expect("a thread has a stack");
    f();
    let mut touched = 0;
    // Above the guard page.
    for address in (bounds.start + 64 * 1024..here()).step_by(size_of::<u64>()) {
        // SAFETY: the address is aligned and in the stack of this thread, below all frames that are
        // in use. The memory is mapped and initialized by the kernel, outside of what Rust manages.
        if unsafe { std::ptr::with_exposed_provenance::<u64>(address).read_volatile() } != 0 {
            touched = here() - address;
            break;
        }
    }
    touched
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recurses while there is room. Returns how many bytes of stack that took.
    #[inline(never)]
    fn descend(limit: &mut StackLimit, start: usize) -> usize {
        let frame = std::hint::black_box([0_u8; 512]);
        if !limit.has_room() && !limit.has_room_indeed() {
            return start - here();
        }
        descend(limit, start) + usize::from(frame[7])
    }

    fn depth() -> usize {
        descend(&mut { StackLimit::UNKNOWN }, here())
    }

    fn on_thread(bytes: usize) -> usize {
        let thread = std::thread::Builder::new().stack_size(bytes);
        thread.spawn(depth).unwrap().join().unwrap()
    }

    #[test]
    fn a_thread_uses_its_stack_up_to_the_reserve() {
        for bytes in [256 << 10, 2 << 20, 16 << 20] {
            let used = on_thread(bytes);
            assert!(used < bytes - RESERVE_BYTES / 2, "{used} of {bytes}");
            assert!(used > bytes / 4, "{used} of {bytes}");
        }
    }

    #[cfg(feature = "stack_size")]
    #[test]
    fn a_stack_that_is_not_the_threads_own_is_found() {
        const BYTES: usize = 4 << 20;
        let used = stacker::grow(BYTES, depth);
        assert!(
            used < BYTES - RESERVE_BYTES / 2 && used > BYTES / 2,
            "{used}"
        );
        // From one stack to another, and back.
        let mut limit = StackLimit::UNKNOWN;
        assert!(stacker::grow(BYTES, || descend(&mut limit, here())) > BYTES / 2);
        assert!(limit.has_room() || limit.has_room_indeed());
    }

    #[cfg(feature = "stack_size")]
    #[test]
    fn an_adopted_stack_needs_no_look_at_the_mappings() {
        const BYTES: usize = 1 << 20;
        let thread = std::thread::spawn(|| {
            stacker::grow(BYTES, || {
                adopt();
                let (low, high) = ROOM.get();
                assert!((low..high).contains(&here()));
                depth()
            })
        });
        let used = thread.join().unwrap();
        assert!(
            used < BYTES - RESERVE_BYTES / 2 && used > BYTES / 2,
            "{used}"
        );
    }

    #[test]
    fn a_value_is_dropped_on_a_stack_that_is_large_enough() {
        struct Link(#[allow(dead_code)] Option<Box<Link>>);
        let chain = (0..1_000_000).fold(Link(None), |next, _| Link(Some(Box::new(next))));
        drop_deep(Box::new(chain));
    }
}
