//! Random programs of blocks, scopes, shields, clean-ups, deadlines, cancellations and panics, in
//! virtual time. Each program must end and drop all its values. A seed determines the program.
//! Also: the memory of many children, and of many calls that wait.
//!
//! `SEEDBED_STRESS_SEEDS=100000 cargo test --release --test stress` runs more programs.
//! `SEEDBED_STRESS_FIRST` is the first seed, and `SEEDBED_STRESS_CHILDREN` the number of children
//! in place of a million.

#[path = "common/allocations.rs"]
mod allocations;
#[path = "common/polling.rs"]
mod polling;

use std::future::IntoFuture;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_lite::FutureExt;
use futures_lite::future::{race, zip};
use polling::{Counted, Drops, OnDrop, turns};
use seedbed::cancel::checkpoint_if_cancelled;
use seedbed::testing::MockClock;
use seedbed::time::{current_time, sleep_forever};
use seedbed::{
    CancelScope, Nursery, RunBuilder, Task, move_on_after, on_cancel, open_nursery, shield, sleep,
    try_open_nursery,
};

const SECOND: Duration = Duration::from_secs(1);

/// The state that the parts of one program share.
struct World {
    random: Mutex<u64>,
    drops: Drops,
    scopes: Mutex<Vec<CancelScope>>,
    tasks: Mutex<Vec<Task<()>>>,
    /// How many more parts may be opened.
    budget: Mutex<u32>,
    /// Runs in the run.
    executor: smol::Executor<'static>,
    panics: bool,
}

impl World {
    fn new(seed: u64) -> Arc<Self> {
        Arc::new(World {
            random: Mutex::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            drops: Drops::new(),
            scopes: Mutex::default(),
            tasks: Mutex::default(),
            budget: Mutex::new(60),
            executor: smol::Executor::new(),
            panics: seed.is_multiple_of(3),
        })
    }

    /// A number below `limit`.
    fn pick(&self, limit: u64) -> u64 {
        let mut state = self.random.lock().unwrap();
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 11) % limit
    }

    fn seconds(&self) -> Duration {
        Duration::from_millis(self.pick(5000))
    }

    fn may_open(&self) -> bool {
        let mut budget = self.budget.lock().unwrap();
        *budget = budget.saturating_sub(1);
        *budget > 0
    }

    fn some_scope(&self) -> Option<CancelScope> {
        let count = self.scopes.lock().unwrap().len() as u64;
        (count > 0).then(|| self.scopes.lock().unwrap()[self.pick(count) as usize].clone())
    }

    fn some_task(&self) -> Option<Task<()>> {
        let count = self.tasks.lock().unwrap().len() as u64;
        (count > 0).then(|| {
            let index = self.pick(count) as usize;
            self.tasks.lock().unwrap().swap_remove(index)
        })
    }
}

/// Panics without printing. The payload takes no memory, because a block forgets the payload of a
/// second panic.
fn quiet_panic() -> ! {
    resume_unwind(Box::new(()))
}

type Part = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Makes a few random steps. With `finite`, none of them lasts forever, because a shield is around
/// them.
fn part(world: Arc<World>, finite: bool) -> Part {
    Box::pin(async move {
        let _value = world.drops.value();
        for _ in 0..1 + world.pick(4) {
            step(&world, finite).await;
        }
    })
}

async fn step(world: &Arc<World>, finite: bool) {
    let part = |finite| part(world.clone(), finite);
    match world.pick(24) {
        0 | 1 => turns(world.pick(4) as usize).await,
        2 | 3 => sleep(world.seconds()).await,
        4 => checkpoint_if_cancelled().await,
        5 if !finite => sleep_forever().await,
        6 => {
            if let Some(scope) = world.some_scope() {
                scope.cancel();
            }
        }
        7 => {
            if let Some(scope) = world.some_scope() {
                scope.set_deadline(Some(current_time() + world.seconds()));
            }
        }
        8 => {
            if let Some(scope) = world.some_scope() {
                scope.set_shield(true);
                let _down = OnDrop(|| scope.set_shield(false));
                sleep(world.seconds()).await;
            }
        }
        9 => {
            if let Some(task) = world.some_task() {
                match world.pick(3) {
                    0 => drop(task.cancel()),
                    1 => drop(move_on_after(SECOND, task.cancel()).await),
                    _ => drop(move_on_after(SECOND, task.outcome()).await),
                }
            }
        }
        10 if world.panics && world.pick(8) == 0 => quiet_panic(),
        11 if world.panics && world.pick(8) == 0 => {
            let _bomb = OnDrop(|| {
                if !std::thread::panicking() {
                    quiet_panic();
                }
            });
            sleep(world.seconds()).await;
        }
        _ if !world.may_open() => turns(1).await,
        12 | 13 => {
            let scope = CancelScope::new();
            world.scopes.lock().unwrap().push(scope.clone());
            match world.pick(3) {
                0 => scope.set_timeout(world.seconds()),
                1 => scope.cancel(),
                _ => {}
            }
            scope.run(part(finite)).await;
        }
        14 => move_on_after(world.seconds(), part(finite))
            .await
            .unwrap_or(()),
        15 => shield(part(true)).await,
        16 => on_cancel(part(finite), part(true)).await,
        17 => zip(part(finite), part(finite)).await.0,
        18 => race(part(finite), part(finite)).await,
        19 => fallible_block(world, finite).await,
        _ => block(world, finite).await,
    }
}

