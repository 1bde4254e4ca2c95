//! `Sequencer`: runs steps of several tasks in a fixed order.
//!
//! Decision: a point of the sequence is a future around the block, `at(point, block)`, not a guard
//! that the block holds. A guard that is not bound to a name is dropped immediately, and the
//! sequence continues although the test believes to be in its point; a future cannot be misused
//! like that.
//!
//! Decision: a broken order panics, instead of returning an error. It is a mistake in the test that
//! must not be ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use pin_project_lite::pin_project;

use crate::sys::primitives::lock;
use crate::sys::unwind::wake_all;

/// Runs blocks of code one after the other, in the order of their numbers, whatever tasks they are
/// in.
///
/// The handle is cheap to clone; all clones are handles of the same sequence. The block of point 0
/// runs immediately, and each other block when the block of the point before it has ended. A block
/// has ended when it has completed, and also when it was cancelled, dropped or has panicked while
/// it ran.
///
/// ```
/// use std::sync::Mutex;
/// use seedbed::{open_nursery, run, testing::Sequencer};
///
/// run(async {
///     let (order, sequence) = (&Mutex::new(Vec::new()), &Sequencer::new());
///     open_nursery(async |n| {
///         for point in [2, 0, 1] {
///             n.spawn(sequence.at(point, async move { order.lock().unwrap().push(point) }));
///         }
///     })
///     .await;
///     assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
/// });
/// ```
///
/// # Broken sequences
///
/// If a task that waits for its turn is cancelled or dropped, the sequence is broken: the turns
/// after that one would never come. Then every task that waits, and every task that arrives later,
/// panics. A task in its block continues.
#[derive(Clone, Default)]
pub struct Sequencer {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of blocks that have ended: the point whose turn it is.
    turn: usize,
    /// The points that were used.
    used: BTreeSet<usize>,
    waiting: BTreeMap<usize, Waker>,
    /// The point that was dropped before its turn.
    broken: Option<usize>,
}

impl Sequencer {
    /// Creates a sequence that starts at point 0.
    ///
    /// ```
    /// # futures_lite::future::block_on(async {
    /// let sequence = seedbed::testing::Sequencer::new();
    /// assert_eq!(sequence.at(0, async { 5 }).await, 5);
    /// # });
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `block` when its turn comes, and returns its value.
    ///
    /// # Cancellation
    ///
    /// If cancelled during the wait, the block has not run, and the sequence is broken. If
    /// cancelled in the block, the block ends there, and the turn of the next one comes. If dropped
    /// before the first poll, nothing has happened.
    ///
    /// # Panics
    ///
    /// At the first poll, if the point was used before. At any poll, if the sequence is broken.
    ///
    /// ```
    /// use seedbed::{open_nursery, run, testing::Sequencer};
    ///
    /// run(open_nursery(async |n| {
    ///     let sequence = Sequencer::new();
    ///     let second = n.spawn(sequence.at(1, async { "then this" }));
    ///     sequence.at(0, async { assert!(!second.is_finished()) }).await;
    ///     assert_eq!(second.await, "then this");
    /// }));
    /// ```
    pub fn at<F: IntoFuture>(&self, point: usize, block: F) -> InSequence<F::IntoFuture> {
        InSequence {
            block: Some(block.into_future()),
            position: Point {
                sequencer: self.clone(),
                point,
                stage: Stage::New,
            },
        }
    }
}

impl fmt::Debug for Sequencer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.state);
        f.debug_struct("Sequencer")
            .field("turn", &state.turn)
            .field("waiting", &state.waiting.keys())
            .field("broken", &state.broken)
            .finish()
    }
}

pin_project! {
    /// Runs a block when its turn comes; made by [`Sequencer::at`].
    ///
    /// # Dropping
    ///
    /// Breaks the sequence if the block has not begun, and ends the block if it runs. Before the
    /// first poll, it has no effect.
    #[must_use = "futures do nothing unless awaited"]
    pub struct InSequence<F> {
        // Dropped first: the next turn comes after the block is dropped.
        #[pin]
        block: Option<F>,
        position: Point,
    }
}

/// A point of the sequence and its stage. Dropping it ends its turn, or breaks the sequence.
#[derive(Debug)]
struct Point {
    sequencer: Sequencer,
    point: usize,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Not polled yet.
    New,
    Waiting,
    /// The block runs.
    Running,
    Ended,
}

impl Point {
    /// Marks the point as used, at the first poll.
    fn arrive(&mut self) {
        let point = self.point;
        let fresh = lock(&self.sequencer.state).used.insert(point);
        assert!(fresh, "point {point} of a Sequencer was used a second time");
        self.stage = Stage::Waiting;
    }

    /// Returns whether the turn has come; otherwise stores `waker` as the one to wake.
    fn poll_turn(&mut self, waker: &Waker) -> bool {
        let waker = waker.clone();
        let mut state = lock(&self.sequencer.state);
        if let Some(broken) = state.broken {
            drop(state);
            self.stage = Stage::Ended;
            panic!(
                "the sequence is broken: the task that waited for point {broken} of the Sequencer was cancelled, so the turn \
                 of point {} may never come",
                self.point
            );
        }
        if state.turn == self.point {
            self.stage = Stage::Running;
            return true;
        }
        let replaced = state.waiting.insert(self.point, waker);
        drop(state);
        // Dropped after the unlock, because dropping a waker runs foreign code.
        drop(replaced);
        false
    }

    /// Ends the block: the turn of the next one comes.
    fn finish(&mut self) {
        self.stage = Stage::Ended;
        let next = {
            let mut state = lock(&self.sequencer.state);
            state.turn += 1;
            let turn = state.turn;
            state.waiting.remove(&turn)
        };
        if let Some(next) = next {
            next.wake();
        }
    }

    /// Breaks the sequence: this point's block will never run.
    fn break_sequence(&mut self) {
        self.stage = Stage::Ended;
        let waiting = {
            let mut state = lock(&self.sequencer.state);
            state.broken.get_or_insert(self.point);
            mem::take(&mut state.waiting)
        };
        let others = waiting
            .into_iter()
            .filter(|(point, _)| *point != self.point);
        wake_all(others.map(|(_, waker)| waker));
    }
}

impl Drop for Point {
    fn drop(&mut self) {
        match self.stage {
            Stage::Waiting => self.break_sequence(),
            Stage::Running => self.finish(),
            Stage::New | Stage::Ended => (),
        }
    }
}

impl<F: Future> Future for InSequence<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        if let Stage::New = this.position.stage {
            this.position.arrive();
        }
        if let Stage::Waiting = this.position.stage
            && !this.position.poll_turn(cx.waker())
        {
            return Poll::Pending;
        }
        let block = this.block.as_mut().as_pin_mut();
        let value = ready!(block.expect("polled after it had ended").poll(cx));
        this.block.set(None);
        this.position.finish();
        Poll::Ready(value)
    }
}

impl<F> fmt::Debug for InSequence<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InSequence")
            .field("point", &self.position.point)
            .field("stage", &self.position.stage)
            .finish_non_exhaustive()
    }
}
