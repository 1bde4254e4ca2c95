//! The queue of calls into a run: any thread pushes them, and the run's loop pops them.
//!
//! It decides which calls are accepted and in which order they are made. It makes no calls and
//! wakes no task.
//!
//! * First in, first out, with keys and without.
//! * A call with a key is not accepted twice while it is queued. Once it was popped, it may be
//!   pushed again.
//! * A closed queue refuses new calls and keeps those that were accepted. The loop closes the
//!   queue, then pops until it is empty.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::Ordering;

use crate::sys::primitives::{AtomicUsize, Mutex, lock};

/// The queued calls.
pub(super) struct EntryQueue<C> {
    queue: Mutex<Queue<C>>,
    /// The number of calls, written under the lock, because the loop reads it in every turn.
    len: AtomicUsize,
}

struct Queue<C> {
    calls: VecDeque<Entry<C>>,
    /// The keys of the calls that are queued.
    keys: BTreeSet<usize>,
    closed: bool,
}

struct Entry<C> {
    call: C,
    key: Option<usize>,
}

impl<C> EntryQueue<C> {
    pub(super) fn new() -> Self {
        EntryQueue {
            queue: Mutex::new(Queue {
                calls: VecDeque::new(),
                keys: BTreeSet::new(),
                closed: false,
            }),
            len: AtomicUsize::new(0),
        }
    }

    /// Pushes the call that `into_call` makes of `call`. Returns `call` if the queue is closed.
    pub(super) fn push<T>(&self, call: T, into_call: impl FnOnce(T) -> C) -> Result<(), T> {
        self.accept(None, call, into_call)
    }

    /// Pushes a call like `push`, unless a call with this key is queued already. The caller keeps
    /// the key unique while the call is queued.
    pub(super) fn push_once<T>(
        &self,
        key: usize,
        call: T,
        into_call: impl FnOnce(T) -> C,
    ) -> Result<(), T> {
        self.accept(Some(key), call, into_call)
    }

    fn accept<T>(
        &self,
        key: Option<usize>,
        call: T,
        into_call: impl FnOnce(T) -> C,
    ) -> Result<(), T> {
        let mut queue = lock(&self.queue);
        if queue.closed {
            return Err(call);
        }
        if key.is_some_and(|key| !queue.keys.insert(key)) {
            drop(queue);
            // Dropped after the lock is released.
            drop(call);
            return Ok(());
        }
        let call = into_call(call);
        queue.calls.push_back(Entry { call, key });
        self.len.store(queue.calls.len(), Ordering::Release);
        Ok(())
    }

    /// Takes the oldest call, which the caller is about to make.
    pub(super) fn pop(&self) -> Option<C> {
        let mut queue = lock(&self.queue);
        let Entry { call, key } = queue.calls.pop_front()?;
        if let Some(key) = key {
            queue.keys.remove(&key);
        }
        self.len.store(queue.calls.len(), Ordering::Release);
        Some(call)
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Refuses all calls from now on.
    pub(super) fn close(&self) {
        lock(&self.queue).closed = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        lock(&self.queue).closed
    }
}

/// Models of threads that push calls while the loop pops them.
#[cfg(all(test, loom))]
mod loom_tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::task::{Context, Poll};

    use super::EntryQueue;
    use crate::sys::model::{Plain, Relaxed, block_on, check, spawn};
    use crate::sys::primitives::{AtomicBool, AtomicWaker};

    /// The state that a loop and its handles share.
    struct Entrance<C> {
        queue: EntryQueue<C>,
        driver: AtomicWaker,
    }

    impl<C: Send + 'static> Entrance<C> {
        fn new() -> Arc<Self> {
            Arc::new(Entrance {
                queue: EntryQueue::new(),
                driver: AtomicWaker::new(),
            })
        }

