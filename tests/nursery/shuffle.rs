//! The order in which ready children are polled, shuffled by a seed.

use std::collections::BTreeSet;
use std::sync::Mutex;

use crate::polling::{Hand, turns};
use seedbed::sync::Event;
use seedbed::testing::shuffle;
use seedbed::time::sleep_forever;
use seedbed::{RunBuilder, checkpoint, open_nursery};

/// Polls ten children in two nurseries for three rounds, and returns the order of the polls.
async fn program() -> Vec<(u32, u32)> {
    let seen = &Mutex::new(Vec::new());
    open_nursery(|n| async move {
        for parent in 0..2 {
            n.spawn(open_nursery(move |n| async move {
                for child in 0..5 {
                    n.spawn(async move {
                        for turn in 0..3 {
                            seen.lock().unwrap().push((turn, parent * 5 + child));
                            checkpoint().await;
                        }
                    });
                }
            }));
        }
    })
    .await;
    std::mem::take(&mut *seen.lock().unwrap())
}

#[test]
fn the_same_seed_gives_the_same_order_and_different_seeds_give_different_orders() {
    let run = |seed| RunBuilder::new().shuffle(seed).run(program());
    let orders: BTreeSet<_> = (0..100).map(run).collect();
    assert_eq!(orders.len(), 100);
    assert!((0..100).all(|seed| orders.contains(&run(seed))));
    assert_eq!(run(7), run(7));
    assert_eq!(
        run(7),
        Hand::new(shuffle(7, program())).finish(),
        "without a run"
    );
}

#[test]
fn with_any_seed_every_ready_child_is_polled_once_per_round() {
    for seed in 0..100 {
        let seen = Hand::new(shuffle(seed, program())).finish();
        for (turn, polls) in seen.chunks(10).enumerate() {
            assert!(
                polls.iter().all(|(of, _)| *of == turn as u32),
                "seed {seed}: {seen:?}"
            );
            let children: BTreeSet<_> = polls.iter().map(|(_, child)| *child).collect();
            assert_eq!(children.len(), 10, "seed {seed}: {seen:?}");
        }
    }
}

#[test]
fn every_child_is_first_with_some_seed_and_without_a_seed_the_order_is_that_of_waking() {
    let first = |seed| Hand::new(shuffle(seed, program())).finish()[0].1;
    let first: BTreeSet<_> = (0..100).map(first).collect();
    assert_eq!(first.len(), 10);
    let plain = Hand::new(program()).finish();
    assert!(plain[..10].is_sorted());
}

/// A correct program has the same outcome in every order. Here a counter and an event decide a
/// race.
#[test]
fn the_outcome_of_a_correct_program_does_not_depend_on_the_order() {
    let program = || async {
        let (ready, sums) = (&Event::new(), &Mutex::new(Vec::new()));
        open_nursery(|n| async move {
            let numbers: Vec<_> = (0..5)
                .map(|number| {
                    n.spawn(async move {
                        ready.wait().await;
                        turns(number % 3).await;
                        number
                    })
                })
                .collect();
            n.spawn(async { ready.set() });
            n.spawn(async move {
                let mut sum = 0;
                for number in numbers {
                    sum += number.await;
                }
                sums.lock().unwrap().push(sum);
            });
        })
        .await;
        sums.lock().unwrap().clone()
    };
    for seed in 0..100 {
        assert_eq!(
            RunBuilder::new().shuffle(seed).run(program()),
            [10],
            "seed {seed}"
        );
    }
}

/// Shuffling finds a program that relies on the order: this one expects that the child that was
/// spawned first wins.
#[test]
fn the_outcome_of_a_program_that_relies_on_the_order_does() {
    let winner = |seed| {
        Hand::new(shuffle(
            seed,
            open_nursery(|n| async move {
                for racer in 0..3 {
                    let finish = n.clone();
                    n.spawn(async move { finish.terminate(racer) });
                }
                sleep_forever().await;
                unreachable!()
            }),
        ))
        .finish()
    };
    let winners: BTreeSet<_> = (0..100).map(winner).collect();
    assert_eq!(winners.into_iter().collect::<Vec<_>>(), [0, 1, 2]);
}
