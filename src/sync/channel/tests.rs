//! The channel's futures, polled by hand.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_lite::Stream;

use super::{
    Receiver, RecvError, SendError, Sender, TryRecvError, TrySendError, channel, unbounded,
};
use crate::sync::test_waker::{Count, poll, poll_with};

/// Polls a future once; it must wait.
fn queued<F: Future + Unpin>(mut future: F) -> F {
    assert!(poll(&mut future).is_pending());
    future
}

/// The output of a future that must be ready.
fn ready<F: Future + Unpin>(mut future: F) -> F::Output {
    match poll(&mut future) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it still waits"),
    }
}

/// Polls the stream once.
fn next<T>(receiver: &mut Receiver<T>) -> Poll<Option<T>> {
    Pin::new(receiver).poll_next(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn handles_and_futures_are_send_and_sync_if_the_value_can_be_sent() {
    fn check<T: Send + Sync>() {}
    fn sendable<T: Send>() {}
    type Value = std::cell::Cell<u8>;
    check::<(Sender<Value>, Receiver<Value>)>();
    check::<super::Recv<'_, Value>>();
    sendable::<super::Send<'_, Value>>();
}

#[test]
fn values_are_buffered_up_to_the_capacity_and_arrive_in_order() {
    let (sender, receiver) = channel(2);
    assert_eq!(ready(sender.send(1)), Ok(()));
    assert_eq!(ready(sender.send(2)), Ok(()));
    let mut third = queued(sender.send(3));
    assert_eq!(sender.try_send(4), Err(TrySendError::WouldBlock(4)));
    assert_eq!(receiver.try_recv(), Ok(1));
    assert_eq!(ready(&mut third), Ok(()), "the place was the waiter's");
    assert_eq!(sender.try_send(4), Err(TrySendError::WouldBlock(4)));
    assert_eq!(ready(receiver.recv()), Ok(2));
    assert_eq!(ready(receiver.recv()), Ok(3));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::WouldBlock));
}

#[test]
fn a_rendezvous_waits_for_the_other_side_whoever_comes_first() {
    let (sender, receiver) = channel(0);
    assert_eq!(sender.try_send(0), Err(TrySendError::WouldBlock(0)));
    let mut sending = queued(sender.send(1));
    assert_eq!(receiver.try_recv(), Ok(1));
    assert_eq!(ready(&mut sending), Ok(()));
    let mut receiving = queued(receiver.recv());
    assert_eq!(sender.try_send(2), Ok(()));
    assert_eq!(ready(&mut receiving), Ok(2));
    assert_eq!(sender.statistics().peak_buffered, 0);
}

#[test]
fn a_value_that_is_sent_while_somebody_waits_cannot_be_taken_by_another() {
    let (sender, receiver) = channel(5);
    let mut first = queued(receiver.recv());
    let mut second = queued(receiver.recv());
    sender.try_send(1).unwrap();
    assert_eq!(receiver.try_recv(), Err(TryRecvError::WouldBlock));
    assert!(poll(&mut second).is_pending());
    assert_eq!(ready(&mut first), Ok(1));
    sender.try_send(2).unwrap();
    assert_eq!(ready(&mut second), Ok(2));
}

#[cfg_attr(miri, ignore = "too many values")]
#[test]
fn an_unbounded_channel_never_makes_senders_wait() {
    let (sender, receiver) = unbounded();
    for n in 0..1000 {
        assert_eq!(ready(sender.send(n)), Ok(()));
    }
    drop(sender);
    for n in 0..1000 {
        assert_eq!(ready(receiver.recv()), Ok(n));
    }
    assert_eq!(ready(receiver.recv()), Err(RecvError::EndOfChannel));
}

#[test]
fn closing_one_sender_tells_only_those_blocked_on_it() {
    let (sender, receiver) = channel(0);
    let other = sender.clone();
    let (mut blocked, mut kept) = (queued(sender.send(1)), queued(other.send(2)));
    let mut also_blocked = queued(sender.send(3));
    sender.close();
    sender.close();
    assert_eq!(sender.statistics().open_senders, 1);
    assert_eq!(ready(&mut blocked), Err(SendError::Closed(1)));
    assert_eq!(ready(&mut also_blocked), Err(SendError::Closed(3)));
    assert!(poll(&mut kept).is_pending());
    assert_eq!(sender.try_send(4), Err(TrySendError::Closed(4)));
    assert_eq!(ready(receiver.recv()), Ok(2));
}

