//! Run variables: which value code sees, what a token restores, and when values are dropped.

#[path = "common/panics.rs"]
mod panics;
#[path = "common/polling.rs"]
mod polling;

use std::sync::mpsc;
use std::sync::{Arc, Barrier, Mutex};

use panics::panic_of;
use polling::OnDrop;
use seedbed::run::{RunVar, RunVarToken, current_run, in_run, spawn_system_task};
use seedbed::time::sleep_forever;
use seedbed::{checkpoint, open_nursery, run, thread};

#[test]
fn all_tasks_system_tasks_and_calls_of_a_run_share_the_value() {
    static SHARED: RunVar<u32> = RunVar::new();
    run(open_nursery(|n| async move {
        assert_eq!(n.spawn(async { SHARED.get() }).await, None);
        n.spawn(async { SHARED.set(1) }).await;
        assert_eq!(SHARED.get(), Some(1));
        spawn_system_task(async { SHARED.set(2) }).await;
        assert_eq!(SHARED.get(), Some(2));
        current_run().call_soon(|| drop(SHARED.set(3))).unwrap();
        checkpoint().await;
        assert_eq!(SHARED.get(), Some(3));
        let host = thread::run_sync(|| thread::call_in_task(|| SHARED.get()));
        assert_eq!(host.await, Ok(Some(3)));
    }));
}

#[test]
fn a_later_run_and_a_run_on_another_thread_have_values_of_their_own() {
    static OWN: RunVar<u32> = RunVar::new();
    let barrier = Barrier::new(2);
    std::thread::scope(|threads| {
        for number in 0..2 {
            let barrier = &barrier;
            threads.spawn(move || {
                for round in 0..3 {
                    run(async {
                        assert_eq!(OWN.get(), None);
                        OWN.set(10 * round + number);
                        barrier.wait();
                        assert_eq!(OWN.get(), Some(10 * round + number));
                        // Both runs are alive until both have looked.
                        barrier.wait();
                    });
                }
            });
        }
    });
}

#[test]
fn variables_are_told_apart_also_if_they_have_the_same_type() {
    static ONE: RunVar<u32> = RunVar::new();
    static TWO: RunVar<u32> = RunVar::new();
    static NOTHING: RunVar<()> = RunVar::new();
    run(async {
        ONE.set(1);
        TWO.set(2);
        assert_eq!(
            (ONE.get(), TWO.get(), NOTHING.get()),
            (Some(1), Some(2), None)
        );
    });
}

#[test]
fn outside_of_a_run_nothing_is_set_and_setting_panics() {
    static NEVER: RunVar<u32> = RunVar::new();
    fn check() {
        assert_eq!(NEVER.get(), None);
        let said = panic_of(|| NEVER.set(1));
        assert!(
            said.contains("RunVar::set was called outside of a run"),
            "{said}"
        );
        let said = panic_of(|| NEVER.get_or_init(|| unreachable!()));
        assert!(
            said.contains("RunVar::get_or_init was called outside of a run"),
            "{said}"
        );
    }
    check();
    run(async {
        NEVER.set(2);
        thread::run_sync(check).await;
    });
    smol::block_on(open_nursery(
        |n| async move { n.spawn(async { check() }).await },
    ));
}

#[test]
fn the_first_use_sets_it_unless_that_panics() {
    static FIRST: RunVar<u32> = RunVar::new();
    run(async {
        let said = panic_of(|| FIRST.get_or_init(|| panic!("cannot be made")));
        assert_eq!(said, "cannot be made");
        assert_eq!(FIRST.get(), None);
        assert_eq!(FIRST.get_or_init(|| 5), 5);
        assert_eq!(FIRST.get_or_init(|| unreachable!()), 5);
    });
}

#[test]
fn the_initializer_may_use_the_variable_itself() {
    static ITSELF: RunVar<u32> = RunVar::new();
    run(async {
        let value = ITSELF.get_or_init(|| ITSELF.get_or_init(|| 5) + 1);
        assert_eq!((value, ITSELF.get()), (6, Some(6)));
    });
}

// ---- Tokens.

