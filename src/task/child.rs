//! One child: its future or result, its wake-up state, its reference count and its name if it was given one, in one
//! allocation.
//!
//! A [`Child`] is shared by the nursery's block, which polls it, by the [`Task`](super::Task), which takes its result,
//! and by wakers on any thread. What each may touch:
//!
//! * **The block** alone polls and drops the future, and uses `index` and `node`. A waker never does: it may fire on
//!   another thread, after everything that the future borrows is gone.
//! * **Whoever set `QUEUED`** owns `next` and the right to push, until the block takes the child from the stack and
//!   clears the flag.
//! * **The result** belongs to the block until it sets `OUTPUT`, then to the task; the task gives its share up by
//!   clearing `HANDLE`. Both are read-modify-write operations on `state`, so exactly one of the two sees the other's
//!   and drops a result that nobody will take.
//!
//! Memory is freed by whoever lets go last. By then the future and the result are gone: the block drops every child that
//! it has, and every child in the stack when it closes that. So freeing runs no code of theirs, and it does not matter on
//! which thread it happens. Should a block be prevented from that (a foreign waker that panics while it works), what is
//! left is leaked: [`Child::stage`] is never dropped with the memory, because that may be after everything that the future
//! borrows is gone.

// A reference-counted, type-erased future with hand-made wakers; every block is argued where it stands.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use super::info::{Name, TaskId, TaskInfo, TaskRef, default_name};
use super::ready::Core;
use crate::cancel::NodeId;
use crate::instrument;
use crate::sys::primitives::{AtomicUsize, AtomicWaker, Cell as StdCell, fence};

/// The child is in the ready stack, or about to be pushed.
const QUEUED: usize = 1;
/// The future is gone. Waking does nothing any more.
const DONE: usize = 1 << 1;
/// A result lies ready for the task. Only together with `DONE`.
const OUTPUT: usize = 1 << 2;
/// There is a task that may take the result.
const HANDLE: usize = 1 << 3;
/// The task asked for this child to be cancelled.
const CANCEL: usize = 1 << 4;
/// Whoever spawned the child has told the run's instruments of it. Never changes.
const ANNOUNCED: usize = 1 << 5;
/// One reference; the count fills the bits from here up.
const REFERENCE: usize = 1 << 6;

/// Not in the block's list of children.
const UNLISTED: u32 = u32::MAX;

/// The part of a child that does not depend on its type.
pub(super) struct Header {
    state: AtomicUsize,
    /// The ready stack's link.
    pub(super) next: StdCell<*mut Header>,
    core: Arc<Core>,
    vtable: &'static VTable,
    /// Whoever awaits the task.
    awaiter: AtomicWaker,
    /// Where the block keeps this child.
    index: StdCell<u32>,
    /// The child's node in the scope tree, once it has one.
    node: StdCell<Option<NodeId>>,
    id: TaskId,
}

#[repr(C)]
struct Child<F: Future> {
    // First, so that a pointer to the child is a pointer to its header.
    header: Header,
    /// Emptied by whom it belongs to; never dropped with the memory.
    stage: UnsafeCell<ManuallyDrop<Stage<F>>>,
}

/// A child that was given a name. Only its memory is handled otherwise, so the rest need not know.
#[repr(C)]
struct Named<F: Future> {
    // First, so that a pointer to this is one to the child.
    child: Child<F>,
    name: Name,
}

enum Stage<F: Future> {
    Running(F),
    Finished(F::Output),
    Empty,
}

