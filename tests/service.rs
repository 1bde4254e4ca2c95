//! `service::supervise` and `service::serve`, in virtual time.

mod common;

use std::future::IntoFuture;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::alone;
use seedbed::nursery::open_local_nursery;
use seedbed::run::CtrlC;
use seedbed::service::{Shutdown, SuperviseError, serve, supervise};
use seedbed::signal::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SignalErrorKind};
use seedbed::sync::channel;
use seedbed::testing::MockClock;
use seedbed::time::{current_time, sleep_forever};
use seedbed::worker::WorkerErrorKind;
use seedbed::{
    RunBuilder, checkpoint, fail_after, move_on_after, on_cancel, open_nursery, run_sync, shield,
    sleep, try_open_nursery,
};

const SECOND: Duration = Duration::from_secs(1);

/// Runs a test in virtual time, and returns its value and the time that has passed.
fn timed<T>(future: impl IntoFuture<Output = T>) -> (T, Duration) {
    let clock = MockClock::autojump();
    let run = RunBuilder::new().clock(clock.clone()).ctrl_c(CtrlC::Leave);
    (run.run(future), clock.elapsed())
}

// ---- supervise

#[test]
fn a_child_is_restarted_after_growing_pauses_until_it_succeeds() {
    let starts = &Mutex::new(Vec::new());
    let (value, _) = timed(async {
        let begun = current_time();
        let child = || {
            starts
                .lock()
                .unwrap()
                .push((current_time() - begun).as_secs());
            let number = starts.lock().unwrap().len();
            async move {
                if number < 6 {
                    Err("not yet")
                } else {
                    Ok(number)
                }
            }
        };
        let child = supervise(child).backoff(SECOND, 5 * SECOND).limit(10);
        child.jitter(false).await
    });
    assert_eq!(value, Ok(6));
    assert_eq!(*starts.lock().unwrap(), [0, 1, 3, 7, 12, 17]);
}

#[test]
fn a_supervisor_gives_up_after_its_limit_and_tells_the_last_error() {
    let (outcome, took) = timed(async {
        let mut number = 0;
        let child = || {
            number += 1;
            std::future::ready(Err::<(), _>(format!("error {number}")))
        };
        supervise(child)
            .limit(3)
            .backoff(SECOND, SECOND)
            .jitter(false)
            .await
    });
    let error: SuperviseError<String> = outcome.unwrap_err();
    assert_eq!((error.failures(), &**error.last()), (3, "error 3"));
    assert!(error.to_string().contains("3 times in a row"), "{error}");
    assert_eq!(took, 2 * SECOND);
}

#[test]
fn jitter_leaves_between_half_of_the_pause_and_all_of_it() {
    let mut all = Vec::new();
    for _ in 0..50 {
        let child = supervise(|| async { Err::<(), _>("lost") }).limit(2);
        let (_, took) = timed(child.backoff(SECOND, SECOND));
        assert!(took >= SECOND / 2 && took <= SECOND, "{took:?}");
        all.push(took);
    }
    all.dedup();
    assert!(all.len() > 1, "they differ");
}

#[test]
fn the_failure_of_a_child_that_was_healthy_counts_as_the_first() {
    let (outcome, _) = timed(async {
        let lives = [0, 0, 100, 0, 100, 100, 0, 0, 0].map(|lived| lived * SECOND);
        let mut lives = lives.into_iter();
        let child = || {
            let life = lives.next().unwrap();
            async move {
                sleep(life).await;
                Err::<(), _>(life.as_secs())
            }
        };
        let child = supervise(child).limit(4).healthy_after(90 * SECOND);
        let error = child.await.unwrap_err();
        assert_eq!(error.failures(), 4);
        lives.count()
    });
    assert_eq!(
        outcome, 0,
        "the fourth failure in a row was the last child's"
    );
}

#[test]
fn an_error_that_is_not_temporary_ends_the_supervisor() {
    let (outcome, took) = timed(async {
        let mut errors = [ErrorKind::TimedOut, ErrorKind::NotFound].into_iter();
        let child = supervise(|| std::future::ready(Err::<(), _>(errors.next().unwrap())));
        child
            .retry_if(|error| *error == ErrorKind::TimedOut)
            .jitter(false)
            .await
    });
    assert_eq!(outcome.unwrap_err().into_last(), ErrorKind::NotFound);
    assert_eq!(took, SECOND / 10);
}

