//! Futures that hold resources and wait for jobs that need them: such a wait is an error, and no
//! other wait is. Where the wait can return no error, the job has it.

mod common;

use std::future::{IntoFuture, pending};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use common::{poll_with_yields, test};
use futures_lite::StreamExt;
use futures_lite::future::{or, zip};
use seedbed::delayed::{
    Cores, Delayed, JobErrorKind, Jobs, Learned, Memory, Resources, Setup, Units, ZERO,
    delayed_val, each, open,
};
use seedbed::nursery::task_tree;
use seedbed::process::Command;
use seedbed::sync::Event;
use seedbed::testing::wait_all_tasks_blocked;
use seedbed::{checkpoint, open_nursery};

fn cores(count: usize) -> Resources {
    Resources::none().cores(0..count)
}

/// Yields until the statistics of the block are as wanted.
async fn until(jobs: &Jobs<'_>, (running, queued): (usize, usize)) {
    loop {
        let now = jobs.statistics();
        if (now.running, now.queued) == (running, queued) {
            return;
        }
        checkpoint().await;
    }
}

#[test]
fn a_future_that_holds_the_only_core_cannot_await_a_job_that_needs_it() {
    test(open(cores(1), async |jobs| {
        let one = jobs.on(Cores(1));
        let inner = jobs.clone();
        let holder = one.spawn(async move {
            let needs_core = inner.on(Cores(1)).spawn(async { 7u32 });
            let error = (&needs_core * 2u32).await.unwrap_err();
            (needs_core, error)
        });
        let (needs_core, error) = holder.await.unwrap();
        assert_eq!(error.kind(), JobErrorKind::Deadlock);
        assert_eq!(error.attempts(), 0);
        let text = error.to_string();
        assert!(
            text.contains("it asks for 1 core, and the future that waits for it holds cores 0"),
            "{text}"
        );
        assert_eq!((needs_core * 3u32).await.unwrap(), 21);
    }));
}

#[test]
fn the_awaited_value_is_not_failed_by_a_wait_without_end() {
    test(open(cores(1), async |jobs| {
        let inner = jobs.clone();
        let holder = jobs.on(Cores(1)).spawn(async move {
            let value = inner.call(i32::abs, -3) + 1;
            for _ in 0..2 {
                let error = (&value).await.unwrap_err();
                assert_eq!(error.kind(), JobErrorKind::Deadlock);
            }
            value
        });
        assert_eq!(holder.await.unwrap().await.unwrap(), 4);
    }));
}

#[test]
fn a_wait_through_a_future_without_resources_is_found_in_either_order() {
    for is_outer_first in [true, false] {
        test(open(cores(1), async move |jobs| {
            let (go, inner) = (Arc::new(Event::new()), jobs.clone());
            let mut goes = Some(go.clone());
            let between = jobs.spawn(async move {
                if is_outer_first {
                    goes.take().unwrap().wait().await;
                }
                inner.on(Cores(1)).spawn(async { 1 }).await.unwrap()
            });
            let (awaited, again) = (between.clone(), jobs.clone());
            let holder = jobs.on(Cores(1)).spawn(async move {
                if !is_outer_first {
                    until(&again, (1, 1)).await;
                    checkpoint().await; // so that `between` waits
                }
                awaited.await.map_err(|error| error.kind())
            });
            until(&jobs, (1, usize::from(!is_outer_first))).await;
            assert!(!poll_with_yields(between.shared(), 3).await || !is_outer_first);
            go.set();
            assert_eq!(holder.await.unwrap(), Err(JobErrorKind::Deadlock));
            assert_eq!(between.await.unwrap(), 1);
        }));
    }
}

#[test]
fn of_two_futures_that_wait_for_each_other_s_resources_one_is_told() {
    test(open(cores(2), async |jobs| {
        let failed = Arc::new(AtomicU32::new(0));
        let both = Arc::new(Event::new());
        let holder = || {
            let (inner, failed, both) = (jobs.clone(), failed.clone(), both.clone());
            jobs.on(Cores(1)).spawn(async move {
                both.wait().await;
                let value = inner.on(Cores(1)).spawn(async { 1 });
                match value.await {
                    Ok(value) => value,
                    Err(error) => {
                        assert_eq!(error.kind(), JobErrorKind::Deadlock);
                        let text = error.to_string();
                        assert!(text.contains("behind `"), "{text}");
                        failed.fetch_add(1, Ordering::Relaxed);
                        10
                    }
                }
            })
        };
        let sum = holder() + holder();
        until(&jobs, (2, 0)).await;
        both.set();
        assert_eq!(sum.await.unwrap(), 11);
        assert_eq!(failed.load(Ordering::Relaxed), 1);
    }));
}