/// What depends on the type. Every function takes a pointer to a live child of that type.
struct VTable {
    /// Polls the future, and puts its result in its place. Only for the block, and not after `DONE`.
    poll: unsafe fn(NonNull<Header>, &mut Context<'_>) -> Poll<()>,
    /// Drops the future or the result. Only for whom it belongs to.
    clear: unsafe fn(NonNull<Header>),
    /// Moves the result to the place pointed to, which holds an `Option<F::Output>`. Only for whom it belongs to.
    take: unsafe fn(NonNull<Header>, NonNull<()>),
    /// Frees the memory. Only for the last reference.
    free: unsafe fn(NonNull<Header>),
    /// The child's name, which lives as long as the child or longer.
    name: unsafe fn(NonNull<Header>) -> *const str,
}

/// The functions for a `Child<F>` that is called after the type `N`.
struct CalledAfter<F, N>(PhantomData<(F, N)>);

impl<F: Future, N> CalledAfter<F, N> {
    const VTABLE: VTable = VTable {
        poll: Child::<F>::poll,
        clear: Child::<F>::clear,
        take: Child::<F>::take,
        free: Child::<F>::free,
        name: Self::name,
    };

    unsafe fn name(_: NonNull<Header>) -> *const str {
        default_name(std::any::type_name::<N>())
    }
}

impl Header {
    /// The header of a child that is about to be pushed. Inline, so that it is written where it stays.
    #[inline(always)]
    fn new(core: &Arc<Core>, vtable: &'static VTable, announced: bool) -> Self {
        let announced = if announced { ANNOUNCED } else { 0 };
        Header {
            // Two references: the stack's, and the handle's.
            state: AtomicUsize::new(QUEUED | HANDLE | announced | (2 * REFERENCE)),
            next: StdCell::new(std::ptr::null_mut()),
            core: core.clone(),
            vtable,
            awaiter: AtomicWaker::new(),
            index: StdCell::new(UNLISTED),
            node: StdCell::new(None),
            id: TaskId::next(),
        }
    }
}

impl<F: Future> Named<F> {
    /// Makes a child on the heap.
    #[cold]
    #[inline(never)]
    fn leak(core: &Arc<Core>, name: Name, announced: bool, future: F) -> NonNull<Header> {
        let named = Box::new(Named {
            child: Child {
                header: Header::new(core, &Self::VTABLE, announced),
                stage: UnsafeCell::new(ManuallyDrop::new(Stage::Running(future))),
            },
            name,
        });
        NonNull::from(Box::leak(named)).cast()
    }

    const VTABLE: VTable = VTable {
        poll: Child::<F>::poll,
        clear: Child::<F>::clear,
        take: Child::<F>::take,
        free: Self::free,
        name: Self::name,
    };

    unsafe fn name(header: NonNull<Header>) -> *const str {
        // SAFETY: only `leak` gives this vtable, to the header of a `Named<F>`, which is `repr(C)` with the child and so the
        // header first; the name never changes, so it may be read by anybody who keeps the child.
        let name: &Name = unsafe { &(*header.cast::<Named<F>>().as_ptr()).name };
        &**name
    }

    unsafe fn free(header: NonNull<Header>) {
        // SAFETY: the child was made by `Box::new` in `leak`, which alone gives this vtable, and the caller holds the last
        // reference.
        drop(unsafe { Box::from_raw(header.cast::<Named<F>>().as_ptr()) });
    }
}

impl<F: Future> Child<F> {
    /// The stage of the child at `header`.
    ///
    /// # Safety
    ///
    /// `header` points to a live `Child<F>`, and its stage belongs to the caller for as long as the result is used.
    unsafe fn stage<'a>(header: NonNull<Header>) -> &'a mut Stage<F> {
        // SAFETY: `Child` is `repr(C)` with the header first, and headers are only ever made as part of one, so the
        // pointer, whose provenance is the whole allocation, is also one to the child. Exclusive use is the caller's.
        unsafe { &mut *(*header.cast::<Child<F>>().as_ptr()).stage.get() }
    }

    unsafe fn poll(header: NonNull<Header>, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: passed on; the block calls, before `DONE`, when the stage is its own.
        let stage = unsafe { Self::stage(header) };
        let Stage::Running(future) = stage else {
            unreachable!("a child is polled while it runs");
        };
        // SAFETY: the future lies in an allocation that never moves and is dropped in place: by the assignment below,
        // or by `clear`.
        let future = unsafe { Pin::new_unchecked(future) };
        future
            .poll(cx)
            .map(|output| *stage = Stage::Finished(output))
    }

