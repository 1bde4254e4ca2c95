//! Producers: they make values only on request, never ahead, and end with the block.

#[path = "../common/polling.rs"]
mod polling;
mod stream;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Poll;
use std::time::Duration;

use futures_lite::StreamExt;
use futures_lite::future::{poll_once, zip};
use polling::{Drops, Hand, OnDrop, end_at_every_poll, turns};
use seedbed::sync::{Event, Produced, Producer, RecvError, open_producer, try_open_producer};
use seedbed::testing::{MockClock, wait_all_tasks_blocked};
use seedbed::time::sleep_forever;
use seedbed::{
    CancelScope, RunBuilder, checkpoint, move_on_after, on_cancel, open_nursery, run, shield, sleep,
};

const SECOND: Duration = Duration::from_secs(1);

/// Makes the numbers from 0 on, and counts those that it has begun to make.
async fn count(mut numbers: Producer<usize>, begun: &AtomicUsize) {
    loop {
        let n = begun.fetch_add(1, SeqCst);
        turns(1).await;
        numbers.send(n).await;
    }
}

/// Runs in virtual time.
fn virtually<F: Future>(future: F) -> F::Output {
    RunBuilder::new().clock(MockClock::autojump()).run(future)
}

#[test]
fn all_values_arrive_in_order_and_then_comes_the_end() {
    let received = run(open_producer(
        async |mut values| {
            for n in 0..5 {
                turns(n).await;
                values.send(n).await;
            }
        },
        async |values| {
            let mut received = Vec::new();
            while let Ok(n) = values.recv().await {
                turns(5 - n).await;
                received.push(n);
            }
            assert_eq!(values.recv().await, Err(RecvError::EndOfChannel));
            received
        },
    ));
    assert_eq!(received, [0, 1, 2, 3, 4]);
}

#[test]
fn a_value_is_made_only_when_it_is_asked_for() {
    let begun = &AtomicUsize::new(0);
    run(open_producer(
        |numbers| count(numbers, begun),
        async |numbers| {
            for n in 0..5 {
                wait_all_tasks_blocked().await;
                assert_eq!(begun.load(SeqCst), n, "nothing is made ahead");
                assert_eq!(numbers.recv().await, Ok(n));
            }
        },
    ));
    assert_eq!(begun.load(SeqCst), 5);
}

#[test]
fn a_producer_that_nobody_asks_never_begins_and_is_dropped() {
    let drops = Drops::new();
    let value = drops.value();
    run(open_producer(
        move |_: Producer<u8>| {
            drop(value);
            async { unreachable!("nobody asked") }
        },
        async |_| {
            wait_all_tasks_blocked().await;
            assert_eq!(drops.alive(), 1);
        },
    ));
    drops.assert_all_dropped();
}

#[test]
fn the_loop_of_a_stream_asks_for_one_value_at_a_time() {
    let begun = &AtomicUsize::new(0);
    run(open_producer(
        |numbers| count(numbers, begun),
        async |mut numbers| {
            let mut expected = 0;
            while let Some(n) = numbers.next().await {
                assert_eq!(n, expected);
                wait_all_tasks_blocked().await;
                expected += 1;
                assert_eq!(begun.load(SeqCst), expected);
                if n == 4 {
                    break;
                }
            }
        },
    ));
}

#[test]
fn leaving_the_block_cancels_the_producer_and_waits_until_it_is_gone() {
    let log = &std::sync::Mutex::new(Vec::new());
    let value = virtually(open_producer(
        async |mut values| {
            let clean_up = async {
                sleep(SECOND).await;
                log.lock().unwrap().push("cleaned up");
            };
            on_cancel(values.send(1), clean_up).await;
        },
        async |values| {
            assert_eq!(values.recv().await, Ok(1));
            log.lock().unwrap().push("left");
            "the block's value"
        },
    ));
    assert_eq!(value, "the block's value");
    assert_eq!(*log.lock().unwrap(), ["left", "cleaned up"]);
}

#[test]
fn a_handle_that_leaves_the_block_has_reached_the_end() {
    run(async {
        let values = open_producer(
            async |mut values| values.send(1).await,
            async |values| values,
        );
        let values: Produced<i32> = values.await;
        assert_eq!(values.recv().await, Err(RecvError::EndOfChannel));
    });
}

