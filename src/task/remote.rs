//! The future of a child on an executor, shared by the waiter in the nursery and the part that the
//! executor polls.
//!
//! The waiter (`OnExecutor`) is a child of the nursery. It adds a node to the scope tree, which
//! everything above waits for. The executor's part ([`RemoteChild`]) polls the future at that node,
//! so scopes that are opened there are below it, and the tree's decisions hold on every thread.
//!
//! A thread takes the future out to poll or drop it. So the waiter drops a cancelled future that no
//! thread is polling, without waiting for a busy executor. Only a future that is being polled at
//! that moment is dropped by the executor's thread.
//!
//! Lock order: the stage of a `Remote`, then the scope tree. Neither is locked while code of the
//! user or a waker runs.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use atomic_waker::AtomicWaker;

use super::child_ref::TaskRef;
use super::current::{current as current_task, in_task};
use crate::ambient;
use crate::ambient::{TreeValues, WithValues};
use crate::cancel::position;
use crate::cancel::position::{enter, follow_shared};
use crate::cancel::{Kind, Node, NodeId, NodeState, poll_dead};
use crate::sys::primitives::lock;

/// The state that the waiter and the executor's part share.
pub(super) struct Remote<F: Future> {
    stage: Mutex<Stage<F>>,
    /// The state of the future's node in the scope tree. Its waker wakes the waiter.
    cell: Arc<NodeState>,
    /// Wakes the executor's part.
    executor: AtomicWaker,
}

enum Stage<F: Future> {
    /// No thread polls the future. Without a position, none may.
    Waiting {
        // In this order: the nodes in the future are removed before the position's node is.
        future: Pin<Box<F>>,
        position: Option<Position>,
    },
    /// A thread has taken the future out, to poll or drop it. If the waiter is dropped in that
    /// time, the future is orphaned: what comes of it is dropped.
    Taken { orphaned: bool },
    /// The future has ended, and the waiter does not know it yet. Until then, the scopes above
    /// wait.
    Ended {
        end: End<F::Output>,
        position: Option<Position>,
    },
    /// The future was dropped because it was cancelled, or the waiter knows how it ended, or the
    /// waiter was dropped.
    Over,
}

/// How a future ended that was not cancelled.
pub(super) enum End<T> {
    Value(T),
    Panicked(Payload),
    /// The executor has dropped its part.
    Lost,
}

pub(super) type Payload = Box<dyn Any + Send>;

/// The future's position in the scope tree, its tree variables and its task.
struct Position {
    /// Shared with the waiter, which moves it if it is polled elsewhere.
    node: Arc<Node>,
    values: Option<TreeValues>,
    /// `None` if the waiter is polled outside of any task.
    task: Option<TaskRef>,
}

impl Position {
    /// Adds a node below the position of this thread.
    fn new(cell: Arc<NodeState>) -> Self {
        Position {
            node: Arc::new(position::attach(Kind::Defer, Some(cell))),
            values: ambient::tree_values(),
            task: current_task(),
        }
    }

    /// Runs `act` at this position, on any thread. Catches a panic.
    fn enter<T>(&self, act: impl FnOnce() -> T) -> Result<T, Payload> {
        let _position = enter(&self.node.shared, self.node.id);
        let _values = WithValues::new(self.values.clone());
        catch_unwind(AssertUnwindSafe(|| match &self.task {
            Some(task) => in_task(task, act),
            None => act(),
        }))
    }
}

impl<F: Future> Remote<F> {
    pub(super) fn new(future: F) -> Self {
        Remote {
            stage: Mutex::new(Stage::Waiting {
                future: Box::pin(future),
                position: None,
            }),
            cell: Arc::default(),
            executor: AtomicWaker::new(),
        }
    }

    /// Registers the waker of the waiter.
    pub(super) fn register(&self, waker: &Waker) {
        self.cell.waker.register(waker);
    }

    /// Wakes the executor's part, so that it ends.
    pub(super) fn wake_executor(&self) {
        self.executor.wake();
    }