#[test]
fn a_job_behind_one_that_needs_all_cannot_be_awaited_by_a_holder() {
    test(open(cores(2), async |jobs| {
        let inner = jobs.clone();
        let holder = jobs.on(Cores(1)).spawn(async move {
            let large = inner.on(Cores(2)).spawn(async { 2 });
            let small = inner.on(Cores(1)).spawn(async { 1 });
            let error = (&small).await.unwrap_err();
            assert_eq!(error.kind(), JobErrorKind::Deadlock);
            large + small
        });
        assert_eq!(holder.await.unwrap().await.unwrap(), 3);
    }));
}

#[test]
fn a_prioritised_job_may_make_a_wait_endless_that_had_an_end() {
    test(open(cores(3), async |jobs| {
        let (stop, inner) = (Arc::new(Event::new()), jobs.clone());
        let stopped = stop.clone();
        let other = jobs.on(Cores(2)).spawn(async move { stopped.wait().await });
        let holder = jobs.on(Cores(1)).spawn(async move {
            let value = inner.on(Cores(2)).spawn(async {});
            value.await.map_err(|error| error.kind())
        });
        until(&jobs, (2, 1)).await;
        checkpoint().await;
        let first = jobs.on(Cores(3)).prioritized().spawn(async {});
        stop.set();
        other.await.unwrap();
        assert_eq!(holder.await.unwrap(), Err(JobErrorKind::Deadlock));
        first.await.unwrap();
    }));
}

#[test]
fn a_job_that_waits_for_its_argument_is_found_when_it_enters_the_queue() {
    test(open(cores(1), async |jobs| {
        let (inner, go) = (jobs.clone(), Arc::new(Event::new()));
        let goes = go.clone();
        let argument = jobs.spawn(async move {
            goes.wait().await;
            -3
        });
        let absolute = jobs.then(argument, i32::abs);
        let awaited = absolute.clone();
        let holder = jobs.on(Cores(1)).spawn(async move {
            drop(inner);
            awaited.await.map_err(|error| error.kind())
        });
        until(&jobs, (1, 0)).await;
        checkpoint().await;
        go.set();
        assert_eq!(holder.await.unwrap(), Err(JobErrorKind::Deadlock));
        assert_eq!(absolute.await.unwrap(), 3);
    }));
}

#[test]
fn a_block_within_a_future_has_what_that_does_not_hold() {
    test(open(cores(2), async |jobs| {
        let outer = jobs.clone();
        let holder = jobs.on(Cores(1)).spawn(async move {
            let block = outer.open(async |inner| {
                let one = inner.on(Cores(1)).spawn(async { 1 });
                let two = inner.on(Cores(2)).spawn(async { 2 });
                (one.await.unwrap(), two.await.unwrap_err())
            });
            block.await
        });
        let (one, error) = holder.await.unwrap();
        assert_eq!((one, error.kind()), (1, JobErrorKind::Impossible));
        let text = error.to_string();
        assert!(
            text.contains("asks for 2 cores, and the future that opened its block holds cores 0"),
            "{text}"
        );
    }));
}

#[test]
fn a_wait_in_a_block_within_a_future_counts_for_that_future() {
    test(open(cores(2), async |jobs| {
        let outer = jobs.clone();
        let holder = jobs.on(Cores(1)).spawn(async move {
            let (again, all) = (outer.clone(), outer.on(Cores(2)).spawn(async { 5 }));
            let awaited = all.clone();
            let block = outer.open(async |inner| {
                let child = inner.spawn(async move {
                    drop(again);
                    awaited.await.map_err(|error| error.kind())
                });
                child.await.unwrap()
            });
            (block.await, all)
        });
        let (inner, all) = holder.await.unwrap();
        assert_eq!(inner, Err(JobErrorKind::Deadlock));
        assert_eq!(all.await.unwrap(), 5);
    }));
}

