//! The children of one nursery: those that are ready, those that wait, and the one that is being
//! polled.
//!
//! The block changes these lists with every child that it polls, so a lock per change would cost
//! more than the change. Instead one lock is held for the length of each poll of the block. It is a
//! word with the token of its holder:
//!
//! | holder | meaning |
//! |---|---|
//! | `UNLOCKED` | the block is not being polled: any thread may become the reader |
//! | `READER` | a thread copies the lists |
//! | any other | the thread with this [token](thread_token) polls or drops the block |
//!
//! The thread that holds the lock as the block may read as well. It can do so only from code that
//! the block has called, and no method of [`PollGuard`] calls such code while it changes a list.

// Gives out what the lock protects.
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use super::ready::{Linked, List, Pushed, ReadyStack};
use super::tuning::POLL_LOCK_RETRY;
use crate::sys::primitives::{AtomicUsize, Cell, UnsafeCell, sleep, thread_token, yield_now};

// Neither is the token of a thread.
const UNLOCKED: usize = 0;
const READER: usize = 1;

/// The index of a child that is not in the list.
pub(super) const UNLISTED: u32 = u32::MAX;

/// A reference to a child that knows its index in the list.
pub(super) trait Listed: Linked {
    /// Returns the child's index, which is [`UNLISTED`] at first. Only this file uses it.
    fn index(&self) -> &Cell<u32>;
}

pub(super) struct Children<R: Linked> {
    holder: AtomicUsize,
    ready: ReadyStack<R>,
    polled: UnsafeCell<Polled<R>>,
}

/// The state that the lock protects.
struct Polled<R: Linked> {
    /// All children that were polled and have not ended, in no order. Each knows its index.
    listed: Vec<R>,
    /// The children that were taken from the stack and are still to be polled.
    batch: List<R>,
    /// The child that is being polled or dropped.
    current: Option<NonNull<R::Object>>,
}

// SAFETY: references to children may be used and dropped on any thread (the bound), and `Children`
// owns nothing else that depends on a thread: `current` is a pointer to a child, and is set only
// while the lock is held.
unsafe impl<R: Linked + Send + Sync> Send for Children<R> {}
// SAFETY: `holder` and `ready` are atomic. `polled` is used only by the thread that holds the lock:
// by `PollGuard`, which exists only then and cannot leave its thread, and by `read` and `current`.
unsafe impl<R: Linked + Send + Sync> Sync for Children<R> {}

impl<R: Listed> Children<R> {
    pub(super) fn new() -> Self {
        Children {
            holder: AtomicUsize::new(UNLOCKED),
            ready: ReadyStack::new(),
            polled: UnsafeCell::new(Polled {
                listed: Vec::new(),
                batch: List::EMPTY,
                current: None,
            }),
        }
    }

    /// Makes the block poll this child. Gives the child back if the block has ended.
    ///
    /// # Safety
    ///
    /// The child belongs to this nursery. It is not in the stack or a batch already, and no other
    /// thread pushes it until this returns.
    pub(super) unsafe fn push(&self, child: R) -> Result<Pushed, R> {
        // SAFETY: the contract of this function includes that of `ReadyStack::push`.
        unsafe { self.ready.push(child) }
    }

    /// Lets the next push wake the block. False if a child is ready.
    pub(super) fn mark_idle(&self) -> bool {
        self.ready.mark_idle()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.ready.is_closed()
    }

    fn try_lock(&self, holder: usize) -> Result<usize, usize> {
        self.holder
            .compare_exchange(UNLOCKED, holder, Ordering::Acquire, Ordering::Relaxed)
    }