    unsafe fn clear(header: NonNull<Header>) {
        // SAFETY: passed on.
        let stage = unsafe { Self::stage(header) };
        // Also if the drop panics, the new value is in its place.
        *stage = Stage::Empty;
    }

    unsafe fn take(header: NonNull<Header>, to: NonNull<()>) {
        // SAFETY: passed on.
        let stage = unsafe { Self::stage(header) };
        if let Stage::Finished(output) = std::mem::replace(stage, Stage::Empty) {
            // SAFETY: the caller says that an `Option<F::Output>` is there, which is its own.
            unsafe { *to.cast::<Option<F::Output>>().as_ptr() = Some(output) };
        }
    }

    unsafe fn free(header: NonNull<Header>) {
        // SAFETY: the child was made by `Box::new` in `spawn`, as a `Child<F>` because it has this function in its vtable,
        // and the caller holds the last reference.
        drop(unsafe { Box::from_raw(header.cast::<Child<F>>().as_ptr()) });
    }
}

/// Makes a child and hands it to the nursery. Gives the future back if the block has ended. A child without a `name` is
/// called after the type `N`: its future's, or that of which its future is made.
///
/// # Safety
///
/// If the block is polled or dropped on another thread than this one, `F` must be `Send`. `F` must be valid for as long
/// as the block may poll or drop it, and `F::Output` for as long as the block or the handle may.
pub(super) unsafe fn spawn<F: Future, N>(
    core: &Arc<Core>,
    name: Option<&Name>,
    future: F,
) -> Result<Handle, F> {
    if core.is_closed() {
        return Err(future);
    }
    let observed = core.is_observed();
    let header = match name {
        // A pointer with the provenance of the whole allocation, which holds what the vtable says.
        None => NonNull::from(Box::leak(Box::new(Child {
            header: Header::new(core, &CalledAfter::<F, N>::VTABLE, observed),
            stage: UnsafeCell::new(ManuallyDrop::new(Stage::Running(future))),
        })))
        .cast::<Header>(),
        Some(name) => Named::leak(core, name.clone(), observed, future),
    };
    let handle = Handle {
        child: ManuallyDrop::new(ChildRef(header)),
        awaited: false,
    };
    match core.push(ChildRef(header)) {
        Ok(()) => {
            if observed {
                // The block is polled by this thread, so not before we return.
                handle.announce();
            }
            Ok(handle)
        }
        Err(refused) => {
            // SAFETY: nobody else has seen the child, so its stage is ours.
            let stage = unsafe { Child::<F>::stage(header) };
            let Stage::Running(future) = std::mem::replace(stage, Stage::Empty) else {
                unreachable!("the child never ran");
            };
            drop((refused, handle));
            Err(future)
        }
    }
}

/// A counted reference to a child.
pub(super) struct ChildRef(NonNull<Header>);

// SAFETY: a reference by itself gives access only to what any thread may use: `state`, `core` and `awaiter`, which are
// atomic or `Sync`, `id`, `name` and `vtable`, which never change, and the memory. What belongs to the block alone is
// behind `unsafe` methods.
unsafe impl Send for ChildRef {}
// SAFETY: as above.
unsafe impl Sync for ChildRef {}

impl ChildRef {
    pub(super) fn into_raw(self) -> *mut Header {
        ManuallyDrop::new(self).0.as_ptr()
    }

    /// # Safety
    ///
    /// `raw` came from [`into_raw`](ChildRef::into_raw), and is turned back once.
    pub(super) unsafe fn from_raw(raw: *mut Header) -> Self {
        // SAFETY: `into_raw` gave a non-null pointer.
        ChildRef(unsafe { NonNull::new_unchecked(raw) })
    }

