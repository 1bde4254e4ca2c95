//! The guarantees of all primitives that exclude other tasks or hand values over, inside a run.
//! Details are tested next to each source.

#[path = "common/polling.rs"]
mod polling;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use futures_lite::StreamExt;
use polling::{Hand, OnDrop, end_at_every_poll, turns};
use seedbed::nursery::open_local_nursery;
use seedbed::sync::{
    CapacityLimiter, Condvar, Event, Mutex, Receiver, RwLock, Semaphore, Sender, TryRecvError,
    TrySendError, channel,
};
use seedbed::testing::{assert_checkpoints, assert_no_checkpoints, wait_all_tasks_blocked};
use seedbed::{CancelScope, checkpoint, open_nursery, run};
use smol::lock::{Barrier, OnceCell};

/// A guard of any type.
type Guard = Box<dyn Any>;

/// A resource that one task at a time can hold.
struct Exclusive {
    name: &'static str,
    acquire: Box<dyn Fn() -> Pin<Box<dyn Future<Output = Guard>>>>,
    try_acquire: Box<dyn Fn() -> Option<Guard>>,
}

/// Builds a resource from a handle and its two operations.
fn exclusive<H, G, F>(
    name: &'static str,
    handle: H,
    acquire: impl Fn(H) -> F + 'static,
    try_acquire: impl Fn(H) -> Option<G> + 'static,
) -> Exclusive
where
    H: Clone + 'static,
    G: 'static,
    F: Future<Output = G> + 'static,
{
    let same = handle.clone();
    Exclusive {
        name,
        acquire: Box::new(move || {
            let acquiring = acquire(handle.clone());
            Box::pin(async move { Box::new(acquiring.await) as Guard })
        }),
        try_acquire: Box::new(move || {
            try_acquire(same.clone()).map(|guard| Box::new(guard) as Guard)
        }),
    }
}

/// A channel with one buffer slot: a task holds it from its send until it receives.
fn by_sending() -> Exclusive {
    type Ends = (Sender<()>, Receiver<()>);
    fn release((_, receiver): Ends) -> impl Sized {
        OnDrop(move || receiver.try_recv().expect("it holds the slot"))
    }
    exclusive(
        "a channel with one buffer slot",
        channel(1),
        |ends: Ends| async move {
            ends.0.send(()).await.unwrap();
            release(ends)
        },
        |ends| ends.0.try_send(()).ok().map(|()| release(ends)),
    )
}

/// A channel with one value: a task holds it from its receive until it sends it back.
fn by_receiving() -> Exclusive {
    type Ends = (Sender<()>, Receiver<()>);
    fn release((sender, _): Ends) -> impl Sized {
        OnDrop(move || sender.try_send(()).expect("it holds the value"))
    }
    let ends = channel(1);
    ends.0.try_send(()).unwrap();
    exclusive(
        "a channel with one value",
        ends,
        |ends: Ends| async move {
            ends.1.recv().await.unwrap();
            release(ends)
        },
        |ends| ends.1.try_recv().ok().map(|()| release(ends)),
    )
}

/// Each acquire has a key of its own, and all share one token.
fn by_key() -> Exclusive {
    fn key() -> u32 {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        NEXT.fetch_add(1, SeqCst)
    }
    exclusive(
        "a token for a key",
        CapacityLimiter::new(1),
        |limiter: CapacityLimiter| async move { limiter.acquire_for(key()).await.unwrap() },
        |limiter| limiter.try_acquire_for(key()).unwrap(),
    )
}

fn everything_exclusive() -> Vec<Exclusive> {
    let mut all = everything_that_is_returned();
    all.push(by_sending());
    all
}

/// All but the channel that is held by sending: a sent value stays sent, also if the future is
/// dropped before its next poll.
fn everything_that_is_returned() -> Vec<Exclusive> {
    vec![
        exclusive(
            "Mutex",
            Mutex::new(()),
            |lock| lock.lock(),
            |lock| lock.try_lock(),
        ),
        exclusive(
            "Semaphore",
            Semaphore::bounded(1, 1),
            |semaphore| semaphore.acquire(),
            |semaphore| semaphore.try_acquire(),
        ),
        exclusive(
            "CapacityLimiter",
            CapacityLimiter::new(1),
            |limiter| limiter.acquire(),
            |limiter| limiter.try_acquire(),
        ),
        exclusive(
            "RwLock",
            RwLock::new(()),
            |lock| lock.write(),
            |lock| lock.try_write(),
        ),
        by_receiving(),
        by_key(),
    ]
}

#[test]
fn one_at_a_time_is_in() {
    for lock in &everything_exclusive() {
        let inside = &Cell::new(false);
        run(open_local_nursery(async |n| {
            for _ in 0..5 {
                n.spawn(async move {
                    for _ in 0..5 {
                        let guard = (lock.acquire)().await;
                        assert!(!inside.replace(true), "{}", lock.name);
                        turns(2).await;
                        inside.set(false);
                        drop(guard);
                    }
                });
            }
        }));
    }
}

