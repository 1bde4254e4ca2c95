//! The reason of a cancellation, as its handle, its `Debug`, clean-up code and the log report it.

#[path = "common/log.rs"]
mod log;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use log::Log;
use seedbed::cancel::{CancelReason, CancelSource, current_cancel_reason};
use seedbed::testing::MockClock;
use seedbed::time::sleep_forever;
use seedbed::{
    CancelScope, RunBuilder, checkpoint, move_on_after, on_cancel, open_nursery, run, shield,
    try_open_nursery,
};
use tracing::Level;

const SECOND: Duration = Duration::from_secs(1);

/// Returns the reason that clean-up code inside of `work` sees.
async fn told<T>(work: impl AsyncFnOnce(Told) -> T) -> (T, CancelReason) {
    let told = Told::default();
    let value = work(told.clone()).await;
    let reason = told.0.lock().unwrap().take();
    (value, reason.expect("the clean-up has run"))
}

#[derive(Clone, Default)]
struct Told(Arc<Mutex<Option<CancelReason>>>);

impl Told {
    /// Waits until it is cancelled, and notes the reason.
    async fn wait(self) {
        let note = async {
            checkpoint().await;
            *self.0.lock().unwrap() = current_cancel_reason();
        };
        on_cancel(sleep_forever(), note).await;
    }
}

#[test]
fn a_call_gives_its_location_and_message() {
    let scope = CancelScope::new();
    assert_eq!(scope.cancel_reason(), None);
    scope.cancel_because("no more");
    let line = line!() - 1;
    let reason = scope.cancel_reason().unwrap();
    assert_eq!(reason.source(), CancelSource::Explicit);
    assert_eq!(reason.message(), Some("no more"));
    assert_eq!(reason.location().map(|at| at.line()), Some(line));
    let expected = format!("cancelled at tests/cancel_reasons.rs:{line}:11: no more");
    assert_eq!(reason.to_string(), expected);
    assert!(format!("{scope:?}").contains(&expected), "{scope:?}");
}

#[test]
fn the_first_reason_stays() {
    let scope = CancelScope::new();
    scope.set_timeout(SECOND);
    let handle = scope.clone();
    RunBuilder::new().clock(MockClock::autojump()).run(async {
        let work = on_cancel(sleep_forever(), async {
            handle.cancel_because("too late");
        });
        assert_eq!(scope.run(work).await, None);
    });
    handle.cancel_because("long over");
    let reason = handle.cancel_reason().unwrap();
    assert_eq!(reason.source(), CancelSource::Deadline);
    assert_eq!(reason.to_string(), "the deadline passed");
}

#[test]
fn a_scope_cancelled_through_another_one_has_that_one_s_reason_unless_it_has_its_own() {
    run(async {
        let [outer, inner] = [(); 2].map(|()| CancelScope::new());
        let (cancel_outer, handle) = (outer.clone(), inner.clone());
        let ended = outer.run(inner.run(on_cancel(sleep_forever(), async {
            let words =
                |reason: Option<CancelReason>| reason.and_then(|r| r.message().map(str::to_owned));
            assert_eq!(
                words(handle.cancel_reason()).as_deref(),
                Some("from outside")
            );
            assert_eq!(
                words(current_cancel_reason()).as_deref(),
                Some("from outside")
            );
            assert!(format!("{handle:?}").contains("from outside"));
            handle.cancel_because("from inside");
            assert_eq!(
                words(handle.cancel_reason()).as_deref(),
                Some("from inside")
            );
            assert_eq!(
                words(current_cancel_reason()).as_deref(),
                Some("from inside")
            );
        })));
        let (ended, ()) = futures_lite::future::zip(ended, async {
            cancel_outer.cancel_because("from outside");
        })
        .await;
        assert_eq!(ended, None);
    });
}

#[test]
fn a_scope_behind_a_shield_has_no_reason_but_the_code_in_it_can_ask_for_that_outside() {
    run(async {
        let outer = CancelScope::new();
        outer.cancel_because("outside");
        let inner = CancelScope::new();
        let handle = inner.clone();
        let value = outer.run(shield(inner.run(async {
            checkpoint().await;
            assert_eq!(handle.cancel_reason(), None);
            current_cancel_reason()
        })));
        let reason = value.await.flatten().flatten().unwrap();
        assert_eq!(reason.message(), Some("outside"));
    });
}

#[test]
fn without_a_cancellation_there_is_no_reason() {
    assert_eq!(current_cancel_reason(), None);
    run(async {
        assert_eq!(current_cancel_reason(), None);
        move_on_after(SECOND, async { assert_eq!(current_cancel_reason(), None) }).await;
    });
}

#[test]
fn children_see_the_reason_that_ended_their_block() {
    let ((), reason) = run(told(async |told| {
        open_nursery(async |n| {
            n.spawn(told.wait());
            checkpoint().await;
            n.cancel();
        })
        .await;
    }));
    assert_eq!(reason.source(), CancelSource::Explicit);
    assert!(
        reason
            .location()
            .unwrap()
            .file()
            .ends_with("cancel_reasons.rs")
    );

    let (failed, reason) = run(told(async |told| {
        try_open_nursery(async |n| {
            n.spawn(told.wait());
            n.try_spawn(async {
                checkpoint().await;
                Err::<(), _>("broken")
            });
            Ok(())
        })
        .await
    }));
    assert_eq!(failed, Err("broken"));
    assert_eq!(reason.source(), CancelSource::Error);

    let (failed, reason) = run(told(async |told| {
        try_open_nursery(async |n| {
            n.spawn(told.wait());
            checkpoint().await;
            Err::<(), _>("broken")
        })
        .await
    }));
    assert_eq!(failed, Err("broken"));
    assert_eq!(reason.source(), CancelSource::Error);

    let told_by_panic = Told::default();
    let waits = told_by_panic.clone().wait();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        run(open_nursery(async |n| {
            n.spawn(waits);
            checkpoint().await;
            panic!("in the body");
        }))
    }));
    assert!(panicked.is_err());
    let reason = told_by_panic.0.lock().unwrap().take().unwrap();
    assert_eq!(reason.source(), CancelSource::Panic);

    let ((), reason) = run(told(async |told| {
        open_nursery(async |n| {
            let task = n.spawn(told.wait());
            checkpoint().await;
            assert_eq!(task.cancel().await, None);
        })
        .await;
    }));
    assert_eq!(reason.source(), CancelSource::Task);
}

#[test]
fn each_cancelled_scope_is_logged_once() {
    let log = Log::new("seedbed::cancel", Level::TRACE);
    tracing::subscriber::with_default(log.clone(), || {
        let scope = CancelScope::new();
        scope.cancel_because("enough");
        scope.cancel_because("again");
    });
    let log = log.lines().concat();
    assert!(
        log.contains("reason=cancelled at tests/cancel_reasons.rs"),
        "{log}"
    );
    assert!(log.contains(": enough"), "{log}");
    assert!(!log.contains("again"), "{log}");
}