#[test]
fn closing_one_receiver_tells_only_those_blocked_on_it() {
    let (sender, receiver) = channel(0);
    let other = receiver.clone();
    let (mut blocked, mut kept) = (queued(receiver.recv()), queued(other.recv()));
    receiver.close();
    receiver.close();
    assert_eq!(sender.statistics().open_receivers, 1);
    assert_eq!(ready(&mut blocked), Err(RecvError::Closed));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    sender.try_send(1).unwrap();
    assert_eq!(ready(&mut kept), Ok(1));
}

#[test]
fn what_is_buffered_can_be_received_after_the_last_sender_is_closed() {
    let (sender, receiver) = channel(3);
    let other = sender.clone();
    sender.try_send(1).unwrap();
    other.try_send(2).unwrap();
    drop((sender, other));
    assert_eq!(ready(receiver.recv()), Ok(1));
    assert_eq!(receiver.try_recv(), Ok(2));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::EndOfChannel));
    assert_eq!(ready(receiver.recv()), Err(RecvError::EndOfChannel));
}

#[test]
fn closing_the_last_sender_ends_the_receives_that_wait() {
    let (sender, receiver) = channel::<u8>(3);
    let (count, waker) = Count::new();
    let mut receiving = receiver.recv();
    assert!(poll_with(&mut receiving, &waker).is_pending());
    drop(sender);
    assert_eq!(count.wakes(), 1);
    assert_eq!(ready(&mut receiving), Err(RecvError::EndOfChannel));
}

#[test]
fn closing_the_last_receiver_drops_the_buffer_and_breaks_the_senders() {
    let value = Arc::new(());
    let (sender, receiver) = channel(1);
    sender.try_send(value.clone()).unwrap();
    let mut blocked = queued(sender.send(value.clone()));
    drop(receiver);
    assert_eq!(Arc::strong_count(&value), 2, "the buffer is gone");
    assert!(matches!(ready(&mut blocked), Err(SendError::Broken(_))));
    assert!(matches!(
        sender.try_send(value.clone()),
        Err(TrySendError::Broken(_))
    ));
    sender.close();
    let closed = sender.try_send(value.clone()).unwrap_err();
    assert_eq!(
        closed,
        TrySendError::Closed(value),
        "closed by you comes first"
    );
}

#[test]
fn a_clone_of_a_closed_handle_is_closed_and_does_not_count() {
    let (sender, receiver) = channel::<u8>(1);
    sender.close();
    let clone = sender.clone();
    assert!(clone.is_closed());
    assert_eq!(sender.statistics().open_senders, 0);
    drop(clone);
    receiver.close();
    assert!(receiver.clone().is_closed());
    assert_eq!(sender.statistics().open_receivers, 0);
}

#[test]
fn a_send_that_is_dropped_in_the_queue_is_not_sent_and_the_others_keep_their_order() {
    let (sender, receiver) = channel(0);
    let value = Arc::new(());
    let mut first = queued(sender.send((1, Arc::new(()))));
    let second = queued(sender.send((2, value.clone())));
    let mut third = queued(sender.send((3, Arc::new(()))));
    drop(second);
    assert_eq!(Arc::strong_count(&value), 1);
    assert_eq!(sender.statistics().waiting_senders, 2);
    assert_eq!(receiver.try_recv().unwrap().0, 1);
    assert_eq!(receiver.try_recv().unwrap().0, 3);
    assert_eq!((ready(&mut first), ready(&mut third)), (Ok(()), Ok(())));
}

#[test]
fn a_send_that_is_dropped_after_the_receiver_took_the_value_is_sent() {
    let (sender, receiver) = channel(0);
    let value = Arc::new(());
    let sending = queued(sender.send(value.clone()));
    let taken = receiver.try_recv().unwrap();
    drop(sending);
    assert!(Arc::ptr_eq(&taken, &value));
    assert_eq!(Arc::strong_count(&value), 2);
}

#[test]
fn a_receive_that_is_dropped_in_the_queue_takes_nothing() {
    let (sender, receiver) = channel(1);
    let first = queued(receiver.recv());
    let mut second = queued(receiver.recv());
    drop(first);
    assert_eq!(sender.statistics().waiting_receivers, 1);
    sender.try_send(1).unwrap();
    assert_eq!(ready(&mut second), Ok(1));
}

#[test]
fn a_value_goes_from_a_dropped_receive_to_the_next_that_waits() {
    let (sender, receiver) = channel(0);
    let first = queued(receiver.recv());
    let (count, waker) = Count::new();
    let mut second = receiver.recv();
    assert!(poll_with(&mut second, &waker).is_pending());
    sender.try_send(1).unwrap();
    drop(first);
    assert_eq!(count.wakes(), 1);
    assert_eq!(ready(&mut second), Ok(1));
}

