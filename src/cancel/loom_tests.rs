//! Models of scopes that are cancelled, shielded and ended by several threads at once.

use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::{CancelScope, Watch, shield};
use crate::sys::model::{Drops, JoinHandle, Plain, block_on, check, spawn};
use crate::sys::primitives::{AtomicWaker, Mutex, lock};

#[test]
fn a_scope_that_is_cancelled_on_another_thread_ends_whether_or_not_it_has_begun() {
    check(|| {
        let drops = Drops::default();
        let value = drops.track();
        let scope = CancelScope::new();
        let canceller = scope.clone();
        spawn(move || canceller.cancel());
        let body = async move {
            let _value = value;
            pending::<()>().await;
        };
        assert_eq!(block_on(scope.run(body)), None);
        assert_eq!(drops.count(), 1);
        assert!(scope.is_cancelled());
    });
}

#[test]
fn writes_before_a_cancellation_are_visible_after_the_end_of_the_scope() {
    check(|| {
        let plain = Plain::new();
        let scope = CancelScope::new();
        let (canceller, there) = (scope.clone(), plain.clone());
        spawn(move || {
            there.set(1);
            canceller.cancel();
        });
        assert_eq!(block_on(scope.run(pending::<()>())), None);
        assert_eq!(plain.get(), 1);
    });
}

#[test]
fn a_scope_that_is_dropped_while_it_is_cancelled_leaves_nothing_behind() {
    check(|| {
        let drops = Drops::default();
        let (outer, inner) = (CancelScope::new(), CancelScope::new());
        let value = drops.track();
        let cancellers: Vec<JoinHandle<()>> = [&outer, &inner]
            .map(|scope| {
                let scope = scope.clone();
                spawn(move || scope.cancel())
            })
            .into();
        {
            let body = inner.run(async move {
                let _value = value;
                pending::<()>().await;
            });
            let mut run = pin!(outer.run(body));
            let _either = run.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        for canceller in cancellers {
            canceller.join().unwrap();
        }
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn of_two_scopes_that_are_cancelled_at_once_one_absorbs_and_the_outer_one_always_ends() {
    check(|| {
        let (outer, inner) = (CancelScope::new(), CancelScope::new());
        for scope in [&outer, &inner] {
            let scope = scope.clone();
            spawn(move || scope.cancel());
        }
        let body = inner.run(pending::<()>());
        // Whichever comes first: if the inner scope absorbs, the outer one's body goes on with what
        // the inner returned.
        let value = block_on(outer.run(body));
        assert!(matches!(value, None | Some(None)), "{value:?}");
    });
}

#[test]
fn a_shield_that_is_taken_down_lets_a_cancellation_through_that_comes_at_the_same_time() {
    check(|| {
        let (outer, inner) = (CancelScope::new(), CancelScope::new());
        inner.set_shield(true);
        let (canceller, unshielder) = (outer.clone(), inner.clone());
        spawn(move || canceller.cancel());
        spawn(move || unshielder.set_shield(false));
        assert_eq!(block_on(outer.run(inner.run(pending::<()>()))), None);
    });
}

#[test]
fn a_shielded_body_ends_before_its_cancelled_scope() {
    check(|| {
        let scope = CancelScope::new();
        let plain = Plain::new();
        let (canceller, there) = (scope.clone(), plain.clone());
        let (given, waker) = (Arc::new(Mutex::new(false)), Arc::new(AtomicWaker::new()));
        let (give, wake) = (given.clone(), waker.clone());
        spawn(move || {
            canceller.cancel();
            *lock(&give) = true;
            wake.wake();
        });
        let wait = poll_fn(|cx| {
            waker.register(cx.waker());
            if *lock(&given) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        block_on(scope.run(async {
            shield(async {
                wait.await;
                there.set(1);
            })
            .await;
        }));
        assert_eq!(plain.get(), 1);
    });
}

#[test]
fn a_thread_sees_that_its_watch_is_cancelled_or_gone() {
    check(|| {
        let scope = CancelScope::new();
        let (mut watch, view) = (None, std::rc::Rc::new(std::cell::Cell::new(None)));
        let plain = Plain::new();
        let there = plain.clone();
        let made = view.clone();
        let mut run = Box::pin(scope.run(poll_fn(move |cx| {
            let watch = watch.get_or_insert_with(|| Watch::new(false));
            made.set(Some(watch.view()));
            watch.poll_inside(cx, |_| Poll::<()>::Pending)
        })));
        let polled = run.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        let view = view.take().expect("set by the poll");
        let (looker, seen_last) = (view.clone(), view);
        let looker = spawn(move || looker.is_cancelled().then(|| there.get()));
        plain.set(1);
        scope.cancel();
        drop(run);
        assert!(matches!(looker.join().unwrap(), None | Some(1)));
        assert!(seen_last.is_cancelled());
    });
}
