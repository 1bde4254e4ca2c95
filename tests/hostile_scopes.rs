//! Hostile programs: foreign code that runs at unexpected points, and does unexpected things there.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

use futures_lite::future::block_on;
use seedbed::cancel::{CancelSource, ScopeGroup, current_cancel_reason};
use seedbed::instrument::Instrument;
use seedbed::nursery::{RemoteChild, TaskInfo, TreeVar, current_task};
use seedbed::{CancelScope, RunBuilder, open_nursery, run};

/// Polls once.
fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

thread_local! {
    /// The action of the panic hook on this thread.
    static IN_PANIC: Cell<Option<fn()>> = const { Cell::new(None) };
}

/// Makes the panic hook run `act` when this thread panics.
fn when_this_thread_panics(act: fn()) {
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| match IN_PANIC.take() {
            Some(act) => act(),
            None => before(info),
        }));
    });
    IN_PANIC.set(Some(act));
}

#[test]
fn a_panic_hook_may_look_at_its_position_when_a_scope_is_run_twice() {
    thread_local! {
        static ASKED: Cell<bool> = const { Cell::new(false) };
    }
    let scope = CancelScope::new();
    let mut first = pin!(scope.run(pending::<()>()));
    assert!(poll(first.as_mut()).is_pending());
    when_this_thread_panics(|| {
        ASKED.set(true);
        assert_eq!(current_cancel_reason(), None);
        block_on(CancelScope::new().run(open_nursery(|_| async {})));
        run(async {});
    });
    let second = catch_unwind(AssertUnwindSafe(|| block_on(scope.run(async {}))));
    assert!(second.is_err());
    assert!(ASKED.get());
    // The first run is not affected.
    scope.cancel();
    assert_eq!(poll(first.as_mut()), Poll::Ready(None));
}

#[test]
fn a_scope_whose_first_poll_panicked_may_be_polled_again_in_another_tree() {
    /// Unlike an async block, this future can be polled again after a panic.
    struct Panics(bool);
    impl Future for Panics {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            assert!(std::mem::replace(&mut self.0, true), "the first poll");
            Poll::Pending
        }
    }
    let (outer, scope) = (CancelScope::new(), CancelScope::new());
    let mut inside = pin!(scope.run(Panics(false)));
    let first = catch_unwind(AssertUnwindSafe(|| {
        block_on(outer.run(poll_fn(|_| poll(inside.as_mut()))))
    }));
    assert!(first.is_err());
    run(async {
        assert!(poll(inside.as_mut()).is_pending());
        scope.cancel();
        assert_eq!(poll(inside.as_mut()), Poll::Ready(None));
    });
}

#[test]
fn a_child_whose_executor_belongs_to_a_thread_that_ends_is_lost_without_further_harm() {
    thread_local! {
        static KEPT: RefCell<Option<RemoteChild>> = const { RefCell::new(None) };
    }
    static POLLED: AtomicBool = AtomicBool::new(false);
    let there = |mut child: RemoteChild| {
        std::thread::spawn(move || {
            // Its destructor is the last to run, because it is the first to be registered.
            KEPT.set(None);
            while !POLLED.load(SeqCst) {
                assert!(poll(Pin::new(&mut child)).is_pending());
                std::thread::yield_now();
            }
            KEPT.set(Some(child));
        });
    };
    /// Asks for everything that depends on the position.
    struct Dropped(Arc<AtomicUsize>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            _ = current_cancel_reason();
            _ = CancelScope::new().is_cancelled();
            _ = current_task();
            self.0.fetch_add(1, SeqCst);
        }
    }
    let drops = Arc::new(AtomicUsize::new(0));
    let dropped = Dropped(drops.clone());
    let lost = catch_unwind(AssertUnwindSafe(|| {
        run(open_nursery(|n| async move {
            n.spawn_on(&there, async move {
                let _dropped = dropped;
                POLLED.store(true, SeqCst);
                pending::<()>().await
            });
        }))
    }));
    assert!(lost.is_err());
    assert_eq!(drops.load(SeqCst), 1);
}