#[test]
fn values_that_reached_dropped_receives_go_back_to_where_they_were() {
    let (sender, receiver) = channel(1);
    let waiting: Vec<_> = (0..3).map(|_| queued(receiver.recv())).collect();
    for n in 0..4 {
        sender.try_send(n).unwrap();
    }
    drop(waiting);
    assert_eq!(sender.statistics().buffered, 4);
    assert_eq!(sender.try_send(9), Err(TrySendError::WouldBlock(9)));
    let mut last = queued(sender.send(4));
    for n in 0..4 {
        assert_eq!(receiver.try_recv(), Ok(n));
    }
    assert_eq!(ready(&mut last), Ok(()));
    assert_eq!(receiver.try_recv(), Ok(4));
}

#[test]
fn a_value_that_reached_a_dropped_receive_is_received_before_the_end() {
    let (sender, receiver) = channel(0);
    let receiving = queued(receiver.recv());
    sender.try_send(1).unwrap();
    drop(sender);
    drop(receiving);
    assert_eq!(receiver.try_recv(), Ok(1));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::EndOfChannel));
}

#[test]
fn a_delivered_value_is_received_although_the_handle_was_closed_since() {
    let (sender, receiver) = channel(0);
    let mut receiving = queued(receiver.recv());
    sender.try_send(1).unwrap();
    receiver.close();
    assert_eq!(ready(&mut receiving), Ok(1));
}

#[test]
fn only_the_newest_waker_is_woken_and_only_once_on_both_sides() {
    let (old, old_waker) = Count::new();
    let (new, new_waker) = Count::new();
    let wakers = [&old_waker, &old_waker, &new_waker, &new_waker];
    let (sender, receiver) = channel(0);
    let mut receiving = receiver.recv();
    for waker in wakers {
        assert!(poll_with(&mut receiving, waker).is_pending());
    }
    assert_eq!(sender.statistics().waiting_receivers, 1);
    sender.try_send(1).unwrap();
    assert_eq!(ready(receiving), Ok(1));
    let mut sending = sender.send(2);
    for waker in wakers {
        assert!(poll_with(&mut sending, waker).is_pending());
    }
    assert_eq!(sender.statistics().waiting_senders, 1);
    assert_eq!(receiver.try_recv(), Ok(2));
    assert_eq!(ready(sending), Ok(()));
    assert_eq!((old.wakes(), new.wakes()), (0, 2));
    assert_eq!((Arc::strong_count(&old), Arc::strong_count(&new)), (2, 2));
}

#[test]
fn a_forgotten_send_is_sent_and_a_forgotten_receive_costs_one_value() {
    let (sender, receiver) = channel(0);
    mem::forget(queued(sender.send(1)));
    assert_eq!(receiver.try_recv(), Ok(1));
    mem::forget(queued(receiver.recv()));
    assert_eq!(sender.try_send(2), Ok(()));
    assert_eq!(sender.try_send(3), Err(TrySendError::WouldBlock(3)));
    mem::forget(queued(receiver.recv()));
    let other = receiver.clone();
    drop(receiver);
    assert_eq!(sender.try_send(4), Err(TrySendError::WouldBlock(4)));
    drop(other);
    assert_eq!(sender.try_send(5), Err(TrySendError::Broken(5)));
}

#[test]
fn a_stream_gives_the_values_until_the_end_or_until_it_is_closed() {
    let (sender, mut receiver) = channel(1);
    assert!(next(&mut receiver).is_pending());
    assert!(next(&mut receiver).is_pending());
    assert_eq!(sender.statistics().waiting_receivers, 1);
    sender.try_send(1).unwrap();
    assert_eq!(next(&mut receiver), Poll::Ready(Some(1)));
    let mut other = receiver.clone();
    other.close();
    assert_eq!(next(&mut other), Poll::Ready(None));
    drop(sender);
    assert_eq!(next(&mut receiver), Poll::Ready(None));
    assert_eq!(next(&mut receiver), Poll::Ready(None));
}

#[test]
fn what_reached_a_stream_that_nobody_polls_is_the_next_that_its_handle_gives() {
    let (sender, mut receiver) = channel(1);
    for by_future in [false, true] {
        assert!(next(&mut receiver).is_pending());
        sender.try_send(1).unwrap();
        sender.try_send(2).unwrap();
        let first = if by_future {
            ready(receiver.recv()).map_err(drop)
        } else {
            receiver.try_recv().map_err(drop)
        };
        assert_eq!(first, Ok(1));
        assert_eq!(receiver.try_recv(), Ok(2));
    }
    assert!(next(&mut receiver).is_pending());
    let receiving = queued(receiver.recv());
    assert_eq!(sender.statistics().waiting_receivers, 1);
    drop(receiving);
}