    /// Locks the children for the block, and runs `act` with the guard.
    ///
    /// The lifetime in the guard's type belongs to this call alone, so what comes from one guard
    /// fits no other.
    pub(super) fn lock<T>(&self, act: impl for<'b> FnOnce(&PollGuard<'b, R>) -> T) -> T {
        let token = thread_token();
        while let Err(holder) = self.try_lock(token) {
            assert_ne!(
                holder, token,
                "a nursery's block was polled by code that it polls"
            );
            // A block is polled by one thread at a time, so this is a reader, which does not take
            // long.
            yield_now();
        }
        let guard = PollGuard {
            children: self,
            brand: PhantomData,
        };
        // Unlocks also if a waker of another library panics.
        let unlock = Unlock(&guard);
        let value = act(unlock.0);
        drop(unlock);
        value
    }

    /// Returns references to all children; some of them more than once, and some that have ended.
    ///
    /// If another thread polls the block, waits until that poll is over, or without `wait` returns
    /// `None`.
    pub(super) fn read(&self, wait: bool) -> Option<Vec<R>> {
        /// Unlocks also if there is no memory for the list.
        struct Reader<'a, R: Listed>(Option<&'a Children<R>>);
        impl<R: Listed> Drop for Reader<'_, R> {
            fn drop(&mut self) {
                if let Some(children) = self.0 {
                    children.holder.store(UNLOCKED, Ordering::Release);
                }
            }
        }
        let reader = loop {
            match self.try_lock(READER) {
                Ok(_) => break Reader(Some(self)),
                Err(holder) if holder == thread_token() => break Reader(None),
                Err(READER) => yield_now(),
                Err(_) if wait => sleep(POLL_LOCK_RETRY),
                Err(_) => return None,
            }
        };
        let mut found = self.polled.with(|polled| {
            // SAFETY: this thread holds the lock, as the reader or as the block. As the block, it
            // is in code that the block has called, and no method of `PollGuard` calls any while it
            // has a `&mut` to this.
            let polled = unsafe { &*polled };
            let mut found = polled.listed.clone();
            polled.batch.walk(&mut found);
            found.extend(polled.current());
            found
        });
        // SAFETY: only `PollGuard` takes the stack. A guard of another thread cannot exist while
        // this thread holds the lock. If this thread has one, it is not in use: this code runs in a
        // call that the block has made, and no method of `PollGuard` makes one between two steps.
        unsafe { self.ready.walk(&mut found) };
        drop(reader);
        Some(found)
    }

    /// Returns the child that this thread polls or drops for the block.
    pub(super) fn current(&self) -> Option<R> {
        if self.holder.load(Ordering::Relaxed) != thread_token() {
            return None;
        }
        // SAFETY: this thread holds the lock as the block, because no other thread stores this
        // thread's token. It is in code that the block has called, and no method of `PollGuard`
        // calls any while it has a `&mut` to this.
        self.polled.with(|polled| unsafe { (*polled).current() })
    }
}

impl<R: Linked> Polled<R> {
    fn current(&self) -> Option<R> {
        let current = self.current?;
        // SAFETY: the pointer came from `as_raw`, and `PollGuard::with_current` borrows a reference
        // to that child until it has cleared the field. The result of `from_raw` is not dropped,
        // and used only here.
        let current = ManuallyDrop::new(unsafe { R::from_raw(current) });
        Some(R::clone(&current))
    }
}

/// Proves that this thread polls the block of these children, or drops it. Exists only within
/// [`Children::lock`].
pub(super) struct PollGuard<'b, R: Listed> {
    children: &'b Children<R>,
    /// Makes `'b` invariant, and keeps the guard on its thread.
    brand: PhantomData<*mut &'b ()>,
}

/// A child that belongs to the nursery of the [`PollGuard`] with the same lifetime, whose block is
/// therefore being polled by this thread.
pub(super) struct Own<'b, R> {
    child: R,
    brand: PhantomData<*mut &'b ()>,
}

impl<R> Own<'_, R> {
    fn new(child: R) -> Self {
        Own {
            child,
            brand: PhantomData,
        }
    }
}

impl<R> Deref for Own<'_, R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.child
    }
}

struct Unlock<'a, 'b, R: Listed>(&'a PollGuard<'b, R>);

impl<R: Listed> Drop for Unlock<'_, '_, R> {
    fn drop(&mut self) {
        // Empty, unless a panic came between.
        while let Some(child) = self.0.next_ready() {
            self.0.push_back(child);
        }
        // Release: the next holder sees the changes.
        self.0.children.holder.store(UNLOCKED, Ordering::Release);
    }
}

impl<'b, R: Listed> PollGuard<'b, R> {
    /// Changes what the lock protects. `change` must not run code of others: no poll, no waker, no
    /// drop of a reference.
    #[inline(always)]
    fn with<T>(&self, change: impl FnOnce(&mut Polled<R>) -> T) -> T {
        // SAFETY: a guard exists only on the thread that holds the lock as the block, so no other
        // thread uses this. On this thread `read`, `current` and this function are the only users;
        // each ends before it returns, and `change`, which is written in this file, calls none of
        // them.
        self.children
            .polled
            .with_mut(|polled| change(unsafe { &mut *polled }))
    }

