//! Wakers of children. A waker's data pointer is a counted reference to its child.

// Implements the functions of a `RawWakerVTable`.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::child_ref::{ChildRef, Header};
use super::ready::Linked;

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_waker);

/// Returns a waker of a child.
pub(super) fn waker(child: &ChildRef) -> Waker {
    // SAFETY: `raw` consumes a reference to the child, which the functions in `VTABLE` take the
    // data pointer for. A `ChildRef` may be used and dropped on any thread, as a `Waker` must be.
    unsafe { Waker::from_raw(raw(child.clone())) }
}

/// A waker that borrows its child, so that polling costs no reference count.
pub(super) struct BorrowedWaker<'a>(ManuallyDrop<Waker>, PhantomData<&'a ChildRef>);

impl<'a> BorrowedWaker<'a> {
    pub(super) fn new(child: &'a ChildRef) -> Self {
        // SAFETY: the waker counts as a reference that it does not own. It is never dropped
        // (`ManuallyDrop`, and only a `&Waker` is given out), and the borrowed reference keeps the
        // child alive for as long as it exists.
        let waker = unsafe { Waker::new(data(child), &VTABLE) };
        BorrowedWaker(ManuallyDrop::new(waker), PhantomData)
    }
}

impl Deref for BorrowedWaker<'_> {
    type Target = Waker;

    fn deref(&self) -> &Waker {
        &self.0
    }
}

fn data(child: &ChildRef) -> *const () {
    child.as_raw().as_ptr().cast_const().cast()
}

/// Turns a reference into a waker that owns it.
fn raw(child: ChildRef) -> RawWaker {
    let child = ManuallyDrop::new(child);
    RawWaker::new(data(&child), &VTABLE)
}

/// Returns the reference that a waker's data pointer is.
///
/// # Safety
///
/// `data` is the data pointer of a waker of this file. The result is not used after that waker, and
/// not dropped unless that waker is consumed.
unsafe fn child(data: *const ()) -> ManuallyDrop<ChildRef> {
    // SAFETY: `data` made the pointer from a non-null one, and wakers keep it unchanged.
    let header = unsafe { NonNull::new_unchecked(data.cast_mut().cast::<Header>()) };
    // SAFETY: the pointer came from `as_raw`. The waker holds or borrows a reference, so the child
    // lives while the waker does, and the caller drops the result only in place of the waker's
    // reference.
    ManuallyDrop::new(unsafe { ChildRef::from_raw(header) })
}

unsafe fn clone(data: *const ()) -> RawWaker {
    // SAFETY: `RawWakerVTable` promises the data pointer of a live waker with this vtable. The
    // result is not dropped.
    let child = unsafe { child(data) };
    raw(ChildRef::clone(&child))
}

unsafe fn wake(data: *const ()) {
    // SAFETY: `RawWakerVTable` promises the data pointer of a waker with this vtable, which this
    // call consumes: its reference is dropped here.
    let child = ManuallyDrop::into_inner(unsafe { child(data) });
    child.wake();
}

unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: `RawWakerVTable` promises the data pointer of a live waker with this vtable. The
    // result is not dropped.
    unsafe { child(data) }.wake();
}

unsafe fn drop_waker(data: *const ()) {
    // SAFETY: `RawWakerVTable` promises the data pointer of a waker with this vtable, which this
    // call consumes.
    drop(ManuallyDrop::into_inner(unsafe { child(data) }));
}
