//! The waits of tasks, as the tree shows them.

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::mpsc;
use std::time::Duration;

use crate::{drawn, without_numbers};
use seedbed::nursery::task_trees;
use seedbed::sync::{Condvar, Event, Mutex, RwLock, Semaphore, channel};
use seedbed::testing::wait_all_tasks_blocked;
use seedbed::time::sleep_forever;
use seedbed::{CapacityLimiter, checkpoint, open_nursery, run, sleep, thread};

/// Returns the names and waits in a drawn tree, without the lines that show its structure.
fn texts(drawn: &str) -> Vec<String> {
    let structure = ['│', '├', '└', '─', ' '];
    drawn
        .lines()
        .map(|line| line.trim_start_matches(structure).to_string())
        .collect()
}

#[test]
fn each_task_s_line_tells_what_the_task_waits_for() {
    let (mutex, rw_lock) = (&Mutex::new(()), &RwLock::new(()));
    let (semaphore, limiter) = (&Semaphore::new(0), &CapacityLimiter::new(0));
    let (condvar, event) = (&Condvar::new(()), &Event::new());
    let (full, _receiver) = &channel::<()>(0);
    let (_sender, empty) = &channel::<()>(0);
    let drawn = run(open_nursery(|n| async move {
        let _held = (mutex.lock().await, rw_lock.write().await);
        n.named("mutex").spawn(async { drop(mutex.lock().await) });
        n.named("read").spawn(async { drop(rw_lock.read().await) });
        n.named("write")
            .spawn(async { drop(rw_lock.write().await) });
        n.named("permit")
            .spawn(async { drop(semaphore.acquire().await) });
        n.named("token")
            .spawn(async { drop(limiter.acquire().await) });
        let task = n.named("event").spawn(event.wait());
        n.named("task").spawn(async { _ = task.outcome().await });
        n.named("send").spawn(async { _ = full.send(()).await });
        n.named("recv").spawn(async { _ = empty.recv().await });
        n.named("sleep").spawn(sleep(Duration::from_secs(1000)));

        n.named("condvar")
            .spawn(async { drop(condvar.wait(condvar.lock().await).await) });
        n.named("not of this crate").spawn(pending::<()>());
        wait_all_tasks_blocked().await;
        drawn()
    })
    .daemon());
    let expected = [
        "mutex, waits for a mutex",
        "read, waits for a lock to read",
        "write, waits for a lock to write",
        "permit, waits for a permit",
        "token, waits for a limiter token",
        "event, waits for an event",
        "task, waits for another task",
        "send, waits for room in a channel",
        "recv, waits for a value in a channel",
        "sleep, waits for a point in time",
        "condvar, waits for a notification",
        "not of this crate",
    ];
    assert_eq!(texts(&drawn)[2..], expected);
}

#[test]
fn a_task_that_runs_or_is_about_to_run_waits_for_nothing() {
    let event = &Event::new();
    let drawn = run(open_nursery(|n| async move {
        n.named("woken").spawn(event.wait());
        n.named("draws").spawn(async {
            checkpoint().await;
            event.set();
            let drawn = drawn();
            sleep_forever().await;
            drop(drawn);
        });
        n.named("not polled").spawn(sleep_forever());
        let before = drawn();
        event.set();
        before
    })
    .daemon());
    let expected = ["nursery", "woken", "draws", "not polled"];
    assert_eq!(texts(&drawn)[1..], expected);
}

#[test]
fn a_wait_is_forgotten_when_the_task_goes_on() {
    let (first, drawn) = run(open_nursery(|_| async move {
        let event = &Event::new();
        let child = async {
            event.wait().await;
            pending::<()>().await
        };
        open_nursery(|inner| async move {
            inner.named("child").spawn(child);
            wait_all_tasks_blocked().await;
            let first = drawn();
            event.set();
            wait_all_tasks_blocked().await;
            let second = drawn();
            (first, second)
        })
        .daemon()
        .await
    }));
    assert_eq!(texts(&first).last().unwrap(), "child, waits for an event");
    assert_eq!(texts(&drawn).last().unwrap(), "child");
}

#[test]
fn a_nursery_s_line_tells_what_its_body_waits_for_while_it_has_one() {
    let drawn = run(open_nursery(|n| async move {
        n.named("waits in its body").spawn(open_nursery(|_| async {
            Event::new().wait().await;
        }));
        n.named("waits for its child")
            .spawn(open_nursery(|n| async move {
                n.named("child").spawn(sleep_forever());
            }));
        n.named("both").spawn(async {
            let mut nap = pin!(sleep(Duration::from_secs(1000)));
            let mut block = pin!(open_nursery(|n| async move {
                n.named("unknown").spawn(pending::<()>());
            }));
            poll_fn(|cx| {
                assert!(nap.as_mut().poll(cx).is_pending());
                block.as_mut().poll(cx)
            })
            .await
        });
        wait_all_tasks_blocked().await;
        drawn()
    })
    .daemon());
    let expected = [
        "waits in its body",
        "nursery, its body waits for an event",
        "waits for its child",
        "nursery",
        "child",
        "both, waits for a point in time",
        "nursery",
        "unknown",
    ];
    assert_eq!(texts(&drawn)[2..], expected);
}

#[test]
fn a_call_in_a_thread_is_shown_with_its_function_and_whether_it_is_queued() {
    fn wait_for_a_word(words: mpsc::Receiver<()>) -> bool {
        words.recv().is_ok()
    }
    let (word, words) = mpsc::channel();
    let (queued_word, queued_words) = mpsc::channel();
    let limiter = &CapacityLimiter::new(1);
    let call = |words| thread::run_sync(move || wait_for_a_word(words)).limiter(limiter);
    let (first, second) = (call(words), call(queued_words));
    let drawn = run(open_nursery(|n| async move {
        n.spawn(first.into_future());
        n.named("queued").spawn(second.into_future());
        wait_all_tasks_blocked().await;
        let drawn = drawn();
        word.send(()).unwrap();
        queued_word.send(()).unwrap();
        drawn
    })
    .daemon());
    let closure = "task_tree::waits::a_call_in_a_thread_is_shown_with_its_function_and_whether_it_is_queued::{{closure}}::{{closure}}";
    assert_eq!(
        texts(&drawn)[2..],
        [
            format!("a thread that calls `{closure}`"),
            format!("queued, waits for a limiter token for a thread that calls `{closure}`"),
        ]
    );
}

#[test]
fn another_thread_sees_what_a_root_task_waits_for() {
    let (seen, trees) = mpsc::channel();
    let event = Event::new();
    let (set, waits) = (event.clone(), event);
    let look = move || {
        let own = |tree: &String| tree.contains("waits_in_its_root_task");
        let tree = loop {
            let mut trees = task_trees()
                .into_iter()
                .map(|tree| without_numbers(&tree.to_string()));
            match trees.find(|tree| own(tree) && tree.contains("waits for")) {
                Some(tree) => break tree,
                None => std::thread::yield_now(),
            }
        };
        seen.send(tree).unwrap();
        set.set();
    };
    async fn waits_in_its_root_task(event: Event) {
        event.wait().await
    }
    let looks = std::thread::spawn(look);
    run(waits_in_its_root_task(waits));
    looks.join().unwrap();
    let tree = trees.recv().unwrap();
    assert!(
        tree.ends_with("waits_in_its_root_task, waits for an event"),
        "{tree}"
    );
}