#[test]
fn what_reached_a_stream_goes_to_others_when_it_is_closed_or_dropped() {
    let (sender, mut receiver) = channel(1);
    let mut other = receiver.clone();
    assert!(next(&mut receiver).is_pending());
    assert!(next(&mut other).is_pending());
    sender.try_send(1).unwrap();
    receiver.close();
    assert_eq!(next(&mut receiver), Poll::Ready(None));
    assert_eq!(next(&mut other), Poll::Ready(Some(1)));
    let last = other.clone();
    assert!(next(&mut other).is_pending());
    sender.try_send(2).unwrap();
    drop(other);
    assert_eq!(last.try_recv(), Ok(2));
}

#[test]
fn statistics_count_both_sides() {
    let (sender, receiver) = channel(2);
    let (second, third) = (sender.clone(), receiver.clone());
    sender.try_send(1).unwrap();
    second.try_send(2).unwrap();
    let waiting = queued(sender.send(3));
    let statistics = third.statistics();
    assert_eq!((statistics.buffered, statistics.peak_buffered), (2, 2));
    assert_eq!((statistics.open_senders, statistics.open_receivers), (2, 2));
    assert_eq!(statistics.waiting_senders, 1);
    drop(waiting);
    assert_eq!((receiver.try_recv(), third.try_recv()), (Ok(1), Ok(2)));
    let statistics = sender.statistics();
    assert_eq!((statistics.buffered, statistics.peak_buffered), (0, 2));
}

#[test]
fn debug_never_shows_a_value() {
    let (sender, receiver) = channel(1);
    sender.try_send("secret").unwrap();
    let error = sender.try_send("secret").unwrap_err();
    let futures = (sender.send("secret"), receiver.recv());
    let broken = SendError::Broken("secret");
    let shown = format!("{sender:?} {receiver:?} {error:?} {error} {futures:?} {broken:?}");
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
#[should_panic(expected = "polled after it had completed")]
fn polling_a_send_after_the_end_is_a_clear_panic() {
    let (sender, _receiver) = channel(1);
    let mut sending = sender.send(1);
    assert_eq!(ready(&mut sending), Ok(()));
    assert!(poll(&mut sending).is_pending());
}

#[test]
fn a_values_drop_may_use_the_channel() {
    /// A value that uses the channel when it is dropped.
    struct Nosy(Option<Sender<Nosy>>);
    impl Drop for Nosy {
        fn drop(&mut self) {
            if let Some(sender) = &self.0 {
                assert_eq!(sender.statistics().open_receivers, 0);
            }
        }
    }
    let (sender, receiver) = channel(1);
    sender.try_send(Nosy(Some(sender.clone()))).ok().unwrap();
    drop(receiver);
    assert!(sender.try_send(Nosy(None)).is_err());
}

#[test]
fn threads_on_both_sides_pass_every_value_once() {
    for capacity in [0, 3] {
        let (sender, receiver) = channel(capacity);
        let sum: usize = std::thread::scope(|scope| {
            for _ in 0..3 {
                let sender = sender.clone();
                scope.spawn(move || {
                    for n in 1..=300 {
                        futures_lite::future::block_on(sender.send(n)).unwrap();
                    }
                });
            }
            drop(sender);
            let receivers = [receiver.clone(), receiver];
            let sums = receivers.map(|receiver| {
                scope.spawn(move || {
                    let all =
                        std::iter::from_fn(|| futures_lite::future::block_on(receiver.recv()).ok());
                    all.sum::<usize>()
                })
            });
            sums.map(|sum| sum.join().unwrap()).into_iter().sum()
        });
        assert_eq!(sum, 3 * 300 * 301 / 2);
    }
}

#[test]
fn threads_that_drop_their_receives_at_any_moment_lose_no_value() {
    let (sender, receiver) = channel(1);
    let last = if cfg!(miri) { 50 } else { 2000 };
    let sum: usize = std::thread::scope(|scope| {
        let receivers = [receiver.clone(), receiver];
        let sums = receivers.map(|receiver| {
            scope.spawn(move || {
                let mut sum = 0;
                loop {
                    // The value may arrive between the poll and the drop.
                    match poll(&mut receiver.recv()) {
                        Poll::Ready(Ok(n)) => sum += n,
                        Poll::Ready(Err(_end)) => return sum,
                        Poll::Pending => std::thread::yield_now(),
                    }
                }
            })
        });
        for n in 1..=last {
            futures_lite::future::block_on(sender.send(n)).unwrap();
        }
        drop(sender);
        sums.map(|sum| sum.join().unwrap()).into_iter().sum()
    });
    assert_eq!(sum, last * (last + 1) / 2);
}