#[test]
fn a_holder_awaits_jobs_that_fit_next_to_it_or_need_nothing() {
    test(open(cores(2), async |jobs| {
        let inner = jobs.clone();
        let holder = jobs.on(Cores(1)).spawn(async move {
            let one = inner.on(Cores(1));
            let values: Vec<Delayed<u32>> = (0..3).map(|n| one.spawn(async move { n })).collect();
            let nothing = inner.on(ZERO).spawn(async {
                checkpoint().await;
                10
            });
            let total: Delayed<u32> = values.into_iter().sum();
            (total + nothing).await.unwrap()
        });
        until(&jobs, (2, 2)).await;
        let other = jobs.on(Cores(2)).spawn(async { 100 });
        assert_eq!((holder + other).await.unwrap(), 113);
    }));
}

#[test]
fn a_wait_for_a_job_that_runs_is_not_ended_though_others_are_queued() {
    test(open(cores(1), async |jobs| {
        let (inner, go) = (jobs.clone(), Arc::new(Event::new()));
        let goes = go.clone();
        let holder = jobs.on(Cores(1)).spawn(async move {
            let waits = inner.spawn(async move { goes.wait().await });
            waits.await.unwrap();
            1
        });
        let queued = jobs.on(Cores(1)).spawn(async { 2 });
        until(&jobs, (1, 1)).await;
        let sum = holder + queued;
        assert!(!poll_with_yields(sum.shared(), 5).await);
        go.set();
        assert_eq!(sum.await.unwrap(), 3);
    }));
}

#[test]
fn holders_of_other_kinds_are_found_too_and_a_wait_that_was_dropped_does_not_count() {
    test(open(
        Resources::none().amount("licences", 2),
        async |jobs| {
            let licence = |count| jobs.on(Units("licences", count));
            let (one, two) = (licence(1), licence(2));
            let holder = licence(1).spawn(async move {
                let queued = two.spawn(async { 2 });
                let error = queued.await.unwrap_err();
                assert_eq!(error.kind(), JobErrorKind::Deadlock);
                // `two` is at the head of the queue, so this one does not start either. The wait is
                // given up in time.
                let behind = one.spawn(async { 1 });
                let waiting = behind.shared();
                drop(waiting);
                behind
            });
            assert_eq!((holder.await.unwrap() + delayed_val(1)).await.unwrap(), 2);
        },
    ));
}

#[test]
fn a_wait_is_found_however_the_value_is_computed_and_wherever_it_is_awaited() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::from(cores(1)).cache_folder(folder.path());
    test(open(setup, async |jobs| {
        let inner = jobs.clone();
        let holder = jobs.on(Cores(1)).spawn(async move {
            let one = inner.on(Cores(1));
            let pair = one.spawn(async { (7u32, 8u32) });
            let first = pair.field(|pair| &pair.0);
            let (of_nursery, of_block) = (pair.clone(), pair.clone());
            let errors = [
                pair.shared().await.err(),
                pair.clone().unzip().1.await.err(),
                each(vec![delayed_val((0, 0)), pair.clone()]).await.err(),
                first.clone().map(|first| first + 1).await.err(),
                Delayed::choose(delayed_val(true), pair, delayed_val((0, 0)))
                    .await
                    .err(),
                inner.then(first, u32::count_ones).await.err(),
                inner.cached("waits-1").call(i32::abs, -3).await.err(),
                one.run_process(Command::new("true")).await.err(),
                open_nursery(async |n| n.spawn(async { of_nursery.await.err() }).await).await,
                inner.open(async |_| of_block.await.err()).await,
            ];
            errors.map(|error| error.map(|error| error.kind()))
        });
        let kinds = holder.await.unwrap();
        assert_eq!(kinds, [Some(JobErrorKind::Deadlock); 10]);
    }));
}

fn zeros(mebibytes: usize) -> usize {
    std::hint::black_box(vec![1_u8; mebibytes << 20]).len() >> 20
}

#[test]
fn a_wait_for_a_second_run_that_needs_the_memory_of_the_waiting_future_is_found() {
    let resources = cores(2).memory(Memory::mib(512));
    test(open(resources, async |jobs| {
        let inner = jobs.clone();
        let holder = jobs.on(Memory::mib(64)).spawn(async move {
            // It gets the half that belongs to one of two cores, and needs more.
            let job = inner.on(Cores(1)).memory(Learned::new("zeros"));
            let value = job.call(zeros, 350);
            let error = (&value).await.unwrap_err();
            assert_eq!(error.kind(), JobErrorKind::Deadlock);
            value
        });
        let value = holder.await.unwrap();
        assert_eq!((&value).await.unwrap(), 350);
        assert_eq!(value.statistics().unwrap().attempts, 2);
    }));
}