async fn block(world: &Arc<World>, finite: bool) {
    let (world, kind) = (world.clone(), world.pick(6));
    let body = |n: Nursery<'static>| async move {
        for _ in 0..world.pick(5) {
            let child = spawns(n.clone(), world.clone(), finite);
            let task = match world.pick(4) {
                0 => n.spawn_on(&world.executor, child),
                _ => n.spawn(child),
            };
            if world.pick(2) == 0 {
                world.tasks.lock().unwrap().push(task);
            }
        }
        if world.pick(4) == 0 {
            drop(
                n.start(|started| {
                    let world = world.clone();
                    async move {
                        let value = world.drops.value();
                        part(world.clone(), finite).await;
                        if world.pick(4) > 0 {
                            started.send(value);
                        }
                        part(world, finite).await;
                    }
                })
                .await,
            );
        }
        part(world.clone(), finite).await;
        if world.pick(3) == 0 {
            n.cancel();
        }
        part(world, finite).await;
    };
    match kind {
        0 => open_nursery(body).service().await,
        1 => open_nursery(body).service().daemon().await,
        2 => open_nursery(body).daemon().await,
        _ => open_nursery(body).await,
    }
}

/// A child that makes random steps, and may spawn another child or end the block.
async fn spawns(n: Nursery<'static>, world: Arc<World>, finite: bool) {
    part(world.clone(), finite).await;
    match world.pick(4) {
        0 => drop(n.spawn(part(world.clone(), finite))),
        1 => n.cancel(),
        _ => {}
    }
    part(world, finite).await;
}

async fn fallible_block(world: &Arc<World>, finite: bool) {
    let world = world.clone();
    let result = try_open_nursery(|n| async move {
        for _ in 0..world.pick(4) {
            let world = world.clone();
            n.try_spawn(async move {
                part(world.clone(), finite).await;
                match world.pick(2) {
                    0 => Err(world.drops.value()),
                    _ => Ok(world.drops.value()),
                }
            });
        }
        part(world.clone(), finite).await;
        match world.pick(3) {
            0 => Err(world.drops.value()),
            _ => Ok(world.drops.value()),
        }
    });
    drop(result.await);
}

/// Runs one program to its end. Aborts the process if the program hangs, because a thread cannot be
/// stopped.
fn run(seed: u64) {
    let world = World::new(seed);
    let program = part(world.clone(), false);
    // The virtual clock reaches this time only if all tasks are blocked.
    let executor = world.clone();
    let watched = open_nursery(|n| async move {
        n.spawn(async move { executor.executor.run(sleep_forever()).await });
        n.spawn(async move {
            sleep(100_000 * SECOND).await;
            eprintln!("the random program of seed {seed} hangs");
            std::process::abort();
        });
        let limited = AssertUnwindSafe(move_on_after(1000 * SECOND, program));
        // A panic passes through this block, and ends the task with the time limit too.
        limited.0.await;
        n.cancel();
    });
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let run = RunBuilder::new().clock(MockClock::autojump());
        if seed.is_multiple_of(2) {
            run.shuffle(seed).run(watched)
        } else {
            run.run(watched)
        }
    }));
    assert!(
        ended.is_ok() || world.panics,
        "a panic of nobody's, seed {seed}"
    );
    // Tasks may hold results.
    world.tasks.lock().unwrap().clear();
    assert_eq!(world.drops.alive(), 0, "seed {seed} leaves values behind");
}

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a number of seeds"))
}

#[test]
fn random_programs_end_and_leave_nothing() {
    let first = setting("SEEDBED_STRESS_FIRST").unwrap_or(0);
    let seeds = setting("SEEDBED_STRESS_SEEDS").unwrap_or(500);
    (first..first + seeds).for_each(run);
}

// ---- A million children, in batches.