#[test]
#[should_panic(expected = "a bug")]
fn a_panic_is_no_failure_by_default() {
    timed(supervise(|| async {
        panic!("a bug") as Result<(), String>
    }))
    .0
    .unwrap();
}

#[test]
fn a_panic_counts_as_a_failure_if_that_is_set() {
    let starts = &AtomicU32::new(0);
    let child = || match starts.fetch_add(1, Relaxed) {
        0 => panic!("before the first await"),
        number => {
            async move {
                checkpoint().await;
                assert!(number > 1, "after an await");
                Ok::<_, String>(number)
            }
        }
    };
    let (value, _) = timed(supervise(child).restart_on_panic(true));
    assert_eq!(value, Ok(2));
}

#[test]
#[should_panic(expected = "the third")]
fn the_last_panic_propagates_when_the_supervisor_gives_up() {
    let mut words = ["the first", "the second", "the third"].into_iter();
    let child = supervise(|| {
        let word = words.next().unwrap();
        async move { panic!("{word}") as Result<(), String> }
    });
    timed(child.restart_on_panic(true).limit(3)).0.unwrap();
}

#[test]
fn a_cancelled_supervisor_drops_its_child_or_ends_its_pause() {
    let dropped = &AtomicU32::new(0);
    let (outcomes, took) = timed(async {
        let waits = || async {
            on_cancel(sleep_forever(), async {
                shield(sleep(SECOND)).await;
                dropped.fetch_add(1, Relaxed);
            })
            .await;
            Ok::<(), &str>(())
        };
        let child = move_on_after(SECOND, supervise(waits)).await;
        let fails = || async { Err::<(), _>("lost") };
        let pause = supervise(fails).backoff(100 * SECOND, 100 * SECOND);
        (child, fail_after(SECOND, pause).await.is_err())
    });
    assert_eq!(outcomes, (None, true));
    assert_eq!(dropped.load(Relaxed), 1);
    assert_eq!(took, 3 * SECOND);
}

#[test]
fn a_supervisor_without_pauses_lets_other_tasks_run() {
    let outcome = timed(async {
        let child = supervise(|| async { Err::<(), _>("lost") }).limit(u32::MAX);
        let endless = child.backoff(Duration::ZERO, Duration::ZERO);
        open_nursery(|n| async move {
            n.spawn(async { endless.await.unwrap() });
            checkpoint().await;
            n.cancel();
        })
        .await;
    });
    assert_eq!(outcome.0, ());
}

#[test]
fn a_supervisor_may_be_a_child_of_either_nursery_and_supervise_a_worker() {
    seedbed::init();
    let _alone = alone();
    fn fail_at_first(attempt: u32) -> u32 {
        assert!(attempt > 0, "the first attempt panics");
        attempt
    }
    let attempts = &AtomicU32::new(0);
    let call = || run_sync(fail_at_first, attempts.fetch_add(1, Relaxed));
    let value = seedbed::run(open_nursery(
        |n| async move { n.spawn(supervise(call)).await },
    ));
    assert_eq!(value.unwrap(), 1);
    let local = std::rc::Rc::new(3);
    let child = move || {
        let local = local.clone();
        async move { Ok::<_, String>(*local) }
    };
    let value = seedbed::run(open_local_nursery(async |n| {
        n.spawn(supervise(child)).await
    }));
    assert_eq!(value, Ok(3));
    fn exit(_: ()) {
        std::process::exit(3);
    }
    // The error of a supervisor ends the block around it.
    let outcome: Result<(), SuperviseError<seedbed::WorkerError>> =
        seedbed::run(try_open_nursery(|n| async move {
            n.try_spawn(supervise(|| run_sync(exit, ())).limit(1));
            sleep_forever().await;
            Ok(())
        }));
    assert_eq!(outcome.unwrap_err().last().kind(), WorkerErrorKind::Broken);
}

// ---- serve

fn raise(signal: i32) {
    signal_hook::low_level::raise(signal).unwrap();
}

/// Runs a test with a clock that stands still: signals arrive in real time.
fn standing<T>(test: impl AsyncFnOnce(&MockClock) -> T) -> T {
    let _alone = alone();
    let clock = MockClock::new();
    let run = RunBuilder::new().clock(clock.clone());
    run.ctrl_c(CtrlC::Leave).run(test(&clock))
}