#[test]
fn closing_before_anybody_asked_ends_the_producer_before_it_began() {
    run(open_producer(
        |_: Producer<u8>| async { unreachable!("nobody asked") },
        async |values| {
            values.close();
            assert_eq!(values.recv().await, Err(RecvError::Closed));
            values.close();
            assert!(values.is_closed() && values.clone().is_closed());
        },
    ));
}

#[test]
fn closing_between_two_values_ends_the_producer_where_it_waits_to_be_asked() {
    let drops = Drops::new();
    let value = drops.value();
    run(open_producer(
        async move |mut values| {
            let _value = value;
            values.send(1).await;
            unreachable!("nobody asked");
        },
        async |values| {
            assert_eq!(values.recv().await, Ok(1));
            values.close();
            wait_all_tasks_blocked().await;
            drops.assert_all_dropped();
            assert_eq!(values.recv().await, Err(RecvError::Closed));
        },
    ));
}

#[test]
fn closing_while_a_value_is_made_ends_the_producer_at_its_next_send_and_not_before() {
    let (go, sends, done) = (Event::new(), Cell::new(false), Event::new());
    let finished = done.clone();
    run(open_producer(
        {
            let (go, done) = (go.clone(), done.clone());
            async move |mut values: Producer<&'static str>| {
                go.wait().await;
                let _done = OnDrop(|| {
                    done.set();
                });
                values.send("too late").await;
                unreachable!("nobody receives");
            }
        },
        async |values| {
            let mut receiving = Box::pin(values.recv());
            assert_eq!(poll_once(&mut receiving).await, None);
            wait_all_tasks_blocked().await;
            values.close();
            assert_eq!(receiving.await, Err(RecvError::Closed));
            wait_all_tasks_blocked().await;
            assert!(!finished.is_set(), "it is in the middle of something");
            go.set();
            finished.wait().await;
            sends.set(true);
        },
    ));
    assert!(sends.get());
}

#[test]
fn the_last_handle_of_several_ends_the_producer_and_each_value_goes_to_one() {
    let begun = &AtomicUsize::new(0);
    run(open_producer(
        |numbers| count(numbers, begun),
        async |numbers| {
            let other = numbers.clone();
            let both = zip(numbers.recv(), other.recv());
            assert_eq!(both.await, (Ok(0), Ok(1)));
            drop(numbers);
            assert_eq!(other.recv().await, Ok(2));
            assert_eq!(begun.load(SeqCst), 3);
        },
    ));
}

#[test]
fn a_receive_that_is_cancelled_takes_its_wish_back() {
    let begun = &AtomicUsize::new(0);
    let mut block = Hand::new(open_producer(
        |numbers| count(numbers, begun),
        async |numbers| {
            // Dropped before the producer has run.
            assert_eq!(poll_once(numbers.recv()).await, None);
            checkpoint().await;
            assert_eq!(begun.load(SeqCst), 0);
            assert_eq!(numbers.recv().await, Ok(0));
        },
    ));
    assert_eq!(block.settle(), Poll::Ready(()));
}

#[test]
fn a_value_that_is_being_made_when_the_receive_is_cancelled_is_the_next_ones() {
    let begun = &AtomicUsize::new(0);
    virtually(open_producer(
        async move |mut numbers: Producer<usize>| {
            loop {
                let n = begun.fetch_add(1, SeqCst);
                sleep(5 * SECOND).await;
                numbers.send(n).await;
            }
        },
        async |numbers| {
            assert_eq!(move_on_after(SECOND, numbers.recv()).await, None);
            sleep(60 * SECOND).await;
            assert_eq!(begun.load(SeqCst), 1, "one wish, one value");
            assert_eq!(move_on_after(SECOND, numbers.recv()).await, Some(Ok(0)));
            sleep(60 * SECOND).await;
            assert_eq!(begun.load(SeqCst), 1, "and that was it");
            assert_eq!(numbers.recv().await, Ok(1));
        },
    ));
}

#[test]
fn a_scope_of_the_producer_s_does_not_touch_who_receives() {
    virtually(open_producer(
        async |mut values| {
            // Two time limits that expire while the other side is busy, and a scope that is
            // cancelled around a send.
            move_on_after(SECOND, values.send("in a limit")).await;
            let scope = CancelScope::new();
            scope.cancel();
            assert_eq!(scope.run(values.send("lost")).await, None);
            values.send("after").await;
        },
        async |values| {
            assert_eq!(values.recv().await, Ok("in a limit"));
            sleep(60 * SECOND).await;
            assert_eq!(values.recv().await, Ok("after"));
            assert_eq!(values.recv().await, Err(RecvError::EndOfChannel));
        },
    ));
}