    /// Takes all children that are ready, to be given out by [`next_ready`](PollGuard::next_ready).
    /// Not after closing.
    pub(super) fn take_ready(&self) {
        let batch = self.children.ready.take();
        drop(self.with(|polled| std::mem::replace(&mut polled.batch, batch)));
    }

    /// Takes all children that are ready, and closes: no more can be pushed.
    pub(super) fn close(&self) {
        let batch = self.children.ready.close();
        drop(self.with(|polled| std::mem::replace(&mut polled.batch, batch)));
    }

    /// Closes if no child is ready.
    pub(super) fn try_close(&self) -> bool {
        self.children.ready.try_close()
    }

    /// Takes the next child out of the batch.
    #[inline(always)]
    pub(super) fn next_ready(&self) -> Option<Own<'b, R>> {
        self.with(|polled| polled.batch.next()).map(Own::new)
    }

    pub(super) fn shuffle_ready(&self, order: &mut fastrand::Rng) {
        self.with(|polled| polled.batch.shuffle(order));
    }

    /// Returns references to the children that are left in the batch.
    pub(super) fn ready(&self) -> Vec<Own<'b, R>> {
        let mut found = Vec::new();
        self.with(|polled| polled.batch.walk(&mut found));
        found.into_iter().map(Own::new).collect()
    }

    /// Puts a child that came from the batch, and was not polled since, back among those that are
    /// ready.
    pub(super) fn push_back(&self, child: Own<'b, R>) {
        // SAFETY: the child is of this nursery (its type) and was taken out of the batch, so it is
        // in no list. Its right to be in the stack was not given up, so no other thread pushes it.
        let pushed = unsafe { self.children.push(child.child) };
        // Refused after closing, when the child is dropped here. A block that is being polled need
        // not be woken.
        drop(pushed);
    }

    pub(super) fn len(&self) -> usize {
        self.with(|polled| polled.listed.len())
    }

    #[inline(always)]
    pub(super) fn is_listed(&self, child: &Own<'b, R>) -> bool {
        child.index().get() != UNLISTED
    }

    /// Adds a child to the list, which must not be in it.
    #[inline(always)]
    pub(super) fn list(&self, child: Own<'b, R>) {
        self.with(|polled| {
            let index = u32::try_from(polled.listed.len()).ok();
            let index = index.filter(|&index| index != UNLISTED);
            let index = index.expect("fewer than 2^32 children in one nursery");
            child.index().set(index);
            polled.listed.push(child.child);
        });
    }

    /// Takes a child off the list if it is there.
    #[inline(always)]
    pub(super) fn unlist(&self, child: &Own<'b, R>) {
        let index = child.index().get();
        if index != UNLISTED {
            drop(self.take(index as usize));
        }
    }

    /// Takes the child with this index off the list.
    #[inline(always)]
    pub(super) fn take(&self, index: usize) -> Own<'b, R> {
        let child = self.with(|polled| {
            let child = polled.listed.swap_remove(index);
            if let Some(moved) = polled.listed.get(index) {
                moved.index().set(child.index().get());
            }
            child.index().set(UNLISTED);
            child
        });
        Own::new(child)
    }

    /// Takes the last child off the list.
    pub(super) fn pop(&self) -> Option<Own<'b, R>> {
        let last = self.len().checked_sub(1)?;
        Some(self.take(last))
    }

    /// Polls or drops a child, or does something else as that child. `act` must not panic.
    #[inline(always)]
    pub(super) fn with_current<T>(&self, child: &Own<'b, R>, act: impl FnOnce() -> T) -> T {
        /// Clears the field even so, because the pointer in it is only good while the child is
        /// borrowed.
        struct Clear<'a, 'b, R: Listed>(&'a PollGuard<'b, R>);
        impl<R: Listed> Drop for Clear<'_, '_, R> {
            fn drop(&mut self) {
                self.0.with(|polled| polled.current = None);
            }
        }
        self.with(|polled| polled.current = Some(child.as_raw()));
        let _clear = Clear(self);
        act()
    }
}

impl<R: Linked> fmt::Debug for Children<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Children").finish_non_exhaustive()
    }
}
