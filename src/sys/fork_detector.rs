//! Detects whether this process was forked from one that already used workers. Such a copy cannot
//! use them.
//!
//! A forked process has one thread and shares its descriptors with the original. These include the
//! reactor's epoll registrations and the sockets to the workers, so both processes would talk to
//! the same workers. So each public function that uses workers checks first.
//!
//! A page marked `MADV_WIPEONFORK` holds one number, which identifies this process: every
//! [`ProcessMark`] that it makes contains this number. The page reads as zero in a forked process,
//! whichever function forked it, so a check costs a load and no system call. A worker that a fork
//! server forks is not a copy in this sense. It calls [`restart`], which stops the comparison with
//! the fork server's number.
//!
//! `unsafe` is needed to map the page, to read it, and to keep values of a process forever.
#![allow(unsafe_code)]

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// The page that is wiped in forked processes; null until the first mark.
static PAGE: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());

/// The last number given to a process. A forked process inherits it, so its own number is higher
/// than all before.
static LAST: AtomicU64 = AtomicU64::new(0);

/// The number of the process that called [`watch_for_forks`]; 0 before.
static WATCHED: AtomicU64 = AtomicU64::new(0);

const PAGE_LEN: usize = size_of::<AtomicU64>();

/// Identifies the process that made the mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessMark(u64);

impl ProcessMark {
    /// Returns the mark of this process.
    ///
    /// # Errors
    ///
    /// Fails if the kernel has no memory for the page, or refuses `MADV_WIPEONFORK`.
    pub(crate) fn of_this_process() -> io::Result<Self> {
        let number = page()?;
        match number.load(Ordering::Relaxed) {
            0 => {
                let new = LAST.fetch_add(1, Ordering::Relaxed) + 1;
                // If another thread was first, its number holds.
                let set = number.compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed);
                Ok(Self(set.map_or_else(|theirs| theirs, |_| new)))
            }
            known => Ok(Self(known)),
        }
    }

    /// Returns whether this process made the mark.
    pub(crate) fn is_of_this_process(self) -> bool {
        existing_page().is_some_and(|number| number.load(Ordering::Relaxed) == self.0)
    }
}