    pub(super) fn as_ptr(&self) -> NonNull<Header> {
        self.0
    }

    /// Counts another reference.
    ///
    /// # Safety
    ///
    /// `header` came from [`as_ptr`](ChildRef::as_ptr) or [`into_raw`](ChildRef::into_raw), and somebody has a reference
    /// until this returns.
    pub(super) unsafe fn counted(header: NonNull<Header>) -> Self {
        // Not one that is given up: that one is somebody else's.
        ChildRef::clone(&ManuallyDrop::new(ChildRef(header)))
    }

    pub(super) fn id(&self) -> TaskId {
        self.header().id
    }

    pub(super) fn name(&self) -> &str {
        // SAFETY: the function belongs to this child, which we keep as long as the result is borrowed.
        unsafe { &*(self.header().vtable.name)(self.0) }
    }

    /// What the child's nursery shares.
    pub(super) fn core(&self) -> &Arc<Core> {
        &self.header().core
    }

    pub(super) fn info(&self) -> TaskInfo {
        TaskInfo::new(TaskRef::Child(self.clone()))
    }

    /// Whether the run's instruments were told of it by who spawned it.
    pub(super) fn is_announced(&self) -> bool {
        self.header().state.load(Ordering::Relaxed) & ANNOUNCED != 0
    }

    fn header(&self) -> &Header {
        // SAFETY: a counted reference keeps the allocation alive, and the parts of the header that are not atomic are
        // only touched by those whom they belong to.
        unsafe { self.0.as_ref() }
    }

    /// A waker of this child's.
    pub(super) fn waker(&self) -> Waker {
        let raw = RawWaker::new(self.clone().into_raw().cast_const().cast(), &WAKER);
        // SAFETY: the functions of `WAKER` keep `RawWaker`'s contract, and the clone's count is the waker's.
        unsafe { Waker::from_raw(raw) }
    }

    /// Takes the child out of the queue: from now on a wake-up queues it again. False if it is done.
    pub(super) fn dequeue(&self) -> bool {
        // Acquire: what was done before the wake-up is visible to the poll that follows.
        self.header().state.fetch_and(!QUEUED, Ordering::AcqRel) & DONE == 0
    }

    /// Whether the future is gone.
    pub(super) fn is_done(&self) -> bool {
        self.header().state.load(Ordering::Acquire) & DONE != 0
    }

    pub(super) fn cancel_requested(&self) -> bool {
        self.header().state.load(Ordering::Acquire) & CANCEL != 0
    }

    /// Polls the future. `Ready` means that it is gone, and its result handed over.
    ///
    /// # Safety
    ///
    /// The caller is the block that this child belongs to, and the child is not done.
    pub(super) unsafe fn poll(&self) -> Poll<()> {
        let header = self.header();
        // A waker that is lent: it does not count, and is not dropped.
        let raw = RawWaker::new(self.0.as_ptr().cast_const().cast(), &WAKER);
        // SAFETY: the functions of `WAKER` keep `RawWaker`'s contract, and our reference outlives the loan.
        let waker = ManuallyDrop::new(unsafe { Waker::from_raw(raw) });
        // SAFETY: passed on.
        let polled = unsafe { (header.vtable.poll)(self.0, &mut Context::from_waker(&waker)) };
        if polled.is_ready() {
            let before = header.state.fetch_or(DONE | OUTPUT, Ordering::AcqRel);
            if before & HANDLE == 0 {
                // SAFETY: the task was gone before it could see `OUTPUT`, so the result is still the block's.
                unsafe { (header.vtable.clear)(self.0) };
            } else {
                header.awaiter.wake();
            }
        }
        polled
    }

