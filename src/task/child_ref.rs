//! References to children of any type, and the state that a nursery's block, handles and wakers
//! share.
//!
//! A child is one allocation: a [`Header`] of this file and, behind it, the future or its result
//! (`child`). It is shared by the block, which polls it, by the [`Task`](super::Task), which takes
//! the result, and by wakers on any thread:
//!
//! * **The block** alone polls and drops the future, and uses `index` and `node`. A waker never
//!   does, because it may be used after everything is gone that the future borrows.
//! * **The thread that set `QUEUED`** has the right to push the child, until the block clears the
//!   flag.
//! * **The result** belongs to the block until it sets `OUTPUT`, then to the task. The task gives
//!   up its claim by clearing `HANDLE`. Both are read-modify-write operations, so exactly one side
//!   sees the other's and drops an unwanted result.
//!
//! The last reference frees the memory, on any thread. The block drops the future of each child
//! before it ends, and the task drops the result, so freeing runs no code of the user. A block that
//! cannot do so, because a waker of another library panics, leaks its children.

// Counts references and calls functions that depend on the child's type.
#![allow(unsafe_code)]

use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize as StdAtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake};

use super::children::{Children, Listed, UNLISTED};
use super::ids::{RunId, TaskId};
use super::ready::{Linked, Pushed};
use crate::ambient::TreeValues;
use crate::cancel::{CancelScope, NodeId};
use crate::sys::primitives::{AtomicBool, AtomicUsize, AtomicWaker, Cell, fence};
use crate::wait::{Wait, WaitCell};

/// The child is in the ready stack, or about to be pushed.
pub(super) const QUEUED: usize = 1;
/// The future is gone. Waking has no effect any more.
pub(super) const DONE: usize = 1 << 1;
/// The task may take the result. Only together with `DONE`.
pub(super) const OUTPUT: usize = 1 << 2;
/// The child has a task.
pub(super) const HANDLE: usize = 1 << 3;
/// The task has requested that the child be cancelled.
pub(super) const CANCEL: usize = 1 << 4;
/// The run's instruments have been told of the child when it was spawned. Never changes.
pub(super) const ANNOUNCED: usize = 1 << 5;
/// One reference. The count fills the bits from here up.
pub(super) const REFERENCE: usize = 1 << 6;

/// The part of a child that does not depend on its type.
pub(super) struct Header {
    pub(super) state: AtomicUsize,
    /// Belongs to the ready stack.
    link: Cell<*mut Header>,
    nursery: Arc<NurseryState>,
    pub(super) vtable: &'static VTable,
    /// Wakes the task that awaits the result.
    pub(super) awaiter: AtomicWaker,
    /// Belongs to the block's list.
    index: Cell<u32>,
    /// The event for which the child waits, if it is not queued.
    pub(super) wait: WaitCell,
    /// The child's node in the scope tree, once it has one. Belongs to the block.
    pub(super) node: Cell<Option<NodeId>>,
    id: TaskId,
}

const _: () = assert!(align_of::<Header>() > 2);

/// The functions that depend on the child's type. Each takes a pointer to a live child of that
/// type.
pub(super) struct VTable {
    /// Polls the future, and stores its result. The caller is the block, and the child is not
    /// `DONE`.
    pub(super) poll: unsafe fn(NonNull<Header>, &mut Context<'_>) -> Poll<()>,
    /// Drops the future or the result. The caller owns it.
    pub(super) clear: unsafe fn(NonNull<Header>),
    /// Moves the result into the `Option<F::Output>` at the second pointer. The caller owns both.
    pub(super) take: unsafe fn(NonNull<Header>, NonNull<()>),
    /// Frees the memory. The caller has given up the last reference.
    pub(super) free: unsafe fn(NonNull<Header>),
    /// Returns the child's name, which lives as long as the child.
    pub(super) name: unsafe fn(NonNull<Header>) -> *const str,
}

impl Header {
    /// Makes the header of a child that is about to be pushed and has a task. Inlined, so that it
    /// is written in place.
    #[inline(always)]
    pub(super) fn new(
        nursery: &Arc<NurseryState>,
        vtable: &'static VTable,
        announced: bool,
    ) -> Self {
        let announced = if announced { ANNOUNCED } else { 0 };
        Header {
            // Two references: the stack's and the task's.
            state: AtomicUsize::new(QUEUED | HANDLE | announced | (2 * REFERENCE)),
            link: Cell::new(std::ptr::null_mut()),
            nursery: nursery.clone(),
            vtable,
            awaiter: AtomicWaker::new(),
            index: Cell::new(UNLISTED),
            wait: WaitCell::new(),
            node: Cell::new(None),
            id: TaskId::next(),
        }
    }
}

/// A counted reference to a child.
pub(super) struct ChildRef(NonNull<Header>);

// SAFETY: through a reference, any thread may use `state`, `nursery`, `wait` and `awaiter`, which
// are `Sync`, `id` and `vtable`, which never change, the name (by `vtable.name`, whose contract is
// the same), and free the memory, which runs no code of the user. The cells are used by their
// owners only: `link` by the list that the child is in, `index` and `node` by methods that take an
// `Own`, which only the thread that polls the block has. The future and the result are behind
// unsafe functions.
unsafe impl Send for ChildRef {}
// SAFETY: a `&ChildRef` gives access to the same parts as a `ChildRef`, and to the reference count
// by `clone`, which is atomic. The parts that any thread may use are `Sync` or never change; the
// cells are used only by their owners, and the future and the result only by unsafe functions.
unsafe impl Sync for ChildRef {}

impl ChildRef {
    /// Takes over one count of a child that was just made.
    ///
    /// # Safety
    ///
    /// `header` points to the header of a live child, with the provenance of the child's whole
    /// allocation. One count of its references belongs to the result.
    pub(super) unsafe fn new(header: NonNull<Header>) -> Self {
        ChildRef(header)
    }