/// Makes [`is_forked_copy`] return true in all processes that are forked from now on. A repeated
/// call costs a load.
pub(crate) fn watch_for_forks() {
    if WATCHED.load(Ordering::Relaxed) == 0
        && let Ok(mark) = ProcessMark::of_this_process()
    {
        // Without the page, forked copies are not detected. Another thread may have been first; the
        // mark is the same.
        let _ = WATCHED.compare_exchange(0, mark.0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Returns whether this process was forked after [`watch_for_forks`].
pub(crate) fn is_forked_copy() -> bool {
    match WATCHED.load(Ordering::Relaxed) {
        0 => false,
        watched => !ProcessMark(watched).is_of_this_process(),
    }
}

/// Reserves a number for all processes that this one forks on purpose. They need not write to the
/// counter then, for which the kernel would have to copy its page, and none of them meets a mark of
/// another.
pub(crate) fn prepare_restart() {
    LAST.fetch_add(1, Ordering::Relaxed);
}

/// Declares this process, which was forked on purpose after [`prepare_restart`], an original: from
/// now on [`is_forked_copy`] returns false here. Returns its mark, or `None` if no page is mapped.
/// The caller is the only thread.
pub(crate) fn restart() -> Option<ProcessMark> {
    if WATCHED.load(Ordering::Relaxed) != 0 {
        WATCHED.store(0, Ordering::Relaxed);
    }
    let own = LAST.load(Ordering::Relaxed);
    // The page has been wiped. It is written without being read, which would cost a second fault.
    existing_page()?.store(own, Ordering::Relaxed);
    Some(ProcessMark(own))
}

/// Panics in a forked copy, where nothing would end this kind of wait.
#[track_caller]
pub(crate) fn refuse_in_forked_copy(wait: &str) {
    assert!(
        !is_forked_copy(),
        "{wait} would never end in this process: it was forked from a program that had used seedbed, and the thread of \
         smol's reactor exists only there. Fork before the program first uses seedbed, or execute another program"
    );
}

/// A value that each process has for itself: a forked process does not see the one of its original,
/// which may be locked, or belong to threads that exist only there.
pub(crate) struct PerProcess<T> {
    current: AtomicPtr<Owned<T>>,
}

struct Owned<T> {
    /// `None` if marks cannot be made, so forks are not detected.
    mark: Option<ProcessMark>,
    value: T,
}

impl<T: Default> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        PerProcess {
            current: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Returns the value of this process, which the first call makes.
    pub(crate) fn get(&self) -> &T {
        loop {
            let current = self.current.load(Ordering::Acquire);
            // SAFETY: the pointer is null, which gives `None`, or comes from `Box::into_raw` below
            // and is never freed. `Acquire` pairs with the exchange that published it.
            match unsafe { current.as_ref() } {
                Some(Owned { mark, value }) if mark.is_none_or(ProcessMark::is_of_this_process) => {
                    return value;
                }
                // The value of the original process is leaked: its drop could need its threads.
                Some(_) | None => {
                    let new = Box::into_raw(Box::new(Owned {
                        mark: ProcessMark::of_this_process().ok(),
                        value: T::default(),
                    }));
                    let (order, failed) = (Ordering::AcqRel, Ordering::Relaxed);
                    if self
                        .current
                        .compare_exchange(current, new, order, failed)
                        .is_err()
                    {
                        // SAFETY: `new` comes from `Box::into_raw` and was not published.
                        drop(unsafe { Box::from_raw(new) });
                    }
                }
            }
        }
    }
}

/// Returns the page, if there is one.
fn existing_page() -> Option<&'static AtomicU64> {
    // SAFETY: the pointer is null, which gives `None`, or comes from `page`: aligned, initialised,
    // and mapped until the process ends. Its number is only accessed as an atomic. `Acquire` pairs
    // with the exchange in `page`.
    unsafe { PAGE.load(Ordering::Acquire).as_ref() }
}

/// Returns the page, which is mapped by the first call.
fn page() -> io::Result<&'static AtomicU64> {
    if let Some(number) = existing_page() {
        return Ok(number);
    }
    let (rights, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: without an address, the kernel chooses one where nothing is mapped, so no memory of
    // the program is replaced.
    let page = unsafe { mmap_anonymous(ptr::null_mut(), PAGE_LEN, rights, flags)? };
    // SAFETY: the range is the mapping just made. The advice changes nothing in this process.
    let advised = unsafe { madvise(page, PAGE_LEN, Advice::LinuxWipeOnFork) };
    let published = advised.is_ok()
        && PAGE
            .compare_exchange(
                ptr::null_mut(),
                page.cast(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            )
            .is_ok();
    if !published {
        // SAFETY: the range is the mapping just made, which no other thread has seen.
        let unmapped = unsafe { munmap(page, PAGE_LEN) };
        debug_assert_eq!(unmapped, Ok(()));
    }
    advised?;
    Ok(existing_page().expect("a page has been published"))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Forks, runs `check` in the forked process, and returns whether it held there.
    fn holds_in_a_fork(check: impl FnOnce() -> bool) -> bool {
        // SAFETY: the forked process accesses atomics and a page, which needs no lock, and ends at
        // once.
        let copy = unsafe { libc::fork() };
        if copy == 0 {
            let code = i32::from(!check());
            // SAFETY: any process may call `_exit` at any moment.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: `status` has room for an `int`.
        let waited = unsafe { libc::waitpid(copy, &raw mut status, 0) };
        assert_eq!(waited, copy);
        status == 0
    }

    #[test]
    fn a_mark_is_that_of_the_process_that_made_it_and_of_no_fork() {
        let mark = ProcessMark::of_this_process().unwrap();
        assert!(mark.is_of_this_process());
        assert_eq!(ProcessMark::of_this_process().unwrap(), mark);
        assert!(holds_in_a_fork(|| {
            let was_wiped = !mark.is_of_this_process();
            let own = ProcessMark::of_this_process().unwrap();
            was_wiped && own != mark && own.is_of_this_process() && !mark.is_of_this_process()
        }));
        assert!(mark.is_of_this_process());
    }

    #[test]
    fn a_forked_process_has_a_value_of_its_own() {
        static VALUE: PerProcess<AtomicU64> = PerProcess::new();
        VALUE.get().store(7, Ordering::Relaxed);
        assert!(holds_in_a_fork(|| {
            let is_new = VALUE.get().swap(8, Ordering::Relaxed) == 0;
            is_new && VALUE.get().load(Ordering::Relaxed) == 8
        }));
        assert_eq!(VALUE.get().load(Ordering::Relaxed), 7);
    }

    #[test]
    fn a_fork_is_a_copy_unless_it_restarts() {
        watch_for_forks();
        watch_for_forks();
        assert!(!is_forked_copy());
        prepare_restart();
        let original = ProcessMark::of_this_process().unwrap();
        assert!(holds_in_a_fork(|| {
            let is_marked = restart().is_some_and(ProcessMark::is_of_this_process);
            is_marked && !original.is_of_this_process() && !is_forked_copy()
        }));
        assert!(holds_in_a_fork(|| {
            let is_copy = is_forked_copy();
            // A mark of its own does not make it an original.
            let is_copy = is_copy && ProcessMark::of_this_process().is_ok() && is_forked_copy();
            restart();
            let is_original = !is_forked_copy();
            watch_for_forks();
            is_copy && is_original && !is_forked_copy()
        }));
        assert!(!is_forked_copy());
    }
}