#[test]
fn those_who_come_again_and_again_take_turns() {
    for lock in &everything_exclusive() {
        let order = &RefCell::new(Vec::new());
        run(open_local_nursery(async |n| {
            for name in 0..3 {
                n.spawn(async move {
                    for _ in 0..10 {
                        let guard = (lock.acquire)().await;
                        checkpoint().await; // by then, all others have joined the queue
                        order.borrow_mut().push(name);
                        drop(guard);
                    }
                });
            }
        }));
        let order = order.borrow();
        assert!(
            order.chunks(3).all(|round| round == &order[..3]),
            "{}: {order:?}",
            lock.name
        );
    }
}

#[test]
fn what_is_let_go_belongs_to_the_longest_waiter_before_that_one_runs() {
    for lock in &everything_exclusive() {
        let name = lock.name;
        let holder = (lock.try_acquire)().expect("it is free");
        let mut first = Hand::new((lock.acquire)());
        let mut second = Hand::new((lock.acquire)());
        assert!(first.settle().is_pending() && second.settle().is_pending());
        drop(holder);
        assert!((lock.try_acquire)().is_none(), "{name}: nobody barges in");
        assert!(first.is_woken() && !second.is_woken(), "{name}");
        drop(first.finish());
        assert!((lock.try_acquire)().is_none(), "{name}");
        drop(second.finish());
        assert!((lock.try_acquire)().is_some(), "{name}");
    }
}

#[test]
fn whoever_is_cancelled_in_the_queue_leaves_it_and_a_grant_that_came_too_late_goes_on() {
    for lock in &everything_that_is_returned() {
        for granted in [false, true] {
            let mut holder = Some((lock.try_acquire)().expect("it is free"));
            let scope = CancelScope::new();
            let mut cancelled = Hand::new(scope.run((lock.acquire)()));
            let mut next = Hand::new((lock.acquire)());
            assert!(cancelled.settle().is_pending() && next.settle().is_pending());
            if granted {
                holder = None;
            }
            scope.cancel();
            assert!(cancelled.go_on().is_ready(), "{}", lock.name);
            drop((cancelled, holder));
            assert!(next.is_woken(), "{}", lock.name);
            drop(next.finish());
            assert!((lock.try_acquire)().is_some(), "{}", lock.name);
        }
    }
}

#[test]
fn acquiring_is_a_checkpoint_only_if_one_has_to_wait() {
    for lock in &everything_exclusive() {
        run(open_local_nursery(async |n| {
            let guard = assert_no_checkpoints((lock.acquire)()).await;
            n.spawn(async move {
                turns(1).await;
                drop(guard);
            });
            drop(assert_checkpoints((lock.acquire)()).await);
        }));
    }
}

#[test]
fn nothing_is_lost_wherever_it_is_dropped_or_cancelled() {
    for lock in &everything_that_is_returned() {
        end_at_every_poll(|drops| async move {
            open_local_nursery(async |n| {
                for _ in 0..3 {
                    let value = drops.value();
                    n.spawn(async move {
                        let guard = (lock.acquire)().await;
                        turns(1).await;
                        drop((guard, value));
                    });
                }
            })
            .await;
        });
        assert!((lock.try_acquire)().is_some(), "{}", lock.name);
    }
}

// ---- Channels.

#[test]
fn of_many_senders_every_value_arrives_and_the_loop_ends_with_the_last_one() {
    let mut received = run(open_nursery(async |n| {
        let (sender, receiver) = channel(0);
        for producer in 0..10 {
            let sender = sender.clone();
            n.spawn(async move {
                for value in 0..3 {
                    sender.send(producer * 3 + value).await.unwrap();
                }
            });
        }
        drop(sender);
        receiver.collect::<Vec<_>>().await
    }));
    received.sort();
    assert_eq!(received, (0..30).collect::<Vec<_>>());
}

#[test]
fn of_many_receivers_each_gets_some_and_every_value_goes_to_one() {
    let counts = &RefCell::new(vec![0; 5]);
    run(open_local_nursery(async |n| {
        let (sender, receiver) = channel(1);
        for consumer in 0..5 {
            let mut receiver = receiver.clone();
            n.spawn(async move {
                while receiver.next().await.is_some() {
                    counts.borrow_mut()[consumer] += 1;
                }
            });
        }
        drop(receiver);
        wait_all_tasks_blocked().await;
        for value in 0..10 {
            sender.send(value).await.unwrap();
        }
    }));
    let counts = counts.borrow();
    assert_eq!(counts.iter().sum::<i32>(), 10);
    assert!(!counts.contains(&0), "{counts:?}");
}

/// Trio's issue 553: a cancellation after the value was assigned loses no value.
#[test]
fn a_value_that_was_delivered_before_the_cancel_is_the_next_one_that_is_received() {
    let (sender, receiver) = channel(1);
    let scope = CancelScope::new();
    let mut receiving = Hand::new(scope.run(receiver.recv()));
    assert!(receiving.settle().is_pending());
    sender.try_send("a value").unwrap();
    scope.cancel();
    drop(receiving);
    assert_eq!(receiver.try_recv(), Ok("a value"));
}