    pub(super) fn id(&self) -> TaskId {
        self.header().id
    }

    pub(super) fn name(&self) -> &str {
        // SAFETY: the function came with this child, which lives as long as this reference, which
        // the result borrows.
        unsafe { &*(self.header().vtable.name)(self.0) }
    }

    pub(super) fn nursery(&self) -> &Arc<NurseryState> {
        &self.header().nursery
    }

    pub(super) fn header(&self) -> &Header {
        // SAFETY: this counted reference keeps the allocation alive, and nothing ever has a `&mut`
        // to a header.
        unsafe { self.0.as_ref() }
    }

    /// Tells whether the run's instruments were told of the child when it was spawned.
    pub(super) fn is_announced(&self) -> bool {
        self.header().state.load(Ordering::Relaxed) & ANNOUNCED != 0
    }

    /// Tells whether the future is gone.
    pub(super) fn is_done(&self) -> bool {
        self.header().state.load(Ordering::Acquire) & DONE != 0
    }

    /// Returns what the child waits for, as far as that is known.
    pub(super) fn wait(&self) -> Option<&'static Wait> {
        let header = self.header();
        let is_queued = header.state.load(Ordering::Relaxed) & QUEUED != 0;
        header.wait.get().filter(|_| !is_queued)
    }

    pub(super) fn is_cancel_requested(&self) -> bool {
        self.header().state.load(Ordering::Acquire) & CANCEL != 0
    }

    /// Takes back the right to push the child, so that the next wake-up queues it again. False if
    /// the child is done.
    pub(super) fn dequeue(&self) -> bool {
        // Acquire: the poll that follows sees what was done before the wake-up.
        self.header().state.fetch_and(!QUEUED, Ordering::AcqRel) & DONE == 0
    }

    /// Makes the block poll the child, unless it is queued or done.
    pub(super) fn wake(&self) {
        let header = self.header();
        // A read-modify-write even if the flag is set: the poll that clears it then sees what was
        // done before this wake-up.
        if header.state.fetch_or(QUEUED, Ordering::AcqRel) & (QUEUED | DONE) == 0 {
            // SAFETY: the child belongs to the nursery in its header. This thread has set `QUEUED`,
            // which was clear, so the child is in no list and no other thread pushes it.
            let pushed = unsafe { header.nursery.push(self.clone()) };
            // Refused if the block has ended. Then nothing polls the child any more.
            drop(pushed);
        }
    }

    /// Requests that the block cancel this child.
    pub(super) fn request_cancel(&self) {
        self.header().state.fetch_or(CANCEL, Ordering::AcqRel);
        self.wake();
    }
}

impl Clone for ChildRef {
    fn clone(&self) -> Self {
        let before = self.header().state.fetch_add(REFERENCE, Ordering::Relaxed);
        if before > usize::MAX / 2 {
            // References were leaked in a loop. A count that overflows would free memory that is in
            // use.
            std::process::abort();
        }
        ChildRef(self.0)
    }
}

impl Drop for ChildRef {
    fn drop(&mut self) {
        let vtable = self.header().vtable;
        let before = self.header().state.fetch_sub(REFERENCE, Ordering::Release);
        // SAFETY: `before` is the state from which this reference was taken out, and `self` is not
        // used again.
        unsafe { free_if_last(before, self.0, vtable) };
    }
}

/// Frees a child if the reference that was given up was the last.
///
/// # Safety
///
/// `before` is the state from which the caller has taken its reference out, and `vtable` is the
/// child's.
pub(super) unsafe fn free_if_last(before: usize, child: NonNull<Header>, vtable: &VTable) {
    if before / REFERENCE == 1 {
        // Everything that other threads did with the child happens before it is freed.
        fence(Ordering::Acquire);
        // SAFETY: the function came with this child. The count is zero, so nothing else refers to
        // the child.
        unsafe { (vtable.free)(child) };
    }
}