    /// Gives the future the position of this thread. From now on the executor may poll it.
    pub(super) fn allow_polls(&self) -> WaiterNode {
        let position = Position::new(self.cell.clone());
        let node = WaiterNode {
            parent: position.node.parent,
            node: position.node.clone(),
        };
        let mut stage = lock(&self.stage);
        let unused = match &mut *stage {
            Stage::Waiting { position: slot, .. } => slot.replace(position),
            // The executor has dropped its part already.
            Stage::Taken { .. } | Stage::Ended { .. } | Stage::Over => Some(position),
        };
        drop(stage);
        drop(unused);
        self.executor.wake();
        node
    }

    /// Drops the future because the waiter is dropped: at once, or when the thread that has it puts
    /// it back.
    pub(super) fn orphan(&self) {
        let mut stage = lock(&self.stage);
        let next = match *stage {
            Stage::Taken { .. } => Stage::Taken { orphaned: true },
            Stage::Waiting { .. } | Stage::Ended { .. } | Stage::Over => Stage::Over,
        };
        let last = std::mem::replace(&mut *stage, next);
        drop(stage);
        self.wake_executor();
        drop(last);
    }

    /// Takes the future out, if no other thread has it and `choose` returns true.
    fn take(
        &self,
        choose: impl FnOnce(Option<&Position>) -> bool,
    ) -> Option<(Pin<Box<F>>, Option<Position>)> {
        let mut stage = lock(&self.stage);
        match &*stage {
            Stage::Waiting { position, .. } if choose(position.as_ref()) => {}
            _ => return None,
        }
        match std::mem::replace(&mut *stage, Stage::Taken { orphaned: false }) {
            Stage::Waiting { future, position } => Some((future, position)),
            _ => unreachable!("checked above, under the same lock"),
        }
    }

    /// Stores what came of a future that was taken out.
    fn put_back(&self, next: Stage<F>) {
        let mut stage = lock(&self.stage);
        let orphaned = matches!(*stage, Stage::Taken { orphaned: true });
        let unused = if orphaned {
            *stage = Stage::Over;
            Some(next)
        } else {
            *stage = next;
            None
        };
        drop(stage);
        if let Some(Stage::Ended {
            end: End::Panicked(payload),
            ..
        }) = unused
        {
            log_orphan_panic(payload);
        } else if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(unused))) {
            log_orphan_panic(payload);
        }
    }

    /// Drops a future that was taken out, and stores how it ended.
    fn end(&self, future: Pin<Box<F>>, position: Option<Position>, end: Option<End<F::Output>>) {
        let dropped = match &position {
            Some(position) => position.enter(|| drop(future)),
            None => catch_unwind(AssertUnwindSafe(|| drop(future))),
        };
        let end = match (dropped, end) {
            (Ok(()), end) => end,
            (Err(second), Some(End::Panicked(first))) => {
                log_orphan_panic(second);
                Some(End::Panicked(first))
            }
            (Err(payload), _) => Some(End::Panicked(payload)),
        };
        match end {
            Some(end) => self.put_back(Stage::Ended { end, position }),
            None => {
                self.put_back(Stage::Over);
                // Wakes the scopes that wait for this position. The waiter keeps the node.
                if let Some(Position { node, .. }) = &position {
                    node.shared.set_plain(node.id).now();
                }
                drop(position);
            }
        }
        self.cell.waker.wake();
    }

    /// Drops the future if it is cancelled, no shield defers that, and no other thread has it.
    pub(super) fn drop_if_cancelled(&self) -> bool {
        if !self.cell.is_effective() {
            return false;
        }
        // The tree's decision is made while the stage is locked, so that no thread polls the future
        // in between.
        let decide =
            |position: Option<&Position>| position.is_some_and(|position| position.node.try_drop());
        let Some((future, position)) = self.take(decide) else {
            return false;
        };
        self.end(future, position, None);
        true
    }

    /// Takes what came of the future.
    pub(super) fn take_end(&self) -> TakenEnd<F::Output> {
        let mut stage = lock(&self.stage);
        match *stage {
            Stage::Waiting { .. } | Stage::Taken { .. } => return TakenEnd::None,
            Stage::Over => return TakenEnd::Dropped,
            Stage::Ended { .. } => {}
        }
        let Stage::Ended { end, position } = std::mem::replace(&mut *stage, Stage::Over) else {
            unreachable!("checked above, under the same lock");
        };
        drop(stage);
        drop(position);
        TakenEnd::Ended(end)
    }

    /// Waits until the scope that has cancelled the future drops the waiter.
    pub(super) fn poll_dead<T>(&self, cx: &mut Context<'_>) -> Poll<T> {
        poll_dead(&self.cell, "the wait for a child on an executor", cx)
    }
}

