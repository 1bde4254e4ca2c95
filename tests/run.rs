//! Runs: what they return, when they may not be entered, their time, and idleness.

#[path = "common/panics.rs"]
mod panics;
#[path = "common/polling.rs"]
mod polling;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::{Poll, Waker};
use std::time::Duration;

use panics::panic_of;
use polling::{Drops, turns};
use seedbed::instrument::Instrument;
use seedbed::run::{CtrlC, RunHandle, current_run};
use seedbed::sync::Event;
use seedbed::testing::{MockClock, wait_all_tasks_blocked};
use seedbed::time::{current_time, sleep_forever, sleep_until};
use seedbed::{
    CancelScope, RunBuilder, checkpoint, move_on_after, open_nursery, run, shield, sleep,
};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Runs a future in virtual time, and returns how much of it that took.
fn virtually<F: Future>(future: F) -> (F::Output, Duration) {
    let clock = MockClock::autojump();
    let value = RunBuilder::new().clock(clock.clone()).run(future);
    (value, clock.elapsed())
}

// ---- Regressions.

/// The loop parked without looking at the deadlines when all tasks that waited for idleness had
/// been dropped by then.
#[test]
fn a_wait_for_idleness_that_is_dropped_does_not_stop_the_clock() {
    let block = open_nursery(|n| async move {
        let waits = n.spawn(wait_all_tasks_blocked());
        checkpoint().await;
        waits.cancel().await;
        sleep(5 * SECOND).await;
    });
    assert_eq!(virtually(block).1, 5 * SECOND);
}

/// A scope's handle on another thread compared deadlines of the run's clock with the time of that
/// thread.
#[test]
fn a_scope_s_deadline_is_in_the_run_s_time_on_other_threads_too() {
    let clock = MockClock::new();
    clock.jump(100 * SECOND);
    RunBuilder::new().clock(clock).run(async {
        let scope = CancelScope::new();
        let handle = scope.clone();
        let body = async move {
            let (here, there) = (handle.clone(), handle);
            std::thread::spawn(move || there.set_timeout(3 * SECOND))
                .join()
                .unwrap();
            assert_eq!(here.deadline(), Some(current_time() + 3 * SECOND));
            here.set_deadline(Some(current_time()));
            std::thread::spawn(move || here.is_cancelled())
                .join()
                .unwrap()
        };
        assert_eq!(scope.run(body).await, Some(true));
    });
}

/// A sleep stayed with the timers of its run, which had ended, and never woke.
#[test]
fn a_sleep_whose_run_has_ended_goes_on_in_another_run_or_outside() {
    let begun = || {
        let mut nap = Box::pin(sleep(5 * MILLISECOND));
        run(futures_lite::future::poll_once(&mut nap));
        nap
    };
    run(begun());
    smol::block_on(begun());
    // It sleeps for the rest of its time, on the clock of the other run.
    let mut nap = Box::pin(sleep(5 * SECOND));
    virtually(async {
        let both = move_on_after(2 * SECOND, &mut nap);
        assert!(both.await.is_none());
    });
    assert_eq!(virtually(nap).1, 3 * SECOND);
}

#[test]
fn a_time_limit_whose_run_has_ended_goes_on_in_another_run_or_outside() {
    let begun = || {
        let mut limit = Box::pin(move_on_after(5 * MILLISECOND, sleep_forever()));
        run(futures_lite::future::poll_once(&mut limit));
        limit
    };
    assert!(run(begun()).is_none());
    assert!(smol::block_on(begun()).is_none());
}

#[test]
fn a_sleep_that_another_thread_polls_when_its_run_ends_is_woken() {
    let mut nap = Box::pin(sleep(50 * MILLISECOND));
    let (polled, is_polled) = mpsc::channel();
    let thread = run(async move {
        assert!(futures_lite::future::poll_once(&mut nap).await.is_none());
        let thread = std::thread::spawn(move || {
            let mut first = true;
            smol::block_on(std::future::poll_fn(|cx| {
                let ended = nap.as_mut().poll(cx);
                if std::mem::take(&mut first) {
                    polled.send(()).unwrap();
                }
                ended
            }));
        });
        is_polled.recv().unwrap();
        thread
    });
    thread.join().unwrap();
}

#[test]
fn a_wait_for_idleness_ends_with_its_run() {
    let mut wait = Box::pin(wait_all_tasks_blocked());
    run(futures_lite::future::poll_once(&mut wait));
    run(wait);
}

/// Tells whether the loop parks.
struct Parks {
    parked: Event,
    /// The number of turns without parking.
    busy: AtomicUsize,
}

impl Instrument for Parks {
    fn before_io_wait(&self, timeout: Option<Duration>) {
        let is_busy = timeout == Some(Duration::ZERO);
        // Ends a loop that does not park, too.
        if !is_busy || self.busy.fetch_add(1, SeqCst) > 1000 {
            self.parked.set();
        }
    }
}

