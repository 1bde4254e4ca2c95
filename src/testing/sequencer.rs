//! Making several tasks do things in a fixed order.
//!
//! Choice: a point of the sequence is a future around the block, `at(point, block)`, not a guard
//! that is held by it. A guard that is not bound to a name is gone at once, and the sequence runs
//! on while the test believes to be in it; a future cannot be misused like that.
//!
//! Choice: what breaks the order panics, instead of giving an error. It is a mistake of the test,
//! and one that must not be overlooked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use pin_project_lite::pin_project;

use crate::cancel::lock;

/// Makes blocks of code run one after the other, in the order of their numbers, whatever tasks they
/// are in.
///
/// The handle is cheap to clone; all clones are the same sequence. The block of point 0 runs at
/// once, and each other one when the block of the point before it has ended. It has ended when it
/// has completed, and also when it was cancelled, dropped or left by a panic while it ran.
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
/// If somebody who waits for their turn is cancelled or dropped, the sequence is broken: the turns
/// after that one would never come. Everybody who waits, and everybody who comes later, panics
/// then. Who is in their block goes on.
#[derive(Clone, Default)]
pub struct Sequencer {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// How many blocks have ended: the point whose turn it is.
    turn: usize,
    /// The points that somebody has come for.
    used: BTreeSet<usize>,
    waiting: BTreeMap<usize, Waker>,
    /// The point that somebody left without having had their turn.
    broken: Option<usize>,
}

impl Sequencer {
    /// Makes a sequence that begins at point 0.
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

    /// Runs `block` when its turn has come, and returns its value.
    ///
    /// # Cancellation
    ///
    /// If cancelled while it waits, the block has not run, and the sequence is broken. If cancelled
    /// in the block, that ends there, and the next one's turn comes. Dropped before the first poll,
    /// nothing has happened.
    ///
    /// # Panics
    ///
    /// When first polled, if the point was used before; and if the sequence is broken, then or
    /// while it waits.
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
            place: Place {
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
    /// Runs a block when its turn has come; made by [`Sequencer::at`].
    ///
    /// # Dropping
    ///
    /// While it waits, that breaks the sequence; while the block runs, that ends the block.
    #[must_use = "futures do nothing unless awaited"]
    pub struct InSequence<F> {
        // Dropped first: the next turn comes when nothing is left of the block.
        #[pin]
        block: Option<F>,
        place: Place,
    }
}

/// A point of the sequence, and whether its turn is still to come. Dropping it leaves the sequence
/// in order, or broken.
#[derive(Debug)]
struct Place {
    sequencer: Sequencer,
    point: usize,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Not polled yet.
    New,
    Waiting,
    /// In the block.
    Running,
    Ended,
}

impl Place {
    /// Claims the point, at the first poll.
    fn arrive(&mut self) {
        let point = self.point;
        let fresh = lock(&self.sequencer.state).used.insert(point);
        assert!(fresh, "point {point} of a Sequencer was used a second time");
        self.stage = Stage::Waiting;
    }

    /// Whether the turn has come; if not, `waker` is woken when it does.
    fn has_turn(&mut self, waker: &Waker) -> bool {
        let waker = waker.clone();
        let mut state = lock(&self.sequencer.state);
        if let Some(broken) = state.broken {
            drop(state);
            self.stage = Stage::Ended;
            panic!(
                "the sequence is broken: whoever waited for point {broken} of the Sequencer was cancelled, so the turn \
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
        // Dropping a waker may run code of the user's.
        drop(replaced);
        false
    }

    /// The block has ended: it is the next one's turn.
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

    /// The turn of this point will never be taken.
    fn break_sequence(&mut self) {
        self.stage = Stage::Ended;
        let waiting = {
            let mut state = lock(&self.sequencer.state);
            state.broken.get_or_insert(self.point);
            mem::take(&mut state.waiting)
        };
        for (point, waker) in waiting {
            if point != self.point {
                waker.wake();
            }
        }
    }
}

impl Drop for Place {
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
        if let Stage::New = this.place.stage {
            this.place.arrive();
        }
        if let Stage::Waiting = this.place.stage
            && !this.place.has_turn(cx.waker())
        {
            return Poll::Pending;
        }
        let block = this.block.as_mut().as_pin_mut();
        let value = ready!(block.expect("polled after it had ended").poll(cx));
        this.block.set(None);
        this.place.finish();
        Poll::Ready(value)
    }
}

impl<F> fmt::Debug for InSequence<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InSequence")
            .field("point", &self.place.point)
            .field("stage", &self.place.stage)
            .finish_non_exhaustive()
    }
}