#[test]
fn a_token_restores_the_value_of_before_whatever_has_been_set_since() {
    static NAME: RunVar<&str> = RunVar::new();
    run(async {
        let unset = NAME.set("ada");
        let ada = NAME.set("bob");
        let bob = NAME.set("eve");
        ada.reset();
        assert_eq!(NAME.get(), Some("ada"));
        bob.reset();
        assert_eq!(NAME.get(), Some("bob"));
        unset.reset();
        assert_eq!(NAME.get(), None);
    });
}

#[test]
fn dropping_a_token_changes_nothing() {
    static NAME: RunVar<&str> = RunVar::new();
    run(async {
        drop(NAME.set("ada"));
        assert_eq!(NAME.get(), Some("ada"));
    });
}

#[test]
fn a_token_affects_its_own_run_wherever_it_is_used() {
    static NAME: RunVar<&str> = RunVar::new();
    fn check<T: Send + Sync + 'static>() {}
    check::<RunVarToken<&str>>();
    run(open_nursery(|n| async move {
        NAME.set("ada");
        let (in_task, in_thread) = (NAME.set("bob"), NAME.set("eve"));
        // In another run.
        let other = move || {
            run(async {
                NAME.set("other");
                in_thread.reset();
                NAME.get()
            })
        };
        assert_eq!(thread::run_sync(other).await, Some("other"));
        assert_eq!(NAME.get(), Some("bob"));
        n.spawn(async { in_task.reset() }).await;
        assert_eq!(NAME.get(), Some("ada"));
    }));
}

#[test]
fn a_token_of_a_run_that_has_ended_does_nothing() {
    static VALUE: RunVar<Arc<u32>> = RunVar::new();
    let first = Arc::new(1);
    let token = run(async {
        VALUE.set(first.clone());
        VALUE.set(Arc::new(2))
    });
    assert_eq!(Arc::strong_count(&first), 2, "the token has it");
    token.reset();
    assert_eq!(Arc::strong_count(&first), 1);
}

// ---- The end.

#[test]
fn values_are_dropped_on_the_run_s_thread_after_all_that_could_use_them() {
    type Action = Box<dyn FnMut() + Send + Sync>;
    static LAST: RunVar<Arc<OnDrop<Action>>> = RunVar::new();
    let (events, log) = mpsc::channel();
    let value = {
        let (here, events) = (std::thread::current().id(), Mutex::new(events.clone()));
        OnDrop(Box::new(move || {
            assert_eq!(std::thread::current().id(), here);
            assert!(in_run());
            // While it is dropped, it is unset, and nothing can be set any more.
            assert!(LAST.get().is_none());
            let end = OnDrop(Box::new(|| {}) as Action);
            LAST.set(Arc::new(end)).reset();
            assert!(LAST.get().is_none());
            events.lock().unwrap().send("value").unwrap();
        }) as Action)
    };
    run(async {
        LAST.set(Arc::new(value));
        let in_task = events.clone();
        spawn_system_task(async move {
            let _end = OnDrop(|| in_task.send("system task").unwrap());
            sleep_forever().await;
        });
        checkpoint().await;
        let call = move || {
            assert!(LAST.get().is_some());
            events.send("call").unwrap();
        };
        current_run().call_soon(call).unwrap();
    });
    assert_eq!(
        log.iter().collect::<Vec<_>>(),
        ["system task", "call", "value"]
    );
}

#[test]
fn a_panic_of_a_value_s_destructor_comes_out_of_the_run_and_the_others_are_dropped() {
    type Fails = OnDrop<fn()>;
    static ONE: RunVar<Arc<Fails>> = RunVar::new();
    static OTHER: RunVar<Arc<u32>> = RunVar::new();
    let other = Arc::new(5);
    let said = panic_of(|| {
        run(async {
            ONE.set(Arc::new(OnDrop(|| panic!("the destructor's"))));
            OTHER.set(other.clone());
        })
    });
    assert_eq!(said, "the destructor's");
    assert_eq!(Arc::strong_count(&other), 1);
}

#[test]
fn a_value_that_is_replaced_is_dropped_unless_a_token_keeps_it() {
    static VALUE: RunVar<Arc<u32>> = RunVar::new();
    run(async {
        let first = Arc::new(1);
        VALUE.set(first.clone());
        let token = VALUE.set(Arc::new(2));
        assert_eq!(Arc::strong_count(&first), 2);
        drop(token);
        assert_eq!(Arc::strong_count(&first), 1);
    });
}
