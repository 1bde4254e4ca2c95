//! A lock-free stack of the children that are ready to be polled. Any thread pushes; the nursery
//! takes all at once.
//!
//! `head` points to the top of a linked list, or is one of three marks, each of which also ends a
//! list:
//!
//! | mark | meaning | replaced by |
//! |---|---|---|
//! | `IDLE` | the nursery waits to be woken | a push, which then wakes the nursery |
//! | `BUSY` | the nursery is being polled, or will be; it checks the stack before it waits | the nursery, or a push |
//! | `CLOSED` | the block has ended and accepts nothing more | nothing |
//!
//! A push links its child in front of the current head with one compare-and-swap. The nursery takes
//! the whole list with one swap, so no second consumer exists and there is no ABA problem.

// Turns references into raw pointers and back.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering;

use crate::sys::primitives::{AtomicPtr, Cell};

/// A counted reference to an object that can be linked into one [`ReadyStack`].
///
/// # Safety
///
/// A reference keeps its object alive and in place. [`as_raw`](Linked::as_raw) and
/// [`link`](Linked::link) return the same pointer and cell for every reference to one object. Only
/// this file uses that cell.
pub(super) unsafe trait Linked: Clone {
    /// The object. Its address is not one of the three marks.
    type Object;

    fn as_raw(&self) -> NonNull<Self::Object>;

    /// # Safety
    ///
    /// `object` came from [`as_raw`](Linked::as_raw). The result is used only while another
    /// reference to the object exists, or takes over the count of a reference that was forgotten;
    /// else it must be forgotten itself.
    unsafe fn from_raw(object: NonNull<Self::Object>) -> Self;

    fn link(&self) -> &Cell<*mut Self::Object>;
}

const IDLE: usize = 0;
const BUSY: usize = 1;
const CLOSED: usize = 2;

fn mark<T>(mark: usize) -> *mut T {
    ptr::without_provenance_mut(mark)
}

/// The object at the head of a list, unless the head is a mark.
fn object<T>(head: *mut T) -> Option<NonNull<T>> {
    NonNull::new(head).filter(|head| head.addr().get() > CLOSED)
}

/// Tells whether a push has to wake the nursery.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// The nursery waits and must be woken.
    OntoIdle,
    /// The nursery checks the stack before it waits.
    OntoBusy,
}

#[derive(Debug)]
pub(super) struct ReadyStack<R: Linked> {
    head: AtomicPtr<R::Object>,
}

impl<R: Linked> ReadyStack<R> {
    /// Makes an empty stack of a nursery that is being polled.
    pub(super) fn new() -> Self {
        ReadyStack {
            head: AtomicPtr::new(mark(BUSY)),
        }
    }

    /// Pushes a child. Gives it back if the stack is closed.
    ///
    /// # Safety
    ///
    /// The child is in no list, and no other thread pushes it or uses its link until this returns.
    /// (So one flag per child, which the pushing thread has set, is enough.)
    pub(super) unsafe fn push(&self, child: R) -> Result<Pushed, R> {
        // From the compare-and-swap on, the list owns this reference.
        let child = ManuallyDrop::new(child);
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            if head.addr() == CLOSED {
                return Err(ManuallyDrop::into_inner(child));
            }
            child.link().set(head);
            // Release: the nursery sees the link and everything that the caller did before it woke
            // the child. Acquire, for reading IDLE: the waker that the nursery registered before it
            // stored that mark is visible.
            let swap = self.head.compare_exchange_weak(
                head,
                child.as_raw().as_ptr(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            match swap {
                Ok(_) => break,
                Err(found) => head = found,
            }
        }
        match head.addr() {
            IDLE => Ok(Pushed::OntoIdle),
            _ => Ok(Pushed::OntoBusy),
        }
    }

    /// Takes the whole stack, oldest push first, and marks it `BUSY`. Not after closing.
    pub(super) fn take(&self) -> List<R> {
        List::reversed(self.head.swap(mark(BUSY), Ordering::Acquire))
    }

    /// Takes the whole stack and closes it.
    pub(super) fn close(&self) -> List<R> {
        List::reversed(self.head.swap(mark(CLOSED), Ordering::AcqRel))
    }

    /// Makes the next push wake the nursery. False if the stack is not empty.
    pub(super) fn mark_idle(&self) -> bool {
        self.replace_busy(IDLE)
    }

    /// Closes the stack if it is empty.
    pub(super) fn try_close(&self) -> bool {
        self.replace_busy(CLOSED)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.head.load(Ordering::Acquire).addr() == CLOSED
    }

    fn replace_busy(&self, by: usize) -> bool {
        // Release: a push that finds the mark sees what the nursery did before, above all the waker
        // that it registered.
        self.head
            .compare_exchange(mark(BUSY), mark(by), Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Adds a reference to every child in the stack to `found`.
    ///
    /// # Safety
    ///
    /// The stack is not taken until this returns. Pushes do no harm.
    pub(super) unsafe fn walk(&self, found: &mut Vec<R>) {
        // SAFETY: all that is below the head stays linked: by the contract the stack is not taken,
        // a push only links in front of the head. Acquire: the links that were written before the
        // push are visible.
        unsafe { walk(self.head.load(Ordering::Acquire), found) }
    }
}

/// Adds a reference to every child in a list to `found`.
///
/// # Safety
///
/// `head` is the head of a list or a mark, and the list does not change until this returns.
unsafe fn walk<R: Linked>(mut head: *mut R::Object, found: &mut Vec<R>) {
    while let Some(object) = object(head) {
        // SAFETY: the pointer came from `as_raw` in `push`. The list owns a reference to the
        // object, and does not change while this result is used. The result is never dropped.
        let child = ManuallyDrop::new(unsafe { R::from_raw(object) });
        found.push(R::clone(&child));
        head = child.link().get();
    }
}

/// A list of children that was taken from a stack. Dropping it drops the references that are left.
#[must_use]
pub(super) struct List<R: Linked> {
    head: *mut R::Object,
}

impl<R: Linked> List<R> {
    pub(super) const EMPTY: Self = List {
        head: ptr::null_mut(),
    };

    /// Reverses a list that was taken from a stack: children are polled in the order in which they
    /// were woken.
    fn reversed(head: *mut R::Object) -> Self {
        let mut reversed = Self::EMPTY;
        for child in (List { head }) {
            reversed.push_front(child);
        }
        reversed
    }

    fn push_front(&mut self, child: R) {
        let child = ManuallyDrop::new(child);
        child.link().set(self.head);
        self.head = child.as_raw().as_ptr();
    }

    /// Shuffles the list.
    pub(super) fn shuffle(&mut self, order: &mut fastrand::Rng) {
        let mut children: Vec<R> = self.collect();
        order.shuffle(&mut children);
        children
            .into_iter()
            .for_each(|child| self.push_front(child));
    }

    /// Adds a reference to every child in the list to `found`.
    pub(super) fn walk(&self, found: &mut Vec<R>) {
        // SAFETY: this list is borrowed, so it does not change.
        unsafe { walk(self.head, found) }
    }
}

impl<R: Linked> Iterator for List<R> {
    type Item = R;

    #[inline(always)]
    fn next(&mut self) -> Option<R> {
        let object = object(self.head)?;
        // SAFETY: the pointer came from `as_raw` in `push` or `push_front`, where the reference was
        // forgotten. Its count was this list's, and the result takes it over: the next line unlinks
        // the object.
        let child = unsafe { R::from_raw(object) };
        self.head = child.link().get();
        Some(child)
    }
}

impl<R: Linked> Drop for List<R> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}