/// The end of a future, as its waiter learns it.
pub(super) enum TakenEnd<T> {
    /// It has not ended.
    None,
    Ended(End<T>),
    /// It was dropped because it was cancelled.
    Dropped,
}

/// The waiter's reference to the node of its future.
pub(super) struct WaiterNode {
    node: Arc<Node>,
    parent: Option<NodeId>,
}

impl WaiterNode {
    /// Moves the node below this thread's position.
    pub(super) fn follow(&mut self) {
        follow_shared(&self.node.shared, self.node.id, &mut self.parent);
    }

    /// Lets the scopes around no longer wait for the future, which is gone.
    pub(super) fn set_plain(&self) {
        self.node.shared.set_plain(self.node.id).now();
    }
}

/// Logs the panic of a future whose waiter is gone.
fn log_orphan_panic(payload: Payload) {
    tracing::error!(
        target: "seedbed::nursery",
        "a panic in a nursery's child on another thread is dropped: no task waits for the child any more"
    );
    // The drop of the payload may panic too.
    std::mem::forget(payload);
}

/// The executor's part, without the type of its future.
trait Runner: Send + Sync {
    fn run(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Called when the executor drops its part.
    fn executor_dropped(&self);
}

impl<F> Runner for Remote<F>
where
    F: Future + Send,
    F::Output: Send,
{
    fn run(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.executor.register(cx.waker());
        self.drop_if_cancelled();
        if let Some((mut future, Some(position))) = self.take(|position| position.is_some()) {
            let poll = || match &position.task {
                Some(TaskRef::Child(child)) => {
                    child.header().wait.during(|| future.as_mut().poll(cx))
                }
                Some(TaskRef::Root(_)) | None => future.as_mut().poll(cx),
            };
            match position.enter(poll) {
                Ok(Poll::Pending) => {
                    self.put_back(Stage::Waiting {
                        future,
                        position: Some(position),
                    });
                    self.drop_if_cancelled();
                }
                Ok(Poll::Ready(value)) => self.end(future, Some(position), Some(End::Value(value))),
                Err(payload) => self.end(future, Some(position), Some(End::Panicked(payload))),
            }
        }
        match *lock(&self.stage) {
            Stage::Waiting { .. } | Stage::Taken { .. } => Poll::Pending,
            Stage::Ended { .. } | Stage::Over => Poll::Ready(()),
        }
    }

    fn executor_dropped(&self) {
        // The waker may keep the executor's task alive.
        drop(self.executor.take());
        self.drop_if_cancelled();
        if let Some((future, position)) = self.take(|_| true) {
            self.end(future, position, Some(End::Lost));
        }
    }
}

/// The part of a child of [`Nursery::spawn_on`](crate::Nursery::spawn_on) that its executor polls,
/// on any thread.
///
/// It is done when the child has ended, or was dropped because it was cancelled. The child's result
/// goes to the nursery. Dropping it before that drops the child, and makes the nursery's block
/// panic, unless the child is cancelled.
///
/// ```
/// use seedbed::{nursery::RemoteChild, open_nursery, run};
///
/// run(open_nursery(|n| async move {
///     let thread = |child: RemoteChild| drop(std::thread::spawn(|| smol::block_on(child)));
///     let here = std::thread::current().id();
///     let there = n.spawn_on(&thread, async { std::thread::current().id() });
///     assert_ne!(there.await, here);
/// }));
/// ```
#[must_use = "futures do nothing unless polled"]
pub struct RemoteChild {
    remote: Arc<dyn Runner>,
}

impl RemoteChild {
    pub(super) fn new<F>(remote: Arc<Remote<F>>) -> Self
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        RemoteChild { remote }
    }
}

impl Future for RemoteChild {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.remote.run(cx)
    }
}

impl Drop for RemoteChild {
    fn drop(&mut self) {
        self.remote.executor_dropped();
    }
}

impl fmt::Debug for RemoteChild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteChild").finish_non_exhaustive()
    }
}