/// The loop asked the clock again and again to jump to a deadline behind the end of its time.
#[test]
fn a_run_waits_without_a_loop_for_a_deadline_that_its_clock_does_not_reach() {
    let (parked, busy) = (Event::new(), AtomicUsize::new(0));
    let parks = Arc::new(Parks {
        parked: parked.clone(),
        busy,
    });
    let never = Duration::from_secs(1 << 53);
    RunBuilder::new()
        .clock(MockClock::autojump())
        .instrument(parks.clone())
        .run(async {
            let (woken, is_woken) = mpsc::channel();
            let thread = std::thread::spawn(move || {
                smol::block_on(parked.wait());
                woken.send(()).unwrap();
            });
            let waits = move_on_after(never, async move {
                seedbed::thread::run_sync(move || is_woken.recv().unwrap()).await
            });
            assert_eq!(waits.await, Some(()));
            thread.join().unwrap();
        });
    assert!(parks.busy.load(SeqCst) < 1000);
}

/// It waited forever, and said nothing.
#[test]
fn a_run_that_nothing_can_wake_panics_with_its_tasks() {
    let text = panic_of(|| virtually(sleep_forever()));
    assert!(text.starts_with("nothing can wake this run"), "{text}");
    assert!(text.contains("Pending"), "the main task is listed: {text}");
    let own_waker_is_gone = std::future::poll_fn(|cx| {
        drop(cx.waker().clone());
        Poll::<()>::Pending
    });
    let text = panic_of(|| virtually(own_waker_is_gone));
    assert!(text.starts_with("nothing can wake this run"), "{text}");
}

#[test]
fn a_run_that_a_handle_or_a_waker_can_wake_waits() {
    let (sender, receiver) = mpsc::channel();
    let woken = std::thread::spawn(move || {
        let (handle, waker): (RunHandle, Waker) = receiver.recv().unwrap();
        // Both are kept until the run has made a turn of its loop without a task.
        handle.call(|| ()).unwrap();
        waker.wake();
        drop(handle);
    });
    let mut sender = Some(sender);
    let waits = std::future::poll_fn(|cx| match sender.take() {
        Some(sender) => {
            sender.send((current_run(), cx.waker().clone())).unwrap();
            Poll::Pending
        }
        None => Poll::Ready(()),
    });
    virtually(waits);
    woken.join().unwrap();
}

// ---- Entering.

#[test]
fn a_run_returns_its_future_s_value_or_panics_with_its_panic_and_may_borrow() {
    let text = String::from("borrowed");
    assert_eq!(run(async { text.len() }), 8);
    assert_eq!(run(async { Err::<(), _>("failed") }), Err("failed"));
    assert_eq!(panic_of(|| run(async { panic!("as is") })), "as is");
    assert_eq!(run(async { 1 }), 1, "the thread may run again");
}

#[test]
fn a_run_inside_of_a_run_on_the_same_thread_panics_and_says_what_to_do() {
    let says = panic_of(|| run(async { run(async {}) }));
    assert!(says.contains("called inside of another run on the same thread"));
    assert_eq!(
        run(async { std::thread::spawn(|| run(async { 5 })).join().unwrap() }),
        5
    );
    // The outer run survives the panic of the inner one.
    let survived = run(async {
        panic_of(|| run(async {}));
        sleep(Duration::from_millis(1)).await;
        6
    });
    assert_eq!(survived, 6);
}

#[test]
fn when_a_run_panics_everything_in_it_is_dropped() {
    let drops = Drops::new();
    let says = panic_of(|| {
        run(open_nursery(|n| {
            let value = drops.value();
            n.spawn(async move {
                sleep_forever().await;
                drop(value);
            });
            let value = drops.value();
            async move {
                checkpoint().await;
                drop(value);
                panic!("the root's");
            }
        }))
    });
    assert_eq!(says, "the root's");
    drops.assert_all_dropped();
}

#[test]
fn runs_on_several_threads_have_their_own_time() {
    let (send, receive) = mpsc::channel();
    std::thread::scope(|threads| {
        for hours in 1..4 {
            let send = send.clone();
            threads.spawn(move || {
                let clock = MockClock::autojump();
                RunBuilder::new()
                    .clock(clock.clone())
                    .run(sleep(hours * 3600 * SECOND));
                send.send(clock.elapsed() == hours * 3600 * SECOND).unwrap();
            });
        }
    });
    drop(send);
    assert_eq!(receive.iter().collect::<Vec<_>>(), [true; 3]);
}

/// The attribute makes ordinary tests.
#[seedbed::test]
async fn a_test_of_the_attribute_may_wait() {
    sleep(Duration::from_millis(1)).await;
}

#[seedbed::test]
async fn a_test_of_the_attribute_may_fail_with_an_error() -> Result<(), std::num::ParseIntError> {
    checkpoint().await;
    assert_eq!("5".parse::<u8>()?, 5);
    Ok(())
}

#[should_panic = "on purpose"]
#[seedbed::test]
async fn a_test_of_the_attribute_keeps_its_attributes() {
    panic!("on purpose");
}

// ---- Wake-ups.