/// Ends one of the million children in a random way. Its value must be dropped in any case.
async fn one_of_many(world: &World, value: Counted) -> Result<Counted, Counted> {
    match world.pick(16) {
        0 | 1 => return Ok(value),
        2 if world.pick(1000) == 0 => return Err(value),
        3 if world.pick(1000) == 0 => quiet_panic(),
        2..=4 => turns(world.pick(3) as usize).await,
        5 => sleep(world.seconds()).await,
        6 => shield(sleep(world.seconds())).await,
        7 => drop(move_on_after(world.seconds(), sleep_forever()).await),
        8 => {
            let clean_up = async {
                let _value = world.drops.value();
                turns(1).await;
            };
            on_cancel(sleep(world.seconds()), clean_up).await;
        }
        9 => {
            let scope = CancelScope::new();
            scope.set_timeout(world.seconds());
            scope.set_shield(world.pick(2) == 0);
            scope.run(sleep_forever()).await.unwrap_or(());
        }
        10 => checkpoint_if_cancelled().await,
        11 => {
            open_nursery(|n| async move {
                n.spawn(sleep(world.seconds()));
                turns(1).await;
                n.cancel();
            })
            .await;
        }
        _ => sleep_forever().await,
    }
    Ok(value)
}

/// Runs many children, which end in random ways.
async fn batch(world: &World, size: u64) {
    let scope = CancelScope::new();
    if world.pick(2) == 0 {
        scope.set_timeout(world.seconds());
    }
    let canceller = scope.clone();
    let block = try_open_nursery(|n| async move {
        let _value = world.drops.value();
        for _ in 0..size {
            let task = n.try_spawn(one_of_many(world, world.drops.value()));
            match world.pick(256) {
                // Requests the cancellation, and does not wait.
                0 => drop(task.cancel()),
                1 => drop(move_on_after(SECOND / 100, task.outcome()).await),
                2 => turns(1).await,
                _ => drop(task),
            }
        }
        match world.pick(4) {
            0 => sleep(world.seconds()).await,
            1 => return Err(world.drops.value()),
            2 => n.terminate(Ok(world.drops.value())),
            _ => canceller.cancel(),
        }
        turns(3).await;
        Err(world.drops.value())
    });
    drop(scope.run(block).await);
}

/// The number of allocations may have grown by a few vectors of the run since the first batch, but
/// not with each child or batch. The vectors may have grown by less than two bytes per child.
const VECTORS: isize = 16;
const ROOM: isize = 1 << 20;

/// The memory after each batch is that after the first batch: no node, deadline, child or waker is
/// left. A node without a waker has no allocation of its own, so the test compares bytes too.
#[test]
fn a_million_children_with_any_fate_leave_nothing() {
    let world = &*World::new(setting("SEEDBED_STRESS_FIRST").unwrap_or(1));
    let size = 4_000;
    let crowds = setting("SEEDBED_STRESS_CHILDREN").unwrap_or(1_000_000) / size;
    let panics = RunBuilder::new()
        .clock(MockClock::autojump())
        .run(async move {
            let mut panics = 0;
            let mut first = None;
            for number in 0..crowds {
                let ended = AssertUnwindSafe(batch(world, size)).catch_unwind().await;
                panics += u32::from(ended.is_err());
                drop(ended);
                assert_eq!(world.drops.alive(), 0, "after crowd {number}");
                let now = allocations::held();
                // The first batch allocates the room that later ones use.
                let first = *first.get_or_insert(now);
                assert!(
                    now.blocks < first.blocks + VECTORS,
                    "after crowd {number}: {now:?}"
                );
                assert!(
                    now.bytes < first.bytes + ROOM,
                    "after crowd {number}: {now:?}"
                );
            }
            panics
        });
    assert!(panics > 0);
}

/// Thousands of calls may wait for one limiter. The state of the rest of a call, some kilobytes, is
/// allocated when the call has its token.
#[cfg(all(feature = "workers", target_os = "linux"))]
#[test]
fn a_call_that_waits_for_its_limiter_holds_little_memory() {
    const CALLS: usize = 100;
    seedbed::init();
    seedbed::run(async {
        let limiter = seedbed::CapacityLimiter::new(1);
        let _token = limiter.acquire().await;
        let call = || {
            let call = seedbed::run_sync(i32::abs, -1).limiter(&limiter);
            let mut call = Box::pin(call.into_future());
            assert!(
                futures_lite::future::block_on(futures_lite::future::poll_once(&mut call))
                    .is_none()
            );
            call
        };
        drop(call()); // allocates what later ones use
        let before = allocations::held();
        let calls: Vec<_> = (0..CALLS).map(|_| call()).collect();
        let bytes = allocations::held().bytes - before.bytes;
        assert_eq!(limiter.statistics().waiting, CALLS);
        assert!(
            bytes < 512 * CALLS as isize,
            "{} bytes each",
            bytes / CALLS as isize
        );
        drop(calls);
    });
}