#[test]
fn the_first_signal_ends_accepting_and_lets_the_service_finish() {
    for signal in [SIGTERM, SIGINT] {
        let served = standing(async |_| {
            serve(async |shutdown: Shutdown| {
                assert_eq!(shutdown.until(async { "a client" }).await, Some("a client"));
                raise(signal);
                let accepted = shutdown.until(sleep_forever()).await;
                assert!(shutdown.has_begun());
                checkpoint().await; // what was begun goes on
                accepted
            })
            .await
        });
        assert_eq!(served.unwrap(), Some(None));
    }
}

#[test]
fn what_is_not_finished_in_time_is_cut_with_its_clean_up() {
    let apologies = &AtomicU32::new(0);
    let served = standing(async |clock| {
        serve(async |shutdown: Shutdown| {
            raise(SIGTERM);
            shutdown.begun().await;
            clock.jump(4 * SECOND);
            checkpoint().await; // it would not pass here if it had been cut
            clock.jump(SECOND);
            let clean_up = async {
                apologies.fetch_add(1, Relaxed);
            };
            on_cancel(sleep_forever(), shield(clean_up)).await
        })
        .drain_for(5 * SECOND)
        .await
    });
    assert_eq!(served.unwrap(), None);
    assert_eq!(apologies.load(Relaxed), 1);
}

#[test]
fn a_second_signal_cuts_at_once() {
    for second in [SIGTERM, SIGINT] {
        let served = standing(async |_| {
            serve(async |shutdown: Shutdown| {
                raise(SIGTERM);
                shutdown.begun().await;
                raise(second);
                sleep_forever().await
            })
            .await
        });
        assert_eq!(served.unwrap(), None);
    }
}

#[test]
fn other_signals_can_be_chosen_or_none() {
    let served = standing(async |_| {
        let service = async |shutdown: Shutdown| {
            raise(SIGHUP);
            shutdown.begun().await;
        };
        serve(service).signals(&[SIGHUP, SIGUSR1]).await
    });
    assert_eq!(served.unwrap(), Some(()));
    let (served, took) = timed(
        serve(async |shutdown: Shutdown| {
            shutdown.begin();
            shutdown.begin();
            sleep_forever().await
        })
        .signals(&[])
        .drain_for(SECOND),
    );
    assert_eq!(served.unwrap(), None);
    assert_eq!(took, SECOND);
    let error = timed(serve(|_| async {}).signals(&[9])).0.unwrap_err();
    assert_eq!(error.kind(), SignalErrorKind::Forbidden);
}

#[test]
fn a_service_that_ends_by_itself_is_done_and_an_outer_scope_may_cancel_it() {
    let _alone = alone();
    assert_eq!(timed(serve(|_| async { 5 })).0.unwrap(), Some(5));
    let outer = timed(move_on_after(SECOND, serve(|_| sleep_forever())));
    assert!(outer.0.is_none());
    assert_eq!(outer.1, SECOND);
}

#[test]
fn a_handle_works_from_other_threads_and_before_and_after_the_service() {
    let _alone = alone();
    let handle = Arc::new(Mutex::new(None));
    let (served, _) = timed(serve(|shutdown: Shutdown| {
        *handle.lock().unwrap() = Some(shutdown.clone());
        let cut = shutdown.clone();
        async move {
            std::thread::spawn(move || cut.cut());
            shutdown.begun().await;
            sleep_forever().await
        }
    }));
    assert_eq!(served.unwrap(), None);
    let handle = handle.lock().unwrap().take().unwrap();
    assert!(handle.has_begun());
    handle.begin();
    handle.cut();
}

/// A connection that is accepted as the shutdown begins is either served or still in the queue.
#[test]
fn nothing_is_taken_and_lost_when_the_shutdown_begins() {
    let _alone = alone();
    let (served, _) = timed(serve(|shutdown: Shutdown| async move {
        let (sender, receiver) = channel(1);
        sender.send(1).await.unwrap();
        shutdown.begin();
        assert_eq!(shutdown.until(receiver.recv()).await, None);
        receiver.try_recv()
    }));
    assert_eq!(served.unwrap(), Some(Ok(1)));
}
