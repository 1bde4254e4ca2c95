//! Which children a nursery has: the list that its block works with, in a form that others may look into.
//!
//! The block changes the list at every turn, so a lock for each change would cost more than the change. Instead the list
//! has a holder, a single word:
//!
//! | holder | meaning |
//! |---|---|
//! | `NOBODY` | the block rests: whoever wants to look becomes the holder, for as long as that takes |
//! | `READER` | somebody looks |
//! | any other | the block is being polled, or dropped, by the thread with this [token](thread_token) |
//!
//! So the block pays once for each time that it is polled, not for each child. Three rules make this sound:
//!
//! 1. **Only the holder touches the list.** (The block, which alone changes it, may read it at any time.)
//! 2. **While the block holds it, its own thread may look too.** That can only be code that the block has called, and the
//!    block calls no foreign code (no poll, no hook, no drop of a future, a waker or a child) in the middle of a change.
//! 3. **Whoever looks takes counted references away**, and no borrows.

// Shares a list between threads without a lock; every access is argued by the rules above.
#![allow(unsafe_code)]

use std::cell::Cell as StdCell;
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::child::{ChildRef, Header};
use super::ready::BatchRef;
use crate::cancel::NodeId;
use crate::sys::primitives::{AtomicUsize, UnsafeCell, sleep, thread_token, yield_now};

// No thread's token.
const NOBODY: usize = 0;
const READER: usize = 1;

/// How long somebody who looks sleeps between two attempts, while another thread polls the block.
const PATIENCE: Duration = Duration::from_micros(100);

pub(super) struct Roster {
    holder: AtomicUsize,
    /// All children that were polled and have not ended, in no order; each knows its index.
    listed: UnsafeCell<Vec<ChildRef>>,
    /// The batch of those whose turn comes later in this round, which is the block's.
    round: StdCell<BatchRef>,
    /// Whose turn it is: who is being polled, or dropped.
    turn: StdCell<Option<NonNull<Header>>>,
}

// SAFETY: by rule 1 no two threads touch what is in the cells at the same time, unless both read only; and a `ChildRef`
// may be used and dropped on any thread.
unsafe impl Send for Roster {}
// SAFETY: as above.
unsafe impl Sync for Roster {}

impl Roster {
    pub(super) fn new() -> Self {
        Roster {
            holder: AtomicUsize::new(NOBODY),
            listed: UnsafeCell::new(Vec::new()),
            round: StdCell::new(BatchRef::EMPTY),
            turn: StdCell::new(None),
        }
    }

    /// Becomes the holder. Only for the block, which [releases](Roster::release) what it holds on the same thread.
    pub(super) fn hold(&self) {
        let token = thread_token();
        // Acquire: those who looked are done. A block is polled by one thread at a time, so nobody else than a reader
        // can be in the way, and not for long.
        while self.try_hold(token).is_err() {
            yield_now();
        }
    }

    pub(super) fn release(&self) {
        // Release: what the block has changed is visible to who looks.
        self.holder.store(NOBODY, Ordering::Release);
    }

    fn try_hold(&self, token: usize) -> Result<usize, usize> {
        self.holder
            .compare_exchange(NOBODY, token, Ordering::Acquire, Ordering::Relaxed)
    }

