//! The results of a map on their way from the map to the block that takes them.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use atomic_waker::AtomicWaker;
use futures_lite::Stream;

use crate::sys::primitives::lock;

/// The connection between a map and its [`MapResults`].
#[derive(Debug)]
pub(super) struct Outlet<T> {
    state: Mutex<State<T>>,
    /// How many results the block has taken.
    taken: AtomicUsize,
    /// The map cannot go on before results are taken; it has delivered this many, or 0.
    blocked_at: AtomicUsize,
    /// The stream was dropped.
    is_closed: AtomicBool,
    map: AtomicWaker,
}

#[derive(Debug)]
struct State<T> {
    ready: VecDeque<T>,
    has_ended: bool,
    block: Option<Waker>,
}

impl<T> Outlet<T> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                has_ended: false,
                block: None,
            }),
            taken: AtomicUsize::new(0),
            blocked_at: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
            map: AtomicWaker::new(),
        })
    }

    /// Returns the stream of the results.
    pub(super) fn results(self: &Arc<Self>) -> MapResults<T> {
        MapResults {
            outlet: self.clone(),
            batch: VecDeque::new(),
        }
    }

    /// Delivers results, and leaves `results` empty.
    pub(super) fn deliver(&self, results: &mut VecDeque<T>) {
        if results.is_empty() {
            return;
        }
        let mut state = lock(&self.state);
        if state.ready.is_empty() {
            mem::swap(&mut state.ready, results);
        } else {
            state.ready.append(results);
        }
        let block = state.block.take();
        drop(state);
        wake(block);
    }

    /// Notes that there will be no more results.
    pub(super) fn end(&self) {
        let mut state = lock(&self.state);
        state.has_ended = true;
        let block = state.block.take();
        drop(state);
        wake(block);
    }

    /// Forgets the results that were not taken. There will be no more.
    pub(super) fn clear(&self) {
        self.end();
        let left = mem::take(&mut lock(&self.state).ready);
        drop(left); // outside the lock: a result may do anything in its `Drop`
    }

    /// Returns how many results the block has taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    /// Returns whether the stream was dropped.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// Registers the task of the map, to be woken when the stream is dropped.
    pub(super) fn register_map(&self, cx: &Context<'_>) {
        self.map.register(cx.waker());
    }

    /// Wants to be woken when the block has taken this many results; with 0, no longer.
    pub(super) fn block_until(&self, taken: usize) {
        self.blocked_at.store(taken, Ordering::SeqCst);
    }

    /// Returns whether the block has taken the results that the map waits for.
    pub(super) fn is_unblocked(&self) -> bool {
        match self.blocked_at.load(Ordering::SeqCst) {
            0 => false,
            blocked_at => self.taken() >= blocked_at,
        }
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The results of a map, as a [`Stream`]; passed to the block of
/// [`MapSync::open`](crate::worker::MapSync::open).
///
/// Ends after the result of the last item.
///
/// # Dropping
///
/// Ends the map: no further item begins. The block goes on, and at its end waits for the items in
/// progress, as [`open`](crate::worker::MapSync::open) says.
///
/// # Examples
///
/// ```
/// use futures_lite::StreamExt;
/// use seedbed::map_sync;
///
/// fn main() {
///     seedbed::init();
///     let map = map_sync(|n: u64| n * n, 1..); // without an end
///     let first_above_50 = smol::block_on(map.open(async |mut results| {
///         while let Some(square) = results.next().await {
///             let square = square.unwrap();
///             if square > 50 {
///                 return square;
///             }
///         }
///         unreachable!("the items do not end")
///     }));
///     assert_eq!(first_above_50, 64);
/// }
/// ```
pub struct MapResults<T> {
    outlet: Arc<Outlet<T>>,
    /// Results that were fetched from the outlet and have not been taken.
    batch: VecDeque<T>,
}

impl<T> Unpin for MapResults<T> {}

impl<T> MapResults<T> {
    fn take(&mut self) -> Option<T> {
        let result = self.batch.pop_front()?;
        // Only this handle counts.
        let taken = self.outlet.taken.load(Ordering::Relaxed) + 1;
        self.outlet.taken.store(taken, Ordering::SeqCst);
        if self.outlet.blocked_at.load(Ordering::SeqCst) == taken {
            self.outlet.map.wake();
        }
        Some(result)
    }
}

impl<T> Stream for MapResults<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(result) = self.take() {
            return Poll::Ready(Some(result));
        }
        let this = &mut *self;
        let mut state = lock(&this.outlet.state);
        if state.ready.is_empty() {
            if state.has_ended {
                return Poll::Ready(None);
            }
            let before = state.block.replace(cx.waker().clone());
            drop(state);
            drop(before);
            return Poll::Pending;
        }
        mem::swap(&mut state.ready, &mut this.batch);
        drop(state);
        Poll::Ready(self.take())
    }
}

impl<T> Drop for MapResults<T> {
    fn drop(&mut self) {
        self.outlet.is_closed.store(true, Ordering::SeqCst);
        self.outlet.map.wake();
    }
}

impl<T> fmt::Debug for MapResults<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapResults").finish_non_exhaustive()
    }
}
