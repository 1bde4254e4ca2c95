//! Wakers of other runtimes, which may do anything in `wake`: poll or drop what they wait for, look
//! at it, or panic. Some executors run a task right there.

#[path = "common/in_waker.rs"]
mod in_waker;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use in_waker::{Wait, run_in_waker};
use seedbed::cancel::ScopeGroup;
use seedbed::nursery::Started;
use seedbed::sync::{CapacityLimiter, Event, RwLock, channel};
use seedbed::thread::{self, wait_all_threads_completed};
use seedbed::time::sleep_forever;
use seedbed::{CancelScope, open_nursery};

/// The longest time that a test waits for something that happens at once, unless it deadlocks.
const DEADLOCK: Duration = Duration::from_secs(60);

const WAITS: usize = 4;

/// Waits that one call ends.
struct Case {
    name: &'static str,
    waits: Vec<Wait>,
    end: Box<dyn FnOnce() + Send>,
    /// Uses what the waits wait for.
    look: Arc<dyn Fn() + Send + Sync>,
}

fn case(
    name: &'static str,
    wait: impl Fn() -> Wait,
    end: impl FnOnce() + Send + 'static,
    look: impl Fn() + Send + Sync + 'static,
) -> Case {
    Case {
        name,
        waits: (0..WAITS).map(|_| wait()).collect(),
        end: Box::new(end),
        look: Arc::new(look),
    }
}

fn cases() -> Vec<Case> {
    vec![
        event(),
        limiter(),
        rw_lock(),
        channel_end(),
        group(),
        scope(),
    ]
}

fn event() -> Case {
    let event = Event::new();
    let (set, look) = (event.clone(), event.clone());
    let wait = || Box::pin(event.wait()) as Wait;
    case(
        "event",
        wait,
        move || set.set(),
        move || _ = look.statistics(),
    )
}

fn limiter() -> Case {
    let limiter = CapacityLimiter::new(0);
    let (end, look) = (limiter.clone(), limiter.clone());
    let wait = move || {
        let limiter = limiter.clone();
        Box::pin(async move { std::mem::forget(limiter.acquire().await) }) as Wait
    };
    let end = move || end.set_total(WAITS);
    case("limiter", wait, end, move || _ = look.statistics())
}

fn rw_lock() -> Case {
    let lock = RwLock::new(0);
    let (writer, look) = (lock.try_write().unwrap(), lock.clone());
    let wait = move || {
        let lock = lock.clone();
        Box::pin(async move { drop(lock.read().await) }) as Wait
    };
    case(
        "lock",
        wait,
        move || drop(writer),
        move || _ = look.statistics(),
    )
}

fn channel_end() -> Case {
    let (sender, receiver) = channel::<u8>(0);
    let look = receiver.clone();
    let wait = move || {
        let receiver = receiver.clone();
        Box::pin(async move { _ = receiver.recv().await }) as Wait
    };
    case(
        "channel",
        wait,
        move || sender.close(),
        move || _ = look.statistics(),
    )
}

fn group() -> Case {
    let group = ScopeGroup::new();
    let (end, look) = (group.clone(), group.clone());
    let wait = move || {
        let run = group.open_child().run(sleep_forever());
        Box::pin(async move { _ = run.await }) as Wait
    };
    case(
        "group",
        wait,
        move || end.cancel(),
        move || _ = look.is_cancelled(),
    )
}

/// Futures that are polled in one scope, each with its own waker.
fn scope() -> Case {
    type Outer = Pin<Box<dyn Future<Output = Option<()>> + Send>>;
    struct Inside {
        outer: Arc<Mutex<Outer>>,
        turn: Arc<Mutex<Option<Waker>>>,
        done: bool,
    }
    impl Future for Inside {
        type Output = ();
        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            if self.done {
                return Poll::Ready(());
            }
            *self.turn.lock().unwrap() = Some(cx.waker().clone());
            let Ok(mut outer) = self.outer.try_lock() else {
                return Poll::Pending;
            };
            let ended = outer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            drop(outer);
            self.done = ended.is_ready();
            Poll::Pending
        }
    }
    let scope = CancelScope::new();
    let (end, look) = (scope.clone(), scope.clone());
    let turn = Arc::new(Mutex::new(None::<Waker>));
    let polled = turn.clone();
    // Each poll of the outer scope polls one more inner scope for the first time.
    let mut inner = Vec::new();
    let outer = scope.run(std::future::poll_fn(move |_| {
        let waker = polled.lock().unwrap().take().expect("set by `Inside`");
        let mut run = Box::pin(CancelScope::new().run(sleep_forever()));
        _ = run.as_mut().poll(&mut Context::from_waker(&waker));
        inner.push(run);
        Poll::<()>::Pending
    }));
    let outer = Arc::new(Mutex::new(Box::pin(outer) as Outer));
    let wait = move || {
        Box::pin(Inside {
            outer: outer.clone(),
            turn: turn.clone(),
            done: false,
        }) as Wait
    };
    case(
        "scope",
        wait,
        move || end.cancel(),
        move || _ = look.is_cancelled(),
    )
}