        /// Runs one turn of the loop, which wakes itself if calls are left.
        fn turn(&self, cx: &mut Context<'_>, mut run: impl FnMut(C)) {
            self.driver.register(cx.waker());
            for _ in 0..self.queue.len() {
                if let Some(call) = self.queue.pop() {
                    run(call);
                }
            }
            if self.queue.len() > 0 {
                cx.waker().wake_by_ref();
            }
        }
    }

    #[test]
    fn no_call_is_missed_and_writes_before_its_push_are_visible() {
        check(|| {
            let entrance = Entrance::<Arc<Plain>>::new();
            for _ in 0..2 {
                let entrance = entrance.clone();
                spawn(move || {
                    let plain = Plain::new();
                    plain.set(7);
                    assert!(entrance.queue.push(plain, |plain| plain).is_ok());
                    entrance.driver.wake();
                });
            }
            let mut left = 2;
            block_on(poll_fn(|cx| {
                entrance.turn(cx, |plain| {
                    assert_eq!(plain.get(), 7);
                    left -= 1;
                });
                match left {
                    0 => Poll::Ready(()),
                    _ => Poll::Pending,
                }
            }));
        });
    }

    #[test]
    fn a_call_that_is_pushed_while_the_queue_closes_is_either_made_or_refused() {
        check(|| {
            let entrance = Entrance::<()>::new();
            let pusher = {
                let entrance = entrance.clone();
                spawn(move || entrance.queue.push((), |call| call).is_ok())
            };
            entrance.queue.close();
            let taken = (0..entrance.queue.len())
                .filter_map(|_| entrance.queue.pop())
                .count();
            let accepted = pusher.join().unwrap();
            assert_eq!(taken, usize::from(accepted));
            assert!(entrance.queue.pop().is_none());
        });
    }

    /// The flags are relaxed, so only the queue can make them visible.
    #[test]
    fn the_last_call_with_a_key_sees_all_writes_before_its_last_push() {
        check(|| {
            let entrance = Entrance::<()>::new();
            let flags: Arc<[AtomicBool; 2]> = Arc::new([false, false].map(AtomicBool::new));
            for number in 0..2 {
                let (entrance, flags) = (entrance.clone(), flags.clone());
                spawn(move || {
                    flags[number].store(true, Relaxed);
                    assert!(entrance.queue.push_once(1, (), |call| call).is_ok());
                    entrance.driver.wake();
                });
            }
            block_on(poll_fn(|cx| {
                let mut seen = false;
                entrance.turn(cx, |()| seen = flags.iter().all(|flag| flag.load(Relaxed)));
                if seen { Poll::Ready(()) } else { Poll::Pending }
            }));
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::EntryQueue;

    fn same(call: u32) -> u32 {
        call
    }

    #[test]
    fn a_closed_queue_returns_refused_calls_and_keeps_accepted_ones() {
        let queue = EntryQueue::new();
        queue.push(1, same).unwrap();
        queue.close();
        assert_eq!(queue.push(2, same), Err(2));
        assert_eq!(queue.push_once(9, 3, same), Err(3));
        assert_eq!((queue.pop(), queue.pop()), (Some(1), None));
        assert!(queue.is_closed());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push,
        PushOnce(usize),
        Pop,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Push),
            (0..3usize).prop_map(Step::PushOnce),
            Just(Step::Pop)
        ]
    }

    proptest! {
        /// Compares the queue with a list that is searched.
        #[cfg_attr(miri, ignore = "too many cases")]
        #[test]
        fn calls_are_popped_in_order_and_a_key_is_queued_once(
            steps in prop::collection::vec(step(), 0..60)
        ) {
            let queue = EntryQueue::new();
            let mut model: Vec<(u32, Option<usize>)> = Vec::new();
            for (number, step) in (0..).zip(steps) {
                match step {
                    Step::Push => {
                        queue.push(number, same).unwrap();
                        model.push((number, None));
                    }
                    Step::PushOnce(key) => {
                        queue.push_once(key, number, same).unwrap();
                        if model.iter().all(|&(_, waits)| waits != Some(key)) {
                            model.push((number, Some(key)));
                        }
                    }
                    Step::Pop if model.is_empty() => prop_assert_eq!(queue.pop(), None),
                    Step::Pop => prop_assert_eq!(queue.pop(), Some(model.remove(0).0)),
                }
                prop_assert_eq!(queue.len(), model.len());
            }
        }
    }
}