    /// Drops the future; there will be no result.
    ///
    /// # Safety
    ///
    /// The caller is the block that this child belongs to, and the child is not done.
    pub(super) unsafe fn discard(&self) {
        /// Ends the child also if the drop panics.
        struct End<'a>(&'a Header);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                // Without a task nobody awaits it: the task takes its waker with it.
                if self.0.state.fetch_or(DONE, Ordering::AcqRel) & HANDLE != 0 {
                    self.0.awaiter.wake();
                }
            }
        }
        let end = End(self.header());
        // SAFETY: passed on; before `DONE` the stage is the block's.
        unsafe { (end.0.vtable.clear)(self.0) };
    }

    /// Where the block keeps this child.
    ///
    /// # Safety
    ///
    /// The caller is the block that this child belongs to.
    pub(super) unsafe fn index(&self) -> Option<usize> {
        let index = self.header().index.get();
        (index != UNLISTED).then_some(index as usize)
    }

    /// # Safety
    ///
    /// The caller is the block that this child belongs to.
    pub(super) unsafe fn set_index(&self, index: usize) {
        let index = u32::try_from(index).ok().filter(|&index| index != UNLISTED);
        self.header()
            .index
            .set(index.expect("fewer than 2^32 children in one nursery"));
    }

    /// The child's node in the scope tree.
    ///
    /// # Safety
    ///
    /// The caller is the block that this child belongs to.
    pub(super) unsafe fn node(&self) -> Option<NodeId> {
        self.header().node.get()
    }

    /// # Safety
    ///
    /// The caller is the block that this child belongs to.
    pub(super) unsafe fn set_node(&self, node: Option<NodeId>) {
        self.header().node.set(node);
    }

    fn wake(&self) {
        let header = self.header();
        // Also when there is nothing to do this is a read-modify-write, so that the poll which follows, and which
        // begins by clearing the flag, sees what was done before this wake-up.
        if header.state.fetch_or(QUEUED, Ordering::AcqRel) & (QUEUED | DONE) == 0 {
            // Refused when the block has ended: then there is nobody left to poll.
            drop(header.core.push(self.clone()));
        }
    }
}

impl Clone for ChildRef {
    fn clone(&self) -> Self {
        let before = self.header().state.fetch_add(REFERENCE, Ordering::Relaxed);
        if before > usize::MAX / 2 {
            // References were leaked in a loop. A count that overflows would free memory that is in use.
            std::process::abort();
        }
        ChildRef(self.0)
    }
}

impl Drop for ChildRef {
    fn drop(&mut self) {
        release(self.0);
    }
}

/// Lets go of one reference, and frees the child if that was the last.
fn release(child: NonNull<Header>) {
    // SAFETY: the reference that is given up here has kept the header alive until now.
    let header = unsafe { child.as_ref() };
    let vtable = header.vtable;
    let before = header.state.fetch_sub(REFERENCE, Ordering::Release);
    free_after(before, child, vtable);
}

/// Frees the child if the reference that was taken out of the state `before` was the last.
fn free_after(before: usize, child: NonNull<Header>, vtable: &VTable) {
    if before / REFERENCE == 1 {
        // All that others did with the child happens before it is freed.
        fence(Ordering::Acquire);
        // SAFETY: that was the last reference.
        unsafe { (vtable.free)(child) };
    }
}

static WAKER: RawWakerVTable =
    RawWakerVTable::new(waker_clone, waker_wake, waker_wake_by_ref, waker_drop);

/// Borrows the reference that a waker's data pointer stands for.
///
/// # Safety
///
/// `data` is the data pointer of a waker made by this file, which lives at least as long as the result is used.
unsafe fn borrow(data: *const ()) -> ManuallyDrop<ChildRef> {
    // SAFETY: the pointer was made from a live `ChildRef`, in `poll` or in `waker_clone`.
    ManuallyDrop::new(unsafe { ChildRef::from_raw(data.cast_mut().cast()) })
}

unsafe fn waker_clone(data: *const ()) -> RawWaker {
    // SAFETY: passed on. The clone's count is the new waker's.
    let clone = ChildRef::clone(&*unsafe { borrow(data) });
    RawWaker::new(clone.into_raw().cast_const().cast(), &WAKER)
}