/// Fails if `act` does not return.
fn without_deadlock(name: &str, act: impl FnOnce() + Send + 'static) {
    let (sender, ended) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let _sender = sender; // dropped at the end, also after a panic
        act();
    });
    let ended = ended.recv_timeout(DEADLOCK);
    assert_eq!(
        ended,
        Err(mpsc::RecvTimeoutError::Disconnected),
        "{name} deadlocks"
    );
    thread.join().unwrap();
}

/// A waker that does something the first time that it is woken, and counts.
struct Acts {
    wakes: AtomicUsize,
    act: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Acts {
    fn new(act: impl FnOnce() + Send + 'static) -> Arc<Self> {
        Arc::new(Acts {
            wakes: AtomicUsize::new(0),
            act: Mutex::new(Some(Box::new(act))),
        })
    }
}

impl Wake for Acts {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, SeqCst);
        let act = self.act.lock().unwrap().take();
        if let Some(act) = act {
            act();
        }
    }
}

fn poll(wait: &mut Wait, waker: &Arc<Acts>) -> Poll<()> {
    let waker = Waker::from(waker.clone());
    wait.as_mut().poll(&mut Context::from_waker(&waker))
}

/// The waiters behind the bad waker used to sleep forever.
#[test]
fn a_waker_that_panics_keeps_no_other_waiter_from_being_woken() {
    for bad in 0..WAITS {
        for Case {
            name,
            mut waits,
            end,
            ..
        } in cases()
        {
            let act = |at| Acts::new(move || assert_ne!(at, bad, "a bad waker"));
            let wakers: Vec<_> = (0..WAITS).map(act).collect();
            for (wait, waker) in waits.iter_mut().zip(&wakers) {
                assert!(poll(wait, waker).is_pending(), "{name}");
            }
            let ended = catch_unwind(AssertUnwindSafe(end));
            assert!(ended.is_err(), "{name}: the panic is resumed");
            for waker in wakers {
                assert_eq!(waker.wakes.load(SeqCst), 1, "{name}");
            }
        }
    }
}

/// `Event` used to wake while it was locked.
#[test]
fn a_waker_may_poll_drop_and_inspect_what_it_waits_for() {
    for Case {
        name,
        waits,
        end,
        look,
    } in cases()
    {
        without_deadlock(name, move || {
            let waits: Vec<_> = waits
                .into_iter()
                .map(|wait| Arc::new(Mutex::new(Some(wait))))
                .collect();
            let wakers: Vec<_> = waits
                .iter()
                .map(|wait| {
                    let (wait, look) = (wait.clone(), look.clone());
                    Acts::new(move || {
                        look();
                        let mut wait = wait.lock().unwrap();
                        let noop = Acts::new(|| {});
                        _ = poll(wait.as_mut().unwrap(), &noop);
                        look();
                        *wait = None;
                        look();
                    })
                })
                .collect();
            for (wait, waker) in waits.iter().zip(&wakers) {
                assert!(poll(wait.lock().unwrap().as_mut().unwrap(), waker).is_pending());
            }
            end();
            // The first waker that is woken drops the scopes of the others.
            let woken = wakers.iter().filter(|waker| waker.wakes.load(SeqCst) == 1);
            assert_eq!(woken.count(), if name == "scope" { 1 } else { WAITS });
        });
    }
}

#[test]
fn a_task_that_runs_in_its_waker_gets_the_result_of_a_thread() {
    let (go, wait) = mpsc::channel();
    let ended = run_in_waker(Box::pin(async move {
        let call = thread::run_sync(move || {
            wait.recv().unwrap();
            thread::call_in_task(|| 5)
        });
        assert_eq!(call.await, Ok(5));
    }));
    go.send(()).unwrap();
    assert_eq!(
        ended.recv_timeout(DEADLOCK),
        Err(mpsc::RecvTimeoutError::Disconnected)
    );
}

#[test]
fn a_task_that_runs_in_its_waker_sees_the_end_of_all_threads() {
    let (go, wait) = mpsc::channel::<()>();
    let mut call = Box::pin(async move {
        thread::run_sync(move || _ = wait.recv()).await;
    });
    _ = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    let ended = run_in_waker(Box::pin(wait_all_threads_completed()));
    go.send(()).unwrap();
    assert_eq!(
        ended.recv_timeout(DEADLOCK),
        Err(mpsc::RecvTimeoutError::Disconnected)
    );
}

#[test]
fn a_task_that_runs_in_its_waker_starts_a_child() {
    let open = Event::new();
    let inside = open.clone();
    let ended = run_in_waker(Box::pin(open_nursery(|n| async move {
        let start = n.start(|started: Started<u8>| async move {
            inside.wait().await;
            started.send(5);
        });
        assert_eq!(start.await, Ok(5));
    })));
    open.set();
    assert_eq!(
        ended.recv_timeout(DEADLOCK),
        Err(mpsc::RecvTimeoutError::Disconnected)
    );
}