#[test]
fn a_run_is_woken_by_threads_by_smol_and_by_the_system() {
    run(async {
        let happened = Event::new();
        let set = happened.clone();
        std::thread::spawn(move || set.set());
        happened.wait().await;
        assert_eq!(smol::spawn(async { 3 }).await, 3);
        assert_eq!(smol::unblock(|| 4).await, 4);
        let (mut reader, mut writer) = std::os::unix::net::UnixStream::pair()
            .map(|(one, two)| {
                (
                    smol::Async::new(one).unwrap(),
                    smol::Async::new(two).unwrap(),
                )
            })
            .unwrap();
        use smol::io::{AsyncReadExt, AsyncWriteExt};
        open_nursery(async |n| {
            n.spawn(async { writer.write_all(b"x").await.unwrap() });
            let mut byte = [0];
            reader.read_exact(&mut byte).await.unwrap();
        })
        .await;
    });
}

#[test]
fn a_busy_task_starves_neither_deadlines_nor_threads() {
    let set = Event::new();
    let wait = set.clone();
    run(async {
        let busy = async {
            loop {
                checkpoint().await;
            }
        };
        let ended: Option<()> = move_on_after(Duration::from_millis(2), busy).await;
        assert!(ended.is_none());
        std::thread::spawn(move || set.set());
        while !wait.is_set() {
            checkpoint().await;
        }
    });
}

// ---- Time.

#[test]
fn real_time_moves_on_and_a_sleep_never_ends_early() {
    run(async {
        let began = current_time();
        sleep(Duration::from_millis(3)).await;
        sleep_until(began + Duration::from_millis(6)).await;
        assert!(current_time() - began >= Duration::from_millis(6));
    });
}

#[test]
fn a_clock_that_stands_still_is_moved_by_hand_also_from_another_thread() {
    let clock = MockClock::new();
    let moved = clock.clone();
    RunBuilder::new().clock(clock.clone()).run(async move {
        let began = current_time();
        open_nursery(|n| async move {
            n.spawn(async move {
                sleep(3 * SECOND).await;
            });
            wait_all_tasks_blocked().await;
            std::thread::spawn(move || {
                moved.jump(SECOND);
                moved.jump(5 * SECOND);
            });
        })
        .await;
        assert!(current_time() - began >= 3 * SECOND);
    });
    assert_eq!(clock.elapsed(), 6 * SECOND);
}

#[test]
fn autojump_goes_from_deadline_to_deadline_and_may_be_turned_on_late() {
    let clock = MockClock::new();
    let handle = clock.clone();
    RunBuilder::new().clock(clock.clone()).run(async {
        let began = current_time();
        open_nursery(|n| async move {
            for seconds in [5, 1, 3] {
                n.spawn(async move {
                    sleep(seconds * SECOND).await;
                    assert_eq!(current_time() - began, seconds * SECOND);
                });
            }
            wait_all_tasks_blocked().await;
            assert_eq!(current_time(), began, "it stands still");
            handle.set_autojump_threshold(Some(Duration::ZERO));
        })
        .await;
    });
    assert_eq!(clock.elapsed(), 5 * SECOND);
}

#[test]
fn shields_and_cancellation_keep_virtual_time_right() {
    let (_, time) = virtually(async {
        let limited = move_on_after(SECOND, shield(sleep(3 * SECOND)));
        assert_eq!(limited.await, Some(()));
        assert_eq!(move_on_after(SECOND, sleep(3 * SECOND)).await, None);
    });
    assert_eq!(time, 4 * SECOND);
}

// ---- Idleness.

#[test]
fn waiting_for_idleness_lets_all_other_tasks_run_until_they_block_and_comes_before_a_jump() {
    let (_, time) = virtually(async {
        let steps = &AtomicUsize::new(0);
        open_nursery(|n| async move {
            n.spawn(async {
                for _ in 0..50 {
                    checkpoint().await;
                    steps.fetch_add(1, SeqCst);
                }
                sleep(SECOND).await;
                steps.fetch_add(1, SeqCst);
            });
            // Two waiters are woken together.
            let other = n.spawn(async {
                wait_all_tasks_blocked().await;
                steps.load(SeqCst)
            });
            wait_all_tasks_blocked().await;
            assert_eq!(steps.load(SeqCst), 50);
            assert_eq!(other.await, 50);
            sleep(2 * SECOND).await;
            assert_eq!(steps.load(SeqCst), 51);
            wait_all_tasks_blocked().await;
        })
        .await;
    });
    assert_eq!(time, 2 * SECOND);
}

#[test]
fn waiting_for_idleness_may_be_cancelled_and_repeated() {
    virtually(async {
        let scope = CancelScope::new();
        scope.cancel();
        assert_eq!(scope.run(wait_all_tasks_blocked()).await, None);
        for _ in 0..3 {
            wait_all_tasks_blocked().await;
            turns(2).await;
        }
    });
}

#[test]
fn a_run_may_leave_ctrl_c_alone() {
    let value = RunBuilder::new().ctrl_c(CtrlC::Leave).run(async {
        sleep(Duration::from_millis(1)).await;
        5
    });
    assert_eq!(value, 5);
}