#[test]
fn cancelling_the_block_reaches_both_sides_and_waits_for_their_shields() {
    let log = &std::sync::Mutex::new(Vec::new());
    let cut_off = virtually(move_on_after(
        SECOND,
        open_producer(
            async |_: Producer<u8>| {
                shield(async {
                    sleep(3 * SECOND).await;
                    log.lock().unwrap().push("the producer's shield");
                })
                .await;
                sleep_forever().await;
            },
            async |values| {
                let _gone = OnDrop(|| log.lock().unwrap().push("the receiver"));
                values.recv().await.is_ok()
            },
        ),
    ));
    assert_eq!(cut_off, None);
    assert_eq!(
        *log.lock().unwrap(),
        ["the receiver", "the producer's shield"]
    );
}

#[test]
fn a_producer_in_a_producer_is_a_loop_in_a_loop() {
    let pairs = RefCell::new(Vec::new());
    run(open_producer(
        async |mut outer| {
            for n in 0..3 {
                outer.send(n).await;
            }
        },
        async |outer| {
            while let Ok(n) = outer.recv().await {
                let inner = open_producer(
                    async |mut inner| {
                        for m in 0..2 {
                            inner.send((n, m)).await;
                        }
                    },
                    async |inner| inner.collect::<Vec<_>>().await,
                );
                let inner = inner.await;
                pairs.borrow_mut().extend(inner);
            }
        },
    ));
    let expected = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)];
    assert_eq!(*pairs.borrow(), expected);
}

#[test]
fn the_first_error_of_either_side_cancels_the_other_and_is_the_block_s() {
    let drops = Drops::new();
    let (here, there) = (drops.value(), drops.value());
    let result: Result<(), &str> = run(try_open_producer(
        async move |mut values| {
            let _there = there;
            values.send(1).await;
            Err("the producer's")
        },
        async move |values| {
            let _here = here;
            assert_eq!(values.recv().await, Ok(1));
            let second = values.recv().await;
            unreachable!("{second:?} instead of being cancelled");
        },
    ));
    assert_eq!(result, Err("the producer's"));
    drops.assert_all_dropped();

    let there = drops.value();
    let result: Result<(), &str> = run(try_open_producer(
        async move |mut values| {
            let _there = there;
            values.send(1).await;
            unreachable!("it is cancelled");
        },
        async |values| {
            assert_eq!(values.recv().await, Ok(1));
            Err("the body's")
        },
    ));
    assert_eq!(result, Err("the body's"));
    drops.assert_all_dropped();
}

#[test]
fn a_producer_that_is_cancelled_when_the_block_is_left_has_not_failed() {
    let result: Result<i32, &str> = run(try_open_producer(
        async |mut values| {
            loop {
                values.send(5).await;
            }
        },
        async |values| values.recv().await.map_err(|_| "no value"),
    ));
    assert_eq!(result, Ok(5));
}

#[test]
fn a_panic_of_the_producer_comes_out_of_the_block() {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        run(open_producer(
            async |mut values| {
                values.send(1).await;
                panic!("in the producer");
            },
            async |values| while values.recv().await.is_ok() {},
        ));
    }));
    let payload = outcome.expect_err("it panics");
    assert_eq!(payload.downcast_ref(), Some(&"in the producer"));
}

#[test]
fn the_block_may_borrow_and_run_on_an_executor() {
    let task = smol::spawn(async {
        let text = String::from("a b c");
        let words = open_producer(
            async |mut words| {
                for word in text.split(' ') {
                    words.send(word).await;
                }
            },
            async |words| words.collect::<Vec<_>>().await.len(),
        );
        words.await
    });
    assert_eq!(smol::block_on(task), 3);
}

#[test]
fn a_block_loses_nothing_wherever_it_is_dropped_or_cancelled() {
    let polls = end_at_every_poll(|drops| async move {
        open_nursery(async |n| {
            let drops = &drops;
            n.spawn(open_producer(
                async move |mut values| {
                    let _here = drops.value();
                    for _ in 0..3 {
                        turns(1).await;
                        values.send(drops.value()).await;
                    }
                },
                async |values| {
                    while let Ok(_value) = values.recv().await {
                        turns(1).await;
                    }
                },
            ));
        })
        .await;
    });
    assert!(polls > 5, "{polls}");
}
