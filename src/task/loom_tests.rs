//! Models of a nursery that other threads use: wake-ups, results, cancellations, spawns and reads
//! of the children.

// Spawns children without a handle.
#![allow(unsafe_code)]

use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::child;
use super::child_ref::{ChildRef, NurseryState};
use super::current::in_block;
use super::driver::BlockDriver;
use super::raw_task::RawTask;
use super::{Nursery, TaskId, open_nursery};
use crate::sys::model::{Drops, JoinHandle, Plain, Relaxed, block_on, check, spawn};
use crate::sys::primitives::AtomicBool;

/// Waits until `ready` returns true, which is checked after each wake-up. Gives its waker away at
/// the first poll.
async fn wait(give: impl FnOnce(&Waker), ready: impl Fn() -> bool) {
    let mut give = Some(give);
    poll_fn(|cx| match give.take() {
        Some(give) => {
            give(cx.waker());
            Poll::Pending
        }
        None if ready() => Poll::Ready(()),
        None => Poll::Pending,
    })
    .await;
}

/// A flag without memory ordering. Whether a thread sees it set depends on the ordering of the
/// wake-up.
fn flag() -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(false))
}

/// Sets the flag on another thread, then wakes.
fn set_then_wake(flag: &Arc<AtomicBool>, waker: &Waker) {
    let (flag, waker) = (flag.clone(), waker.clone());
    spawn(move || {
        flag.store(true, Relaxed);
        waker.wake();
    });
}

#[test]
fn a_poll_of_a_child_sees_what_was_done_before_either_of_two_wake_ups() {
    check(|| {
        let (a, b) = (flag(), flag());
        block_on(open_nursery(async |n: Nursery<'_>| {
            let (a, b) = (a.clone(), b.clone());
            n.spawn(async move {
                wait(
                    |waker| [&a, &b].iter().for_each(|flag| set_then_wake(flag, waker)),
                    || a.load(Relaxed) && b.load(Relaxed),
                )
                .await;
            });
        }));
    });
}

#[test]
fn a_poll_of_the_body_sees_what_was_done_before_either_of_two_wake_ups() {
    check(|| {
        let (a, b) = (flag(), flag());
        block_on(open_nursery(async |_: Nursery<'_>| {
            wait(
                |waker| [&a, &b].iter().for_each(|flag| set_then_wake(flag, waker)),
                || a.load(Relaxed) && b.load(Relaxed),
            )
            .await;
        }));
    });
}

#[test]
fn two_children_that_are_woken_on_two_threads_are_both_polled() {
    check(|| {
        let data = [Plain::new(), Plain::new()];
        block_on(open_nursery(async |n: Nursery<'_>| {
            for plain in &data {
                let plain = plain.clone();
                n.spawn(async move {
                    let there = plain.clone();
                    let give = move |waker: &Waker| {
                        let waker = waker.clone();
                        spawn(move || {
                            there.set(1);
                            waker.wake();
                        });
                    };
                    // A child is polled again only after it was woken, so the data is there.
                    wait(give, || plain.get() == 1).await;
                });
            }
        }));
    });
}

#[test]
fn a_task_that_is_awaited_on_another_thread_gets_the_result() {
    check(|| {
        let drops = Drops::default();
        let value = drops.track();
        let mut taker = None::<JoinHandle<()>>;
        block_on(open_nursery(async |n: Nursery<'_>| {
            let task = n.spawn(async move {
                value.touch();
                value
            });
            taker = Some(spawn(|| block_on(task).touch()));
        }));
        taker.unwrap().join().unwrap();
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn a_result_is_dropped_once_if_its_task_is_dropped_on_another_thread() {
    check(|| {
        let drops = Drops::default();
        let value = drops.track();
        let mut leaver = None::<JoinHandle<()>>;
        block_on(open_nursery(async |n: Nursery<'_>| {
            let task = n.spawn(async move {
                value.touch();
                value
            });
            leaver = Some(spawn(|| drop(task)));
        }));
        leaver.unwrap().join().unwrap();
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn a_task_that_is_cancelled_on_another_thread_ends_its_child() {
    check(|| {
        let mut canceller = None::<JoinHandle<Option<()>>>;
        block_on(open_nursery(async |n: Nursery<'_>| {
            let task = n.spawn(pending::<()>());
            canceller = Some(spawn(|| block_on(task.cancel())));
        }));
        assert_eq!(canceller.unwrap().join().unwrap(), None);
    });
}

#[test]
fn a_block_that_is_terminated_on_another_thread_returns_the_value() {
    check(|| {
        let value = block_on(open_nursery(async |n: Nursery<'_, u32>| {
            let handle = n.clone();
            spawn(move || handle.terminate(5));
            pending::<u32>().await
        }));
        assert_eq!(value, 5);
    });
}

#[test]
fn a_spawn_from_another_thread_is_run_or_refused() {
    check(|| {
        let drops = Drops::default();
        let value = drops.track();
        let mut spawner = None::<JoinHandle<bool>>;
        let ran = flag();
        block_on(open_nursery(async |n: Nursery<'_>| {
            let (handle, ran) = (n.clone(), ran.clone());
            let future = async move {
                value.touch();
                ran.store(true, Relaxed);
            };
            spawner = Some(spawn(move || handle.spawn_if_open(future).is_ok()));
        }));
        let accepted = spawner.unwrap().join().unwrap();
        assert_eq!(ran.load(Relaxed), accepted);
        assert_eq!(drops.count(), 1);
    });
}

/// A block without a body.
struct Children(BlockDriver);

impl Children {
    fn new() -> Self {
        Children(BlockDriver::begin(false))
    }

    fn nursery(&self) -> Arc<NurseryState> {
        self.0.nursery.clone()
    }
}

impl Future for Children {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.register(cx.waker());
        let position = self.0.enter();
        let ended = in_block(&self.nursery(), |guard| {
            self.0.drop_cancelled(guard);
            self.0.poll_ready(guard);
            self.0.try_end(guard)
        });
        drop(position);
        if ended.is_some() {
            self.0.leave();
            return Poll::Ready(());
        }
        self.0.wait(cx);
        Poll::Pending
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        let nursery = self.nursery();
        assert!(in_block(&nursery, |guard| self.0.abort(guard, || ())).is_none());
    }
}