unsafe fn waker_wake(data: *const ()) {
    // SAFETY: passed on; `wake` takes the waker with it, and so its reference.
    let child = ManuallyDrop::into_inner(unsafe { borrow(data) });
    child.wake();
}

unsafe fn waker_wake_by_ref(data: *const ()) {
    // SAFETY: passed on.
    unsafe { borrow(data) }.wake();
}

unsafe fn waker_drop(data: *const ()) {
    // SAFETY: passed on; the waker's reference goes with it.
    drop(ManuallyDrop::into_inner(unsafe { borrow(data) }));
}

/// The task's share of a child: the right to its result.
pub(super) struct Handle {
    child: ManuallyDrop<ChildRef>,
    /// Somebody has waited for the result.
    awaited: bool,
}

impl Handle {
    /// Asks the block to end this child.
    pub(super) fn request_cancel(&self) {
        self.child.header().state.fetch_or(CANCEL, Ordering::AcqRel);
        self.child.wake();
    }

    pub(super) fn is_done(&self) -> bool {
        self.child.is_done()
    }

    pub(super) fn info(&self) -> TaskInfo {
        self.child.info()
    }

    /// Tells the run's instruments that the child was spawned.
    #[cold]
    #[inline(never)]
    fn announce(&self) {
        instrument::task_spawned(&self.info());
    }

    /// Takes the result, once the child is done: `None` if it was dropped before it had one.
    ///
    /// # Safety
    ///
    /// `T` is the output type of the future that this handle was spawned with.
    pub(super) unsafe fn poll_output<T>(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if !self.is_done() {
            self.awaited = true;
            self.child.header().awaiter.register(cx.waker());
            // It may have ended before the waker was there to be woken.
            if !self.is_done() {
                return Poll::Pending;
            }
        }
        let header = self.child.header();
        let before = header.state.fetch_and(!OUTPUT, Ordering::AcqRel);
        let mut output = None::<T>;
        if before & OUTPUT != 0 {
            // SAFETY: `OUTPUT`, seen with acquire, makes the result ours; clearing it makes sure that it is taken once.
            // The place has the type that the caller vouches for.
            unsafe { (header.vtable.take)(self.child.0, NonNull::from(&mut output).cast()) };
        }
        Poll::Ready(output)
    }
}

impl Handle {
    /// Gives up the right to the result and the reference in one step, if there is no result yet.
    fn leave_before_the_result(&self) -> bool {
        let header = self.child.header();
        let vtable = header.vtable;
        // Acquire, here and below: if `OUTPUT` is seen, the result is the caller's to drop.
        let mut state = header.state.load(Ordering::Acquire);
        while state & OUTPUT == 0 {
            let left = state - (HANDLE + REFERENCE);
            // Release: whoever frees the child does so after what was done with it here.
            match header.state.compare_exchange_weak(
                state,
                left,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(before) => {
                    free_after(before, self.child.0, vtable);
                    return true;
                }
                Err(now) => state = now,
            }
        }
        false
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        /// Lets go also if the drop of a waker or of the result panics.
        struct Leave<'a>(&'a Handle);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                if self.0.leave_before_the_result() {
                    return;
                }
                /// As above.
                struct Release(NonNull<Header>);
                impl Drop for Release {
                    fn drop(&mut self) {
                        release(self.0);
                    }
                }
                let child = self.0.child.0;
                let _release = Release(child);
                // SAFETY: `OUTPUT` makes the result ours, and nobody has taken it.
                unsafe { (self.0.child.header().vtable.clear)(child) };
            }
        }
        let leave = Leave(self);
        if leave.0.awaited {
            // Nobody waits any more. A waker that stayed here could keep this very child alive, for ever: its own, if it
            // waited for itself, or that of a sibling that it waited for in turn.
            drop(leave.0.child.header().awaiter.take());
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("done", &self.is_done())
            .finish_non_exhaustive()
    }
}