#[test]
fn a_job_is_refused_for_which_the_end_of_a_block_would_wait_forever() {
    test(open(cores(2), async |jobs| {
        let both = Arc::new(Event::new());
        let holder = || {
            let (outer, both) = (jobs.clone(), both.clone());
            jobs.on(Cores(1)).spawn(async move {
                both.wait().await;
                // The body leaves a job that fits next to this future, but not next to both.
                let block = outer.open(async |inner| inner.on(Cores(1)).spawn(async { 1 }));
                let left = block.await;
                assert!(left.is_done());
                left.await
            })
        };
        let (one, two) = (holder(), holder());
        until(&jobs, (2, 0)).await;
        both.set();
        let results = [one.await.unwrap(), two.await.unwrap()];
        assert!(
            results.iter().any(|result| matches!(result, Ok(1))),
            "{results:?}"
        );
        let mut errors = results.iter().filter_map(|result| result.as_ref().err());
        let error = errors.next().unwrap();
        assert_eq!(error.kind(), JobErrorKind::Deadlock);
        let text = error.to_string();
        assert!(text.contains("it waits for the end of a block"), "{text}");
    }));
}

#[test]
fn a_job_is_refused_whose_place_in_a_limit_would_be_waited_for_forever() {
    test(open(cores(1), async |jobs| {
        let inner = jobs.clone();
        let holder = jobs.on(Cores(1)).spawn(async move {
            let limited = inner.at_most(1);
            let first = limited.ready().await.on(Cores(1)).spawn(async { 1 });
            let place = limited.ready().await;
            let error = first.await.unwrap_err();
            assert_eq!(error.kind(), JobErrorKind::Deadlock);
            let text = error.to_string();
            assert!(text.contains("or for a place in a limit"), "{text}");
            place.on(Cores(1)).spawn(async { 2 })
        });
        assert_eq!(holder.await.unwrap().await.unwrap(), 2);
    }));
}

#[test]
fn a_wait_for_a_place_has_an_end_while_one_of_them_may_become_free() {
    test(open(cores(1), async |jobs| {
        let (go, inner) = (Arc::new(Event::new()), jobs.clone());
        let goes = go.clone();
        let holder = jobs.on(Cores(1)).spawn(async move {
            let limited = inner.at_most(2);
            let queued = limited.ready().await.on(Cores(1)).spawn(async { 1 });
            let free = limited
                .ready()
                .await
                .spawn(async move { goes.wait().await });
            let third = limited.ready().await.spawn(async { 2 });
            free.await.unwrap();
            queued + third
        });
        until(&jobs, (1, 1)).await;
        assert!(!poll_with_yields(holder.shared(), 5).await);
        go.set();
        assert_eq!(holder.await.unwrap().await.unwrap(), 3);
    }));
}

#[test]
fn each_of_several_waits_without_an_end_is_ended() {
    test(open(cores(2), async |jobs| {
        let (go, inner) = (Arc::new(Event::new()), jobs.clone());
        let goes = go.clone();
        let other = jobs.on(Cores(1)).spawn(async move { goes.wait().await });
        let holder = jobs.on(Cores(1)).spawn(async move {
            let large = inner.on(Cores(2)).spawn(async {});
            // None of them has an end once `other` has ended, because they are behind `large`.
            let values = [(); 3].map(|()| inner.on(Cores(1)).spawn(async {}));
            let [first, second, third] = values.each_ref().map(Delayed::shared);
            let ((first, second), third) = zip(zip(first, second), third).await;
            let kinds = [first, second, third].map(|result| result.err().map(|e| e.kind()));
            (kinds, large, values)
        });
        until(&jobs, (2, 4)).await;
        go.set();
        other.await.unwrap();
        let (kinds, large, values) = holder.await.unwrap();
        assert_eq!(kinds, [Some(JobErrorKind::Deadlock); 3]);
        large.await.unwrap();
        each(values.to_vec()).await.unwrap();
    }));
}

/// The ways in which a future waits for a job.
const WAYS: usize = 4;