/// Spawns a child.
fn put<F: Future<Output: Send + 'static> + Send + 'static>(
    nursery: &Arc<NurseryState>,
    future: F,
) -> Result<RawTask, F> {
    // SAFETY: `F` is `Send` and `'static`, and so is its output.
    unsafe { child::spawn::<F, F>(nursery, None, false, future) }
}

#[test]
fn a_waker_that_outlives_its_child_is_the_last_to_let_go_of_the_memory() {
    check(|| {
        let children = Children::new();
        let nursery = children.nursery();
        let drops = Drops::default();
        let value = drops.track();
        let mut future = Box::pin(wait(
            |waker| {
                let (first, second) = (waker.clone(), waker.clone());
                spawn(move || {
                    first.wake();
                    drop(second);
                });
            },
            || true,
        ));
        let child = poll_fn(move |cx| {
            value.touch();
            future.as_mut().poll(cx)
        });
        drop(put(&nursery, child).map_err(drop).unwrap());
        block_on(children);
        assert_eq!(drops.count(), 1);
        // Each child has a reference to the nursery. The other thread drops the last one besides
        // ours.
        while Arc::strong_count(&nursery) > 1 {
            loom::thread::yield_now();
        }
    });
}

/// Reads the children. `None` if the block is being polled, and this is not to `wait`.
fn found(nursery: &NurseryState, wait: bool) -> Option<Vec<TaskId>> {
    let found = nursery.children(wait)?;
    Some(found.iter().map(ChildRef::id).collect())
}

#[test]
fn a_read_from_another_thread_finds_the_child_that_lives_and_none_that_has_ended() {
    check(|| {
        let children = Children::new();
        let nursery = children.nursery();
        let (give, given) = std::sync::mpsc::channel();
        let there = nursery.clone();
        let waits = wait(
            move |waker| {
                // While this block is polled, another thread begins to read, and one more child is
                // spawned.
                let (reads, waker) = (there.clone(), waker.clone());
                let reading = spawn(move || {
                    let first = found(&reads, true).unwrap();
                    waker.wake();
                    // From now on all children may end at any time.
                    let second = found(&reads, false).unwrap_or_default();
                    assert!(second.iter().all(|child| first.contains(child)));
                    first
                });
                give.send(reading).unwrap();
                drop(put(&there, std::future::ready(())).map_err(drop).unwrap());
            },
            || true,
        );
        let handle = put(&nursery, waits).map_err(drop).unwrap();
        let waits = handle.child().id();
        block_on(children);
        let first = given.recv().unwrap().join().unwrap();
        assert!(first[0] == waits && first.len() <= 2);
        assert_eq!(found(&nursery, false).unwrap(), []);
    });
}

#[test]
fn a_block_that_is_dropped_during_a_read_drops_everything_once() {
    check(|| {
        let mut children = Children::new();
        let nursery = children.nursery();
        let drops = Drops::default();
        // One child that was polled, and one that was not.
        for polled in [true, false] {
            let value = drops.track();
            let child = async move {
                value.touch();
                pending::<()>().await;
            };
            drop(put(&nursery, child).map_err(drop).unwrap());
            if polled {
                let cx = &mut Context::from_waker(Waker::noop());
                assert!(Pin::new(&mut children).poll(cx).is_pending());
            }
        }
        let there = nursery.clone();
        let reading = spawn(move || found(&there, false));
        drop(children);
        let seen = reading.join().unwrap();
        // Children that had ended are not in it.
        assert!(seen.is_none_or(|seen| seen.len() <= 2));
        assert_eq!(drops.count(), 2);
        assert_eq!(Arc::strong_count(&nursery), 1);
    });
}

#[test]
fn a_block_that_is_dropped_while_it_is_woken_drops_everything_once() {
    check(|| {
        let mut children = Children::new();
        let nursery = children.nursery();
        let drops = Drops::default();
        let (waiting, late) = (drops.track(), drops.track());
        let mut thread = None::<JoinHandle<()>>;
        let (give, given) = std::sync::mpsc::channel();
        let handle = put(&nursery, async move {
            waiting.touch();
            wait(|waker| give.send(waker.clone()).unwrap(), || false).await;
            drop(waiting);
        });
        drop(handle.map_err(drop).unwrap());
        let polled = Pin::new(&mut children).poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        let waker = given.recv().unwrap();
        let there = nursery.clone();
        thread.replace(spawn(move || {
            waker.wake();
            // A child that the block never polls, or refuses.
            drop(put(&there, async move { late.touch() }));
        }));
        drop(children);
        thread.unwrap().join().unwrap();
        assert_eq!(drops.count(), 2);
        assert_eq!(Arc::strong_count(&nursery), 1);
    });
}