// SAFETY: a counted reference keeps the child alive, and a child does not move. `as_raw` and `link`
// lead to the child's one header. `link` is private to this file, which uses it nowhere else. The
// address of a header is a multiple of its alignment and not null, so it is none of the marks 0, 1
// and 2: see the assertion.
unsafe impl Linked for ChildRef {
    type Object = Header;

    fn as_raw(&self) -> NonNull<Header> {
        self.0
    }

    unsafe fn from_raw(header: NonNull<Header>) -> Self {
        ChildRef(header)
    }

    fn link(&self) -> &Cell<*mut Header> {
        &self.header().link
    }
}

impl Listed for ChildRef {
    fn index(&self) -> &Cell<u32> {
        &self.header().index
    }
}

/// The state that a nursery's block, its handles and its children's wakers share.
#[derive(Debug)]
pub(super) struct NurseryState {
    pub(super) children: Children<ChildRef>,
    body_woken: AtomicBool,
    /// The event for which the body waits, if it is not woken.
    pub(super) body_wait: WaitCell,
    /// The block's scope. Its waker is that of the task that polls the block.
    pub(super) scope: CancelScope,
    /// The task that opened the block. Each task keeps the ones above it alive, and none below it.
    pub(super) opener: Option<TaskRef>,
    /// The run in which the block was opened.
    pub(super) run: Option<RunId>,
    /// Blocks take their numbers from the same sequence as tasks.
    pub(super) id: TaskId,
    /// The block's index in its part of the registry.
    pub(super) registry_index: StdAtomicUsize,
    /// The tree variables where the block was opened, for threads that ask about them. Cleared when
    /// the block ends.
    pub(super) values: Mutex<Option<TreeValues>>,
}

impl NurseryState {
    pub(super) fn new(
        scope: CancelScope,
        opener: Option<TaskRef>,
        run: Option<RunId>,
        values: Option<TreeValues>,
    ) -> Arc<Self> {
        Arc::new(NurseryState {
            children: Children::new(),
            body_woken: AtomicBool::new(true),
            body_wait: WaitCell::new(),
            scope,
            opener,
            run,
            id: TaskId::next(),
            registry_index: StdAtomicUsize::new(0),
            values: Mutex::new(values),
        })
    }

    /// Makes the block poll this child. Gives the child back if the block has ended.
    ///
    /// # Safety
    ///
    /// The child belongs to this nursery. It is not in the stack already, and no other thread
    /// pushes it until this returns.
    pub(super) unsafe fn push(&self, child: ChildRef) -> Result<(), ChildRef> {
        // SAFETY: the caller promises what `Children::push` asks for; a child that is not in the
        // stack is not in a batch either, because `QUEUED` stands for both.
        if let Pushed::OntoIdle = unsafe { self.children.push(child) }? {
            self.scope.wake();
        }
        Ok(())
    }

    /// Returns the children that have not ended, in the order of spawning.
    ///
    /// If another thread polls the block, waits until that poll is over, or without `wait` returns
    /// `None`.
    pub(super) fn children(&self, wait: bool) -> Option<Vec<ChildRef>> {
        let mut children = self.children.read(wait)?;
        children.retain(|child| !child.is_done());
        children.sort_by_key(ChildRef::id);
        children.dedup_by_key(|child| child.id());
        Some(children)
    }

    /// Returns what the body waits for, as far as that is known.
    pub(super) fn wait_of_body(&self) -> Option<&'static Wait> {
        let is_woken = self.body_woken.load(Ordering::Relaxed);
        self.body_wait.get().filter(|_| !is_woken)
    }

    /// Clears the flag that the body was woken, and returns it.
    pub(super) fn take_body_woken(&self) -> bool {
        self.body_woken.swap(false, Ordering::AcqRel)
    }
}

/// Drops the chain of openers in a loop: with executors between them it may be too long for
/// recursion.
impl Drop for NurseryState {
    fn drop(&mut self) {
        let mut opener = self.opener.take();
        while let Some(TaskRef::Child(child)) = opener {
            let nursery = child.nursery().clone();
            drop(child);
            opener = Arc::into_inner(nursery).and_then(|mut nursery| nursery.opener.take());
        }
    }
}

/// The body's waker.
impl Wake for NurseryState {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A read-modify-write even if the flag is set, so that the next poll sees what was done
        // before each wake-up, and not only before the last one.
        self.body_woken.swap(true, Ordering::AcqRel);
        self.scope.wake();
    }
}

/// The root task of a run.
pub(super) struct Root {
    pub(super) id: TaskId,
    pub(super) name: &'static str,
}

/// A counted reference to a task.
#[derive(Clone)]
pub(super) enum TaskRef {
    Root(Arc<Root>),
    Child(ChildRef),
}

impl TaskRef {
    pub(super) fn id(&self) -> TaskId {
        match self {
            TaskRef::Root(root) => root.id,
            TaskRef::Child(child) => child.id(),
        }
    }
}

impl fmt::Debug for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id().fmt(f)
    }
}