// ---- Other primitives.

#[test]
fn an_event_wakes_all_who_wait_and_nobody_waits_for_it_afterwards() {
    run(open_nursery(async |n| {
        let event = Event::new();
        let tasks: Vec<_> = (0..3).map(|_| n.spawn(event.wait())).collect();
        wait_all_tasks_blocked().await;
        assert_eq!(event.statistics().waiting, 3);
        event.set();
        event.set();
        for task in tasks {
            task.await;
        }
        assert_eq!(event.statistics().waiting, 0);
        assert_no_checkpoints(event.wait()).await;
    }));
}

#[test]
fn a_condition_holds_the_lock_again_when_its_wait_is_over() {
    run(open_local_nursery(async |n| {
        let queue = Condvar::new(Vec::new());
        let consumer = n.spawn({
            let queue = queue.clone();
            async move {
                let mut guard = queue.lock().await;
                while guard.is_empty() {
                    guard = queue.wait(guard).await;
                }
                assert!(queue.mutex().is_locked());
                guard.pop()
            }
        });
        wait_all_tasks_blocked().await;
        let mut guard = queue.lock().await;
        guard.push("an item");
        queue.notify(&guard, 1);
        wait_all_tasks_blocked().await;
        assert!(!consumer.is_finished(), "the lock is held");
        drop(guard);
        assert_eq!(consumer.await, Some("an item"));
    }));
}

#[test]
fn a_once_cell_whose_maker_is_cancelled_is_made_by_the_next_one() {
    let cell = OnceCell::new();
    let scope = CancelScope::new();
    let mut first = Hand::new(scope.run(cell.get_or_init(async || {
        checkpoint().await;
        "the first one's"
    })));
    let mut second = Hand::new(cell.get_or_init(async || "the second one's"));
    assert!(first.poll().is_pending() && second.poll().is_pending());
    scope.cancel();
    assert!(first.settle().is_ready());
    assert!(second.is_woken());
    assert_eq!(second.finish(), &"the second one's");
}

#[test]
fn a_barrier_counts_a_wait_that_was_dropped() {
    let barrier = Barrier::new(2);
    let mut first = Hand::new(barrier.wait());
    assert!(first.settle().is_pending());
    drop(first);
    assert!(Hand::new(barrier.wait()).finish().is_leader());
}

#[test]
fn statistics_say_how_many_hold_and_how_many_wait() {
    let limiter = CapacityLimiter::new(2);
    let semaphore = Semaphore::bounded(1, 5);
    let queue = Condvar::new(());
    let lock = queue.mutex();
    run(open_local_nursery(async |n| {
        let held = (
            limiter.acquire().await,
            limiter.acquire().await,
            semaphore.acquire().await,
        );
        for _ in 0..3 {
            n.spawn(limiter.acquire());
            n.spawn(semaphore.acquire());
            n.spawn(async { queue.wait(queue.lock().await).await });
        }
        wait_all_tasks_blocked().await;
        let guard = queue.lock().await;
        n.spawn(lock.lock());
        wait_all_tasks_blocked().await;

        let statistics = limiter.statistics();
        assert_eq!(
            (statistics.total, statistics.borrowed, statistics.waiting),
            (Some(2), 2, 3)
        );
        let statistics = semaphore.statistics();
        assert_eq!((statistics.value, statistics.held), (0, 1));
        assert_eq!((statistics.max, statistics.waiting), (Some(5), 3));
        let statistics = lock.statistics();
        assert_eq!((statistics.locked, statistics.waiting), (true, 1));
        let statistics = queue.statistics();
        assert_eq!((statistics.waiting, statistics.mutex.waiting), (3, 1));
        queue.notify(&guard, 2);
        let statistics = queue.statistics();
        assert_eq!((statistics.waiting, statistics.mutex.waiting), (1, 3));
        drop((guard, held));
        n.cancel();
    }));
    assert_eq!(
        (limiter.borrowed(), semaphore.value(), lock.is_locked()),
        (0, 1, false)
    );
}

#[test]
fn who_closed_what_is_said_before_what_the_others_did() {
    let (sender, receiver) = channel(0);
    assert_eq!(sender.try_send(1), Err(TrySendError::WouldBlock(1)));
    receiver.close();
    assert_eq!(sender.try_send(1), Err(TrySendError::Broken(1)));
    sender.close();
    assert_eq!(sender.try_send(1), Err(TrySendError::Closed(1)));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
}

#[test]
fn a_handle_that_is_forgotten_is_not_closed() {
    let (sender, receiver) = channel::<()>(0);
    std::mem::forget(sender);
    assert_eq!(receiver.try_recv(), Err(TryRecvError::WouldBlock));
    let (sender, receiver) = channel(0);
    std::mem::forget(receiver);
    assert_eq!(sender.try_send(1), Err(TrySendError::WouldBlock(1)));
}
