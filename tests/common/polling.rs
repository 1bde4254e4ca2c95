//! Shared by the tests of scopes and nurseries: polling by hand, values that count their drops, and
//! a harness that drops or cancels a future at each of its pending polls in turn.

#![allow(dead_code)] // each test program uses its own part of this

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

use seedbed::CancelScope;

/// A waker that counts its wake-ups.
#[derive(Default)]
pub struct Wakes(AtomicUsize);

impl Wakes {
    pub fn new() -> (Arc<Self>, Waker) {
        let wakes = Arc::new(Wakes::default());
        (wakes.clone(), Waker::from(wakes))
    }

    pub fn count(&self) -> usize {
        self.0.load(SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// A future that is polled by hand.
pub struct Hand<'a, T> {
    future: Pin<Box<dyn Future<Output = T> + 'a>>,
    wakes: Arc<Wakes>,
    waker: Waker,
    seen: usize,
}

impl<'a, T> Hand<'a, T> {
    pub fn new(future: impl Future<Output = T> + 'a) -> Self {
        let (wakes, waker) = Wakes::new();
        Hand {
            future: Box::pin(future),
            wakes,
            waker,
            seen: 0,
        }
    }

    /// Polls once, whether or not the future was woken.
    pub fn poll(&mut self) -> Poll<T> {
        self.seen = self.wakes.count();
        self.future
            .as_mut()
            .poll(&mut Context::from_waker(&self.waker))
    }

    /// Tells whether the future was woken since its last poll.
    pub fn is_woken(&self) -> bool {
        self.wakes.count() > self.seen
    }

    /// Polls once, and again for as long as the future is woken: until it is done or blocked.
    pub fn settle(&mut self) -> Poll<T> {
        for _ in 0..100_000 {
            if let Poll::Ready(value) = self.poll() {
                return Poll::Ready(value);
            }
            if !self.is_woken() {
                return Poll::Pending;
            }
        }
        panic!("the future is woken again and again without an end");
    }

    /// Polls as an executor would: only if the future was woken, and then until it is done or
    /// blocked.
    pub fn go_on(&mut self) -> Poll<T> {
        if self.is_woken() {
            self.settle()
        } else {
            Poll::Pending
        }
    }

    /// Polls the future until it is done. Panics if it is blocked, and so needs something else to
    /// happen first.
    #[track_caller]
    pub fn finish(mut self) -> T {
        match self.settle() {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("the future is blocked"),
        }
    }
}

/// Counts the values that were made and dropped.
#[derive(Clone, Default)]
pub struct Drops {
    made: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
}

impl Drops {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn value(&self) -> Counted {
        self.made.fetch_add(1, SeqCst);
        Counted {
            drops: self.clone(),
            here: true,
        }
    }

    pub fn made(&self) -> usize {
        self.made.load(SeqCst)
    }

    pub fn alive(&self) -> usize {
        self.made() - self.dropped.load(SeqCst)
    }

    #[track_caller]
    pub fn assert_all_dropped(&self) {
        assert_eq!(self.alive(), 0, "of {} values made", self.made());
    }
}

/// A value whose one drop is counted.
pub struct Counted {
    drops: Drops,
    here: bool,
}

impl Drop for Counted {
    fn drop(&mut self) {
        assert!(
            std::mem::replace(&mut self.here, false),
            "a value was dropped twice"
        );
        self.drops.dropped.fetch_add(1, SeqCst);
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counted")
    }
}

/// A future that is pending for `turns` polls.
pub async fn turns(turns: usize) {
    for _ in 0..turns {
        seedbed::checkpoint().await;
    }
}

/// Calls the function when it is dropped.
pub struct OnDrop<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Makes the future again and again, and ends it after its first, second, third .. pending poll,
/// until it runs to its end: first by dropping it, then by cancelling a scope around it. Each time,
/// every value that the future made must have been dropped. A blocked future is polled, too, as
/// spurious polls must do no harm. Returns the number of pending polls.
pub fn end_at_every_poll<F: Future>(make: impl Fn(Drops) -> F) -> usize {
    let polls = drop_at_every_poll(&make);
    cancel_at_every_poll(&make);
    polls
}

/// A future with more pending polls than this never ends.
const MAX_POLLS: usize = 10_000;

fn drop_at_every_poll<F: Future>(make: &impl Fn(Drops) -> F) -> usize {
    for k in 0..MAX_POLLS {
        let drops = Drops::new();
        let mut future = Hand::new(make(drops.clone()));
        let done = (0..=k).any(|_| future.poll().is_ready());
        drop(future);
        assert_eq!(drops.alive(), 0, "dropped at pending poll {}", k + 1);
        if done {
            return k;
        }
    }
    panic!("the future never ends");
}

fn cancel_at_every_poll<F: Future>(make: &impl Fn(Drops) -> F) {
    for k in 0..MAX_POLLS {
        let drops = Drops::new();
        let scope = CancelScope::new();
        let mut future = Hand::new(scope.run(make(drops.clone())));
        if (0..=k).any(|_| future.poll().is_ready()) {
            drop(future);
            drops.assert_all_dropped();
            return;
        }
        scope.cancel();
        let ended = future.go_on();
        assert!(
            ended.is_ready(),
            "cancelled at pending poll {}: blocked",
            k + 1
        );
        assert_eq!(drops.alive(), 0, "cancelled at pending poll {}", k + 1);
    }
    panic!("the future never ends");
}
