//! The allocation of a child: its header, its future or result, and its name if it was given one.

// The functions of `VTable`, each for one type of future.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::future::Future;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::child_ref::{ChildRef, Header, NurseryState, VTable};
use super::lost::report_lost;
use super::name::default_name;
use super::raw_task::RawTask;

/// A name that a child was given.
pub(super) type Name = Arc<str>;

#[repr(C)]
struct Child<F: Future> {
    // First, so that a pointer to the child is one to its header.
    header: Header,
    /// Emptied by its owner; never dropped with the memory.
    stage: UnsafeCell<ManuallyDrop<Stage<F>>>,
}

/// A child that was given a name.
#[repr(C)]
struct NamedChild<F: Future> {
    // First, so that a pointer to this is one to the child.
    child: Child<F>,
    name: Name,
}

enum Stage<F: Future> {
    Running(F),
    Finished(F::Output),
    Empty,
}

impl<F: Future> Child<F> {
    #[inline(always)]
    fn new(
        nursery: &Arc<NurseryState>,
        vtable: &'static VTable,
        announced: bool,
        future: F,
    ) -> Self {
        Child {
            header: Header::new(nursery, vtable, announced),
            stage: UnsafeCell::new(ManuallyDrop::new(Stage::Running(future))),
        }
    }

    /// Returns the stage of the child at `header`.
    ///
    /// # Safety
    ///
    /// `header` points to a live `Child<F>`, and its stage belongs to the caller while the result
    /// is used.
    unsafe fn stage<'a>(header: NonNull<Header>) -> &'a mut Stage<F> {
        // SAFETY: `Child` is `repr(C)` with the header first, and the pointer has the provenance of
        // the whole allocation, so it is also a pointer to the child. By the contract the child
        // lives and no other reference to the stage is in use.
        unsafe { &mut *(*header.cast::<Child<F>>().as_ptr()).stage.get() }
    }

    /// The contract is that of [`VTable::poll`].
    unsafe fn poll(header: NonNull<Header>, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: this function is only in vtables of a `Child<F>`. The caller is the block, and
        // the stage is the block's before `DONE`.
        let stage = unsafe { Self::stage(header) };
        let Stage::Running(future) = stage else {
            unreachable!("a child is polled while it runs");
        };
        // SAFETY: the future is in an allocation that never moves, and is dropped in place: by the
        // assignment below or by `clear`.
        let future = unsafe { Pin::new_unchecked(future) };
        future
            .poll(cx)
            .map(|output| *stage = Stage::Finished(output))
    }

    /// The contract is that of [`VTable::clear`].
    unsafe fn clear(header: NonNull<Header>) {
        /// Clears the stage also if a `tracing` subscriber panics.
        struct Clear<'a, F: Future>(&'a mut Stage<F>);
        impl<F: Future> Drop for Clear<'_, F> {
            fn drop(&mut self) {
                // The new value is stored even if the drop of the old one panics.
                *self.0 = Stage::Empty;
            }
        }
        // SAFETY: this function is only in vtables of a `Child<F>`. The caller owns the future or
        // result.
        let stage = Clear(unsafe { Self::stage(header) });
        if let Stage::Finished(result) = &stage.0 {
            report_lost(result, || {
                // SAFETY: the child lives, and its header and name are read by any thread. The name
                // lives until the copy is made.
                unsafe { &*(header.as_ref().vtable.name)(header) }.to_owned()
            });
        }
    }

    /// The contract is that of [`VTable::take`].
    unsafe fn take(header: NonNull<Header>, to: NonNull<()>) {
        // SAFETY: this function is only in vtables of a `Child<F>`. The caller owns the result.
        let stage = unsafe { Self::stage(header) };
        if let Stage::Finished(output) = std::mem::replace(stage, Stage::Empty) {
            // SAFETY: the caller owns the `Option<F::Output>` at `to`.
            unsafe { *to.cast::<Option<F::Output>>().as_ptr() = Some(output) };
        }
    }
}

/// A child that is named after the type `N`.
struct Unnamed<F, N>(PhantomData<(F, N)>);

