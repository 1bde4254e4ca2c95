//! Which children are to be polled: a stack that any thread pushes onto and the nursery empties at once.
//!
//! `head` is the top of a list linked through [`Header::next`], or one of three marks, which also end a list:
//!
//! | mark | meaning | who leaves it |
//! |---|---|---|
//! | `IDLE` | nothing to do, and nobody has been told otherwise | a pusher, who then wakes the nursery |
//! | `BUSY` | the nursery is being polled, or will be: it looks here before it rests | the nursery only |
//! | `CLOSED` | the block has ended; nothing is accepted any more | nobody |
//!
//! A pusher links its child in front of what it finds with one compare-and-swap; the nursery takes the whole list with
//! one swap, so there is no other consumer to race with and no ABA problem. Taken lists are reversed: children are
//! polled in the order in which they were woken, and what is pushed meanwhile waits for the next round, so that no
//! child starves the others or the world outside.

// Follows raw list links; every dereference is argued where it stands.
#![allow(unsafe_code)]

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Wake;

use super::child::{ChildRef, Header};
use super::info::{TaskId, TaskRef};
use super::place;
use super::roster::Roster;
use crate::ambient::TreeValues;
use crate::cancel::CancelScope;
use crate::instrument;
use crate::instrument::RunId;
use crate::sys::primitives::{AtomicBool, AtomicPtr};

const IDLE: *mut Header = ptr::null_mut();
const BUSY: *mut Header = ptr::without_provenance_mut(1);
const CLOSED: *mut Header = ptr::without_provenance_mut(2);

fn is_mark(head: *mut Header) -> bool {
    head.addr() <= CLOSED.addr()
}

/// What a nursery's block, its handles and its children's wakers share.
#[derive(Debug)]
pub(super) struct Core {
    head: AtomicPtr<Header>,
    body_woken: AtomicBool,
    /// The block's place in the tree, and who polls it.
    pub(super) scope: CancelScope,
    /// The task that opened the block. Up to the root each keeps the next alive; downwards nobody does.
    pub(super) opener: Option<TaskRef>,
    /// The run that it was opened in.
    run: Option<RunId>,
    /// Blocks and tasks are numbered alike.
    pub(super) number: TaskId,
    /// Where it is registered; see `tree`.
    pub(super) registered: AtomicUsize,
    pub(super) roster: Roster,
    /// The tree variables of where the block was opened, for those who ask from elsewhere; until it has ended.
    pub(super) values: Mutex<Option<TreeValues>>,
}

impl Core {
    pub(super) fn new(scope: CancelScope, values: Option<TreeValues>) -> Arc<Self> {
        Arc::new(Core {
            head: AtomicPtr::new(BUSY),
            body_woken: AtomicBool::new(true),
            scope,
            opener: place::current(),
            run: instrument::current_run(),
            number: TaskId::next(),
            registered: AtomicUsize::new(0),
            roster: Roster::new(),
            values: Mutex::new(values),
        })
    }

    /// Whether this thread is that of the run which the block was opened in, and that run has instruments.
    #[inline]
    pub(super) fn is_observed(&self) -> bool {
        instrument::is_observing(self.run)
    }

    /// The children that have not ended, in the order of spawning. `None` if another thread polls the block; who is
    /// `patient` waits for that.
    pub(super) fn children(&self, patient: bool) -> Option<Vec<ChildRef>> {
        let mut children = self.roster.look(patient, |found| {
            // SAFETY: only the holder of the roster takes children from the stack, and that is us, or the block, which has
            // called us and is not taking any now. Acquire: the links are visible.
            unsafe { count_into(self.head.load(Ordering::Acquire), found) }
        })?;
        children.retain(|child| !child.is_done());
        children.sort_by_key(ChildRef::id);
        children.dedup_by_key(|child| child.id());
        Some(children)
    }