/// Waits for a job that needs a core.
async fn wait_in_a_way(jobs: &Jobs<'_>, way: usize) {
    let one = jobs.on(Cores(1));
    // Whether the job was refused, or the wait was ended, does not matter here.
    match way {
        0 => drop(one.spawn(async {}).await),
        1 => {
            let between = jobs.spawn(async move { drop(one.spawn(async {}).await) });
            drop(between.await);
        }
        2 => {
            let block = jobs.open(async |jobs| drop(jobs.on(Cores(1)).spawn(async {})));
            block.await;
        }
        _ => {
            let limited = one.at_most(1);
            drop(limited.ready().await.spawn(async {}));
            drop(limited.ready().await);
        }
    }
}

#[test]
fn blocks_end_although_several_waits_of_their_jobs_have_no_end() {
    let all = (0..WAYS.pow(4)).flat_map(|ways| [(ways, true), (ways, false)]);
    test(async {
        for (ways, waits_for_both) in all {
            open(cores(2), async |jobs: Jobs<'_>| {
                let both = Arc::new(Event::new());
                let holder = |ways: usize| {
                    let (inner, both) = (jobs.clone(), both.clone());
                    jobs.on(Cores(1)).spawn(async move {
                        both.wait().await;
                        let first = wait_in_a_way(&inner, ways % WAYS);
                        let second = wait_in_a_way(&inner, ways / WAYS);
                        if waits_for_both {
                            zip(first, second).await;
                        } else {
                            or(first, second).await;
                        }
                    })
                };
                let holders = (holder(ways % (WAYS * WAYS)), holder(ways / (WAYS * WAYS)));
                until(&jobs, (2, 0)).await;
                both.set();
                each(holders).await.unwrap();
            })
            .await;
        }
    });
}

#[test]
fn a_future_whose_wait_has_ended_is_not_taken_for_one_that_waits() {
    test(open(cores(2), async |jobs| {
        let never = Arc::new(Mutex::new(None));
        let sets = never.clone();
        let mut cancelled = Box::pin(jobs.open(async move |jobs: Jobs<'_>| {
            *sets.lock().unwrap() = Some(jobs.spawn(pending::<()>()));
            pending::<()>().await;
        }));
        let mut other = Box::pin(jobs.open(async |jobs: Jobs<'_>| {
            drop(jobs.on(Cores(1)).spawn(pending::<()>()));
            pending::<()>().await;
        }));
        assert!(!poll_with_yields(&mut cancelled, 1).await);
        assert!(!poll_with_yields(&mut other, 1).await);
        let (inner, never) = (jobs.clone(), never.lock().unwrap().take().unwrap());
        let holder = jobs.on(Cores(1)).spawn(async move {
            let large = inner.on(Cores(2)).spawn(async {});
            let behind = inner.on(Cores(1)).spawn(async {});
            let error = or(async { behind.shared().await.map(|_| ()) }, async {
                never.await
            });
            (error.await.unwrap_err().kind(), each((large, behind)))
        });
        until(&jobs, (2, 2)).await;
        // The future may go on, but is not polled before the next step.
        drop(cancelled);
        // No other job holds resources any more.
        drop(other);
        let (kind, rest) = holder.await.unwrap();
        assert_eq!(kind, JobErrorKind::Cancelled);
        rest.await.unwrap();
    }));
}

#[test]
fn a_future_that_is_kept_after_its_error_waits_no_longer() {
    test(open(cores(2), async |jobs| {
        let inner = jobs.clone();
        let holder = jobs.on(Cores(1)).spawn(async move {
            let large = inner.on(Cores(2)).spawn(async {});
            let [first, second] = [(); 2].map(|()| inner.on(Cores(1)).spawn(async {}));
            let mut kept = (&first).into_future();
            let errors = [(&mut kept).await.unwrap_err(), (&second).await.unwrap_err()];
            drop(kept);
            (
                errors.map(|error| error.kind()),
                each((large, first, second)),
            )
        });
        let (kinds, rest) = holder.await.unwrap();
        assert_eq!(kinds, [JobErrorKind::Deadlock; 2]);
        rest.await.unwrap();
    }));
}