impl<F: Future, N> Unnamed<F, N> {
    const VTABLE: VTable = VTable {
        poll: Child::<F>::poll,
        clear: Child::<F>::clear,
        take: Child::<F>::take,
        free: Self::free,
        name: Self::name,
    };

    /// The contract is that of [`VTable::name`].
    unsafe fn name(_: NonNull<Header>) -> *const str {
        default_name(std::any::type_name::<N>())
    }

    /// The contract is that of [`VTable::free`].
    unsafe fn free(header: NonNull<Header>) {
        // SAFETY: `spawn` made this child by leaking a box of a `Child<F>`, because it has this
        // vtable. The last reference is gone.
        drop(unsafe { Box::from_raw(header.cast::<Child<F>>().as_ptr()) });
    }
}

impl<F: Future> NamedChild<F> {
    const VTABLE: VTable = VTable {
        poll: Child::<F>::poll,
        clear: Child::<F>::clear,
        take: Child::<F>::take,
        free: Self::free,
        name: Self::name,
    };

    /// Makes a child on the heap.
    #[cold]
    #[inline(never)]
    fn leak(
        nursery: &Arc<NurseryState>,
        name: Name,
        announced: bool,
        future: F,
    ) -> NonNull<Header> {
        let child = Child::new(nursery, &Self::VTABLE, announced, future);
        NonNull::from(Box::leak(Box::new(NamedChild { child, name }))).cast()
    }

    /// The contract is that of [`VTable::name`].
    unsafe fn name(header: NonNull<Header>) -> *const str {
        // SAFETY: only `leak` uses this vtable, for the header of a `NamedChild<F>`, which is
        // `repr(C)` and begins with it. The child lives by the contract, and its name never
        // changes, so any thread may read it.
        let name: &Name = unsafe { &(*header.cast::<NamedChild<F>>().as_ptr()).name };
        &**name
    }

    /// The contract is that of [`VTable::free`].
    unsafe fn free(header: NonNull<Header>) {
        // SAFETY: only `leak` uses this vtable, for a leaked box of a `NamedChild<F>`. The last
        // reference is gone.
        drop(unsafe { Box::from_raw(header.cast::<NamedChild<F>>().as_ptr()) });
    }
}

/// Makes a child and makes the block poll it. Gives the future back if the block has ended.
///
/// A child without a `name` is named after the type `N`. `announced` says that the caller tells the
/// run's instruments of it.
///
/// # Safety
///
/// If the block is polled or dropped on another thread than this one, `F` must be `Send`. `F` must
/// be valid for as long as the block may poll or drop it, and `F::Output` for as long as the block
/// or the task may.
pub(super) unsafe fn spawn<F: Future, N>(
    nursery: &Arc<NurseryState>,
    name: Option<&Name>,
    announced: bool,
    future: F,
) -> Result<RawTask, F> {
    if nursery.children.is_closed() {
        return Err(future);
    }
    let header = match name {
        None => {
            // Memory first, so that each field is written there and not copied: a wide copy of
            // fields that were just written has to wait for these writes.
            let memory = Box::new_uninit();
            let vtable = &Unnamed::<F, N>::VTABLE;
            let child = Box::write(memory, Child::new(nursery, vtable, announced, future));
            // Cast from the box: the pointer has the provenance of the whole allocation.
            NonNull::from(Box::leak(child)).cast::<Header>()
        }
        Some(name) => NamedChild::leak(nursery, name.clone(), announced, future),
    };
    // SAFETY: the child was just made, with two counted references. This is the first.
    let child = unsafe { ChildRef::new(header) };
    // SAFETY: this is the second of the two counted references. A new child has its `HANDLE` flag
    // and no other task.
    let task = unsafe { RawTask::new(ChildRef::new(header)) };
    // SAFETY: the child was made for this nursery. It is in no list, and no other thread has a
    // reference to it.
    match unsafe { nursery.push(child) } {
        Ok(()) => Ok(task),
        Err(refused) => {
            // SAFETY: the vtable is one of a `Child<F>`. The push was refused, so only this
            // function has seen the child.
            let stage = unsafe { Child::<F>::stage(header) };
            let Stage::Running(future) = std::mem::replace(stage, Stage::Empty) else {
                unreachable!("the child never ran");
            };
            drop((refused, task));
            Err(future)
        }
    }
}