    /// Makes the nursery poll this child, which must not be in the stack already. Gives it back if the block has ended.
    pub(super) fn push(&self, child: ChildRef) -> Result<(), ChildRef> {
        let pushed = child.into_raw();
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            if head == CLOSED {
                // SAFETY: this pointer came from `into_raw` above and was not given to anybody.
                return Err(unsafe { ChildRef::from_raw(pushed) });
            }
            // SAFETY: the reference that we hold keeps the header alive, and whoever may push a child is the only one
            // to touch its `next`, until the compare-and-swap below publishes it.
            unsafe { (*pushed).next.set(head) };
            // Release: the nursery sees `next`, and what the caller did before it woke the child. Acquire, for finding
            // IDLE: the waker that the nursery registered before it left that mark is then visible.
            let swap =
                self.head
                    .compare_exchange_weak(head, pushed, Ordering::AcqRel, Ordering::Relaxed);
            match swap {
                Ok(_) => break,
                Err(found) => head = found,
            }
        }
        if head == IDLE {
            self.scope.wake();
        }
        Ok(())
    }

    /// Takes what was pushed, oldest first, and leaves `BUSY`. Only for the nursery, which holds the roster, and not after
    /// closing.
    pub(super) fn take(&self) -> Batch {
        Batch::reversed(self.head.swap(BUSY, Ordering::Acquire))
    }

    /// Lets the next pusher wake the nursery. False if something was pushed since [`take`](Core::take).
    pub(super) fn rest(&self) -> bool {
        self.leave_busy(IDLE)
    }

    /// Closes, unless something was pushed since [`take`](Core::take).
    pub(super) fn try_close(&self) -> bool {
        self.leave_busy(CLOSED)
    }

    /// Closes, and hands out what was pushed: children that the nursery has to drop, also those it never saw. Only for the
    /// nursery, which holds the roster.
    pub(super) fn close(&self) -> Batch {
        Batch::reversed(self.head.swap(CLOSED, Ordering::AcqRel))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.head.load(Ordering::Acquire) == CLOSED
    }

    /// Whether the body was woken since this was last asked.
    pub(super) fn take_body_woken(&self) -> bool {
        self.body_woken.swap(false, Ordering::AcqRel)
    }

    fn leave_busy(&self, mark: *mut Header) -> bool {
        // Release: a pusher that finds the mark sees what the nursery did before, its registered waker above all.
        self.head
            .compare_exchange(BUSY, mark, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}

/// Lets go of those above one after the other, and not each within the other: with executors between them there may be
/// more than would fit on a stack.
impl Drop for Core {
    fn drop(&mut self) {
        let mut opener = self.opener.take();
        while let Some(TaskRef::Child(child)) = opener {
            let core = child.core().clone();
            drop(child);
            opener = Arc::into_inner(core).and_then(|mut core| core.opener.take());
        }
    }
}

/// The body's waker.
impl Wake for Core {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A read-modify-write, so that the poll which finds the flag set sees what was done before each wake-up, not
        // before the last one only.
        self.body_woken.swap(true, Ordering::AcqRel);
        self.scope.wake();
    }
}

/// Who is left in a [`Batch`], without a borrow.
#[derive(Clone, Copy)]
pub(super) struct BatchRef(*mut Header);

impl BatchRef {
    pub(super) const EMPTY: Self = BatchRef(IDLE);

    /// Counts everybody.
    ///
    /// # Safety
    ///
    /// The batch still has those whom it had when this was made, and loses none meanwhile.
    pub(super) unsafe fn count_into(self, found: &mut Vec<ChildRef>) {
        // SAFETY: passed on: the batch keeps everybody alive and linked.
        unsafe { count_into(self.0, found) }
    }
}

/// A list of children that was taken from the stack. Dropping it lets go of those that are left.
#[must_use]
pub(super) struct Batch {
    head: *mut Header,
}

/// Counts everybody in a list.
///
/// # Safety
///
/// `top` is the top of a list, and nobody changes that meanwhile: except that more may be put on top of a stack.
unsafe fn count_into(mut top: *mut Header, found: &mut Vec<ChildRef>) {
    while let Some(header) = NonNull::new(top).filter(|_| !is_mark(top)) {
        // SAFETY: each header in a list is kept alive by the reference that was pushed with it; its link belongs to the
        // list, which nobody changes.
        unsafe {
            found.push(ChildRef::counted(header));
            top = header.as_ref().next.get();
        }
    }
}

impl Batch {
    /// Who is left at this moment.
    #[inline(always)]
    pub(super) fn rest(&self) -> BatchRef {
        BatchRef(self.head)
    }

    fn reversed(mut from: *mut Header) -> Self {
        let mut to = IDLE;
        while !is_mark(from) {
            // SAFETY: each header in the list is kept alive by the reference that was pushed with it, and having taken
            // the list we are the only ones to touch its links.
            let next = unsafe { (*from).next.replace(to) };
            to = std::mem::replace(&mut from, next);
        }
        Batch { head: to }
    }
}

impl Batch {
    /// The same children, in another order.
    pub(super) fn shuffled(mut self, order: &mut fastrand::Rng) -> Self {
        let mut children: Vec<_> = self.by_ref().map(ChildRef::into_raw).collect();
        order.shuffle(&mut children);
        let mut to = IDLE;
        for child in children {
            // SAFETY: as in `reversed`: the reference that was turned into this pointer is the list's, which is ours.
            unsafe { (*child).next.set(to) };
            to = child;
        }
        Batch { head: to }
    }
}

impl Iterator for Batch {
    type Item = ChildRef;

    fn next(&mut self) -> Option<ChildRef> {
        if is_mark(self.head) {
            return None;
        }
        let first = self.head;
        // SAFETY: as in `reversed`; the link is read before the reference that keeps it alive is handed out.
        self.head = unsafe { (*first).next.get() };
        // SAFETY: the pointer was made by `into_raw` in `push`, and is taken out of the list here, once.
        Some(unsafe { ChildRef::from_raw(first) })
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}