#[test]
fn a_scope_that_is_being_polled_for_the_first_time_knows_why_it_is_cancelled_from_outside() {
    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    outer.cancel_because("outside");
    let seen = block_on(outer.run(async { inner.run(async { inner.cancel_reason() }).await }));
    let reason = seen.flatten().flatten().unwrap();
    assert_eq!(reason.source(), CancelSource::Explicit);
    assert_eq!(reason.message(), Some("outside"));
}

#[test]
fn a_long_chain_of_tasks_is_dropped_without_recursion() {
    const DEPTH: usize = 30_000;

    type Next = Pin<Box<dyn Future<Output = TaskInfo> + Send>>;

    /// A nursery in a task in a nursery, and so on. Each task is on an executor, and so has a stack
    /// of its own.
    fn deeper(executor: Arc<smol::Executor<'static>>, depth: usize) -> Next {
        Box::pin(async move {
            if depth == 0 {
                return current_task().unwrap();
            }
            open_nursery(|n| async move {
                let below = deeper(executor.clone(), depth - 1);
                n.spawn_on(&executor, below).await
            })
            .await
        })
    }

    let executor = Arc::new(smol::Executor::new());
    let last = block_on(executor.run(deeper(executor.clone(), DEPTH)));
    drop(last);
}

#[test]
fn a_variable_s_clone_may_open_what_it_likes() {
    static OTHER: TreeVar<u32> = TreeVar::new();
    static GREEDY: TreeVar<Greedy> = TreeVar::new();

    #[derive(PartialEq, Debug)]
    struct Greedy(u32);
    impl Clone for Greedy {
        fn clone(&self) -> Self {
            let seen = block_on(OTHER.scope(self.0, open_nursery(|_| async { OTHER.get() })));
            Greedy(seen.unwrap() + 1)
        }
    }

    run(GREEDY.scope(Greedy(1), async {
        assert_eq!(GREEDY.get(), Some(Greedy(2)));
    }));
}

#[test]
fn a_handle_on_a_scope_that_has_ended_keeps_no_waker() {
    let (scope, wakes) = (CancelScope::new(), Arc::new(Wakes));
    let waker = Waker::from(wakes.clone());
    {
        let mut future = pin!(scope.run(pending::<()>()));
        assert!(
            future
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
    }
    drop(waker);
    assert_eq!(Arc::strong_count(&wakes), 1);
}

struct Wakes;

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_waker_that_is_dropped_with_its_scope_may_use_the_group_that_the_scope_is_in() {
    struct Uses(ScopeGroup, Arc<AtomicUsize>);
    impl Wake for Uses {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for Uses {
        fn drop(&mut self) {
            self.0.cancel();
            self.1.fetch_add(1, SeqCst);
        }
    }
    let (group, used) = (ScopeGroup::new(), Arc::new(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::new(Uses(group.clone(), used.clone())));
    let mut future = Box::pin(group.open_child().run(pending::<()>()));
    assert!(
        future
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    drop((future, waker));
    // The group removes the scopes that have ended.
    (0..100).for_each(|_| drop(group.open_child()));
    assert_eq!(used.load(SeqCst), 1);
}

#[test]
fn a_run_ends_as_it_would_though_an_instrument_s_drop_panics() {
    struct Panics(Arc<AtomicUsize>);
    impl Instrument for Panics {}
    impl Drop for Panics {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
            panic!("an instrument's drop");
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let with_instrument = || RunBuilder::new().instrument(Arc::new(Panics(dropped.clone())));
    assert_eq!(with_instrument().run(async { 5 }), 5);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        with_instrument().run(async { panic!("the run") })
    }));
    assert_eq!(
        *panicked.unwrap_err().downcast::<&str>().unwrap(),
        "the run"
    );
    assert_eq!(dropped.load(SeqCst), 2);
}
