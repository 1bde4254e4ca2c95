//! The nursery of a run's system tasks.
//!
//! The nursery is opened when the first system task is spawned, on the thread that spawns it, and
//! from then on the run's loop polls it. So a run without system tasks has no such nursery, and a
//! main future is never polled through it, as it would be if the nursery were opened around it.
//!
//! The body of the nursery waits until the loop cancels it when the main future has ended. The
//! nursery is a root of the run's scope tree, with no tree variables set.

use std::any::Any;
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};

use crate::ambient::WithValues;
use crate::cancel::position::enter_above_root;
use crate::cancel::{CancelReason, SharedTree};
use crate::sys::primitives::lock;
use crate::task::{Nursery, in_no_task, open_nursery};

/// The payload of a panic.
pub(super) type PanicPayload = Box<dyn Any + Send>;

type Block = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The system tasks of one run.
pub(super) struct SystemNursery {
    state: Mutex<State>,
    /// The block was woken since it was last polled. False as long as there is no block.
    woken: AtomicBool,
    /// The number of system tasks.
    pub(super) tasks: AtomicUsize,
}

enum State {
    /// No system task was spawned yet.
    Unopened,
    Open {
        nursery: Nursery<'static>,
        /// `None` while the block is being polled.
        block: Option<Block>,
    },
    /// All system tasks have ended, and no more can be spawned.
    Closed,
}

impl SystemNursery {
    pub(super) fn new() -> Self {
        SystemNursery {
            state: Mutex::new(State::Unopened),
            woken: AtomicBool::new(false),
            tasks: AtomicUsize::new(0),
        }
    }

    pub(super) fn mark_woken(&self) {
        self.woken.store(true, Ordering::Release);
    }

    pub(super) fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }

    pub(super) fn tasks(&self) -> usize {
        self.tasks.load(Ordering::Relaxed)
    }

    /// Returns a handle on the nursery, which is opened if it was not yet. `None` if it has ended.
    pub(super) fn nursery(
        &self,
        tree: &Arc<SharedTree>,
        waker: impl FnOnce() -> Waker,
    ) -> Option<Nursery<'static>> {
        let mut state = lock(&self.state);
        if let State::Unopened = *state {
            let (nursery, block) = open(tree, &waker());
            *state = State::Open {
                nursery,
                block: Some(block),
            };
        }
        match &*state {
            State::Open { nursery, .. } => Some(nursery.clone()),
            State::Unopened | State::Closed => None,
        }
    }

    /// Polls the system tasks if they were woken. Returns the panic of one of them as an error,
    /// once all have ended.
    pub(super) fn poll(
        &self,
        tree: &Arc<SharedTree>,
        waker: impl FnOnce() -> Waker,
    ) -> Result<(), PanicPayload> {
        if !self.woken.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let block = match &mut *lock(&self.state) {
            State::Open { block, .. } => block.take(),
            State::Unopened | State::Closed => None,
        };
        let Some(mut block) = block else {
            // A late wake-up, after the block has ended.
            return Ok(());
        };
        let polled = catch_unwind(AssertUnwindSafe(|| poll(&mut block, tree, &waker())));
        if let Ok(Poll::Pending) = polled {
            if let State::Open { block: slot, .. } = &mut *lock(&self.state) {
                *slot = Some(block);
            }
            return Ok(());
        }
        self.close();
        polled.map(drop)
    }

    /// Cancels the system tasks, because the main future has ended or something has panicked. Until
    /// they have ended, others may be spawned, which are cancelled too.
    pub(super) fn cancel(&self, reason: CancelReason) {
        let nursery = match &mut *lock(&self.state) {
            State::Open { nursery, .. } => nursery.clone(),
            state @ State::Unopened => {
                *state = State::Closed;
                return;
            }
            State::Closed => return,
        };
        nursery.cancel_for(reason);
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(*lock(&self.state), State::Closed)
    }

    /// Drops all system tasks that are left, including shielded ones.
    pub(super) fn close(&self) {
        let ended = std::mem::replace(&mut *lock(&self.state), State::Closed);
        // Dropped after the lock is released.
        drop(ended);
    }
}

/// Opens the nursery, and polls it for the first time, which adds its node to the tree.
fn open(tree: &Arc<SharedTree>, waker: &Waker) -> (Nursery<'static>, Block) {
    let handle = Arc::new(OnceLock::new());
    let given = handle.clone();
    let mut block: Block = Box::pin(open_nursery(move |nursery: Nursery<'static>| {
        given.get_or_init(|| nursery);
        pending::<()>()
    }));
    // Pending, because its body waits until it is cancelled.
    _ = poll(&mut block, tree, waker);
    let nursery = handle.get().expect("the first poll opens it").clone();
    (nursery, block)
}

fn poll(block: &mut Block, tree: &Arc<SharedTree>, waker: &Waker) -> Poll<()> {
    let _entered = (enter_above_root(tree), WithValues::new(None));
    // The task that spawns the first system task does not become the parent of the block.
    in_no_task(|| block.as_mut().poll(&mut Context::from_waker(waker)))
}