    /// Counts everybody who is listed, in the batch, or having a turn; some of them more than once, some of them done.
    /// `more` adds others, without running any foreign code.
    ///
    /// `None` if another thread polls the block. With `patient` it waits until that has ended.
    pub(super) fn look(
        &self,
        patient: bool,
        more: impl FnOnce(&mut Vec<ChildRef>),
    ) -> Option<Vec<ChildRef>> {
        /// Lets go, also if there is no memory for the list.
        struct Looking<'a>(Option<&'a Roster>);
        impl Drop for Looking<'_> {
            fn drop(&mut self) {
                if let Some(roster) = self.0 {
                    roster.release();
                }
            }
        }
        let looking = loop {
            match self.try_hold(READER) {
                Ok(_) => break Looking(Some(self)),
                Err(holder) if holder == thread_token() => break Looking(None),
                Err(READER) => yield_now(),
                Err(_) if patient => sleep(PATIENCE),
                Err(_) => return None,
            }
        };
        // SAFETY: we are the holder, or (rule 2) the block is, and has called us.
        let mut found = self.listed.with(|listed| unsafe { (*listed).clone() });
        // SAFETY: the block has the batch until it says that there is another; it takes nobody out meanwhile.
        unsafe { self.round.get().count_into(&mut found) };
        if let Some(turn) = self.turn.get() {
            // SAFETY: `take_turn` has a reference, until it clears the field.
            found.push(unsafe { ChildRef::counted(turn) });
        }
        more(&mut found);
        drop(looking);
        Some(found)
    }

    /// Whose turn it is.
    ///
    /// # Safety
    ///
    /// The block holds this, on this thread.
    pub(super) unsafe fn turn(&self) -> Option<ChildRef> {
        // SAFETY: as in `look`.
        self.turn
            .get()
            .map(|turn| unsafe { ChildRef::counted(turn) })
    }

    /// Polls or drops a child, or anything else that is done in its name. `act` must not panic. Turns do not nest: a block
    /// ends one child before it goes on to the next.
    ///
    /// # Safety
    ///
    /// The caller is the block, and holds this.
    #[inline]
    pub(super) unsafe fn take_turn<T>(&self, child: &ChildRef, act: impl FnOnce() -> T) -> T {
        self.turn.set(Some(child.as_ptr()));
        let value = act();
        self.turn.set(None);
        value
    }

    /// Says whose turn comes later in this round.
    ///
    /// # Safety
    ///
    /// The caller is the block, and holds this. It says this again before it takes anybody out of the batch or drops it,
    /// or without foreign code in between.
    #[inline(always)]
    pub(super) unsafe fn set_round(&self, rest: BatchRef) {
        self.round.set(rest);
    }

    /// # Safety
    ///
    /// The caller is the block that the child belongs to, and holds this. The child is not listed.
    #[inline(always)]
    pub(super) unsafe fn list(&self, child: ChildRef) {
        self.listed.with_mut(|listed| {
            // SAFETY: the caller is the holder.
            let listed = unsafe { &mut *listed };
            // SAFETY: the child belongs to the caller.
            unsafe { child.set_index(listed.len()) };
            listed.push(child);
        });
    }

    /// Takes a child off the list, if it is on it; the reference is for the caller to drop.
    ///
    /// # Safety
    ///
    /// The caller is the block that the child belongs to, and holds this.
    #[inline(always)]
    pub(super) unsafe fn unlist(&self, child: &ChildRef) -> Option<ChildRef> {
        // SAFETY: the child belongs to the caller.
        let index = unsafe { child.index() }?;
        // SAFETY: passed on.
        Some(unsafe { self.take(index) })
    }

    /// Takes the child at this place off the list.
    ///
    /// # Safety
    ///
    /// The caller is the block, and holds this.
    pub(super) unsafe fn take(&self, index: usize) -> ChildRef {
        self.listed.with_mut(|listed| {
            // SAFETY: the caller is the holder.
            let listed = unsafe { &mut *listed };
            let removed = listed.swap_remove(index);
            if let Some(moved) = listed.get(index) {
                // SAFETY: all that are listed belong to the caller.
                unsafe { moved.set_index(index) };
            }
            removed
        })
    }

    /// The node of the child at this place, if it has one.
    ///
    /// # Safety
    ///
    /// The caller is the block.
    pub(super) unsafe fn node_at(&self, index: usize) -> Option<NodeId> {
        // SAFETY: only the caller changes the list, and all that are listed belong to it.
        self.listed
            .with(|listed| unsafe { (&*listed)[index].node() })
    }

    /// Takes the last child off the list.
    ///
    /// # Safety
    ///
    /// The caller is the block, and holds this.
    pub(super) unsafe fn pop(&self) -> Option<ChildRef> {
        // SAFETY: the caller is the holder.
        self.listed.with_mut(|listed| unsafe { (*listed).pop() })
    }

    /// # Safety
    ///
    /// The caller is the block.
    pub(super) unsafe fn get(&self, index: usize) -> Option<ChildRef> {
        // SAFETY: only the caller changes the list.
        self.listed
            .with(|listed| unsafe { (&*listed).get(index).cloned() })
    }

    /// # Safety
    ///
    /// The caller is the block.
    pub(super) unsafe fn len(&self) -> usize {
        // SAFETY: only the caller changes the list.
        self.listed.with(|listed| unsafe { (*listed).len() })
    }
}

impl fmt::Debug for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roster").finish_non_exhaustive()
    }
}