#[test]
fn a_place_is_taken_while_a_job_of_a_limit_within_it_exists() {
    test(open(cores(1), async |jobs| {
        let (go, outer) = (Arc::new(Event::new()), jobs.at_most(1));
        let waits = go.clone();
        let within = outer.ready().await.at_most(2);
        let running = within
            .ready()
            .await
            .spawn(async move { waits.wait().await });
        drop(within);
        assert!(!poll_with_yields(outer.ready(), 3).await);
        go.set();
        running.await.unwrap();
        drop(outer.ready().await);

        // A wait for the outer place knows the job that has it.
        let holder = jobs.on(Cores(1)).spawn(async move {
            let within = outer.ready().await.at_most(1);
            let queued = within.ready().await.on(Cores(1)).spawn(async {});
            drop(within);
            drop(outer.ready().await);
            queued.await.map_err(|error| error.kind())
        });
        assert_eq!(holder.await.unwrap(), Err(JobErrorKind::Deadlock));
    }));
}

#[test]
fn a_place_that_is_free_is_not_waited_for() {
    test(open(cores(1), async |jobs| {
        let inner = jobs.clone();
        let future = jobs.spawn(async move {
            let limited = inner.at_most(1);
            let mut progress = inner.progress();
            progress.next().await.unwrap();
            // A wait would be a change of what the statistics show.
            let place = limited.ready().await;
            assert!(!poll_with_yields(progress.next(), 3).await);
            assert!(!poll_with_yields(limited.ready(), 1).await);
            assert!(poll_with_yields(progress.next(), 1).await);
            drop(place);
        });
        future.await.unwrap();
    }));
}

#[test]
fn a_future_waits_again_when_another_task_has_taken_the_free_place() {
    test(open(cores(2), async |jobs| {
        let mut other = Box::pin(jobs.open(async |jobs: Jobs<'_>| {
            drop(jobs.on(Cores(1)).spawn(pending::<()>()));
            pending::<()>().await;
        }));
        assert!(!poll_with_yields(&mut other, 1).await);
        let limited = jobs.at_most(1);
        let (place, mut next) = (limited.ready().await, Box::pin(limited.ready()));
        assert!(!poll_with_yields(&mut next, 1).await);
        let (inner, waits) = (jobs.clone(), limited.clone());
        let holder = jobs.on(Cores(1)).spawn(async move {
            let large = inner.on(Cores(2)).spawn(async {});
            let behind = inner.on(Cores(1)).spawn(async {});
            let error = or(async { behind.shared().await.err() }, async {
                drop(waits.ready().await);
                None
            });
            (error.await.map(|error| error.kind()), each((large, behind)))
        });
        until(&jobs, (2, 2)).await;
        // As long as the place is free, the future may get it.
        drop(place);
        drop(other);
        assert!(!poll_with_yields(holder.shared(), 5).await);
        let place = next.await;
        let (kind, rest) = holder.await.unwrap();
        assert_eq!(kind, Some(JobErrorKind::Deadlock));
        drop(place);
        rest.await.unwrap();
    }));
}

#[test]
fn a_wait_that_is_not_known_shows_in_the_statistics_and_in_the_task_tree() {
    seedbed::run(open(cores(2), async |jobs| {
        let (go, inner) = (Arc::new(Event::new()), jobs.clone());
        let (first, second, sets) = (go.clone(), go.clone(), go);
        let unknown = jobs.on(Cores(1)).spawn(async move { first.wait().await });
        let known = jobs.on(Cores(1)).spawn(async move {
            let free = inner.spawn(async move { second.wait().await });
            free.await.unwrap();
        });
        let (goes, waits) = (sets.clone(), sets);
        let queued = jobs.on(Cores(2)).spawn(async move { goes.set() });
        wait_all_tasks_blocked().await;
        let head = jobs.statistics().head.unwrap();
        let (job, holders) = head.split_once(": ").unwrap();
        assert!(
            job.ends_with("waits for 2 cores, and there is 0 of `cores`"),
            "{head}"
        );
        let holders: Vec<&str> = holders.split(", ").collect();
        let [first, second] = holders[..] else {
            panic!("{head}")
        };
        assert!(first.ends_with("` has cores 0"), "{head}");
        assert!(
            second.ends_with("` has cores 1 and waits for other jobs"),
            "{head}"
        );
        let tree = task_tree().unwrap().to_string();
        for wait in ["an event", "its resources", "a delayed value"] {
            assert!(tree.contains(&format!("waits for {wait}")), "{tree}");
        }
        waits.set();
        each((unknown, known, queued)).await.unwrap();
    }));
}
