//! Instruments: which hooks are called, when and in which order. The runs have a virtual clock; no
//! test sleeps.

#[path = "common/polling.rs"]
mod polling;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use polling::turns;
use seedbed::instrument::{
    Instrument, NotActiveError, TaskExit, add_instrument, remove_instrument,
};
use seedbed::nursery::{TaskInfo, current_task};
use seedbed::sync::Event;
use seedbed::testing::MockClock;
use seedbed::time::sleep_forever;
use seedbed::{Nursery, RunBuilder, move_on_after, open_nursery, run};

/// Records each event as `hook task`, where the root task is called `root`.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    waits: bool,
}

impl Log {
    fn new() -> Arc<Self> {
        Arc::default()
    }

    fn with_waits() -> Arc<Self> {
        Arc::new(Log {
            waits: true,
            ..Log::default()
        })
    }

    fn add(&self, line: impl Into<String>) {
        self.lines.lock().unwrap().push(line.into());
    }

    fn about(&self, what: &str, task: &TaskInfo) {
        let name = match task.parent() {
            None => "root",
            Some(_) => task.name(),
        };
        self.add(format!("{what} {name}"));
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock().unwrap())
    }

    /// Returns the recorded events of these tasks.
    fn of(&self, names: &[&str]) -> Vec<String> {
        let mut lines = self.take();
        lines.retain(|line| names.iter().any(|name| line.ends_with(name)));
        lines
    }
}

impl Instrument for Log {
    fn before_run(&self) {
        self.add("before_run");
    }
    fn after_run(&self) {
        self.add("after_run");
    }
    fn task_spawned(&self, task: &TaskInfo) {
        self.about("spawned", task);
    }
    fn task_scheduled(&self, task: &TaskInfo) {
        self.about("scheduled", task);
    }
    fn before_task_step(&self, task: &TaskInfo) {
        self.about("before", task);
    }
    fn after_task_step(&self, task: &TaskInfo) {
        self.about("after", task);
    }
    fn task_exited(&self, task: &TaskInfo, how: TaskExit) {
        self.about(&format!("{how:?}"), task);
    }
    fn before_io_wait(&self, timeout: Option<Duration>) {
        if self.waits {
            self.add(format!("waits {timeout:?}"));
        }
    }
    fn after_io_wait(&self, timeout: Option<Duration>) {
        if self.waits {
            self.add(format!("waited {timeout:?}"));
        }
    }
}

fn run_with<F: Future>(instrument: &Arc<Log>, future: F) -> F::Output {
    RunBuilder::new()
        .clock(MockClock::autojump())
        .instrument(instrument.clone())
        .run(future)
}

// ---- Order of events.

#[test]
fn a_task_s_events_go_from_its_spawn_to_its_exit_and_steps_are_within_the_root_s() {
    let log = Log::new();
    run_with(
        &log,
        open_nursery(|n| async move {
            n.named("child").spawn(turns(2));
        }),
    );
    let round = ["scheduled root", "before root"];
    let mut expected = vec!["before_run", "spawned root"];
    expected.extend(round);
    expected.extend([
        "spawned child",
        "scheduled child",
        "before child",
        "after child",
    ]);
    expected.push("after root");
    expected.extend(round);
    expected.extend([
        "scheduled child",
        "before child",
        "after child",
        "after root",
    ]);
    expected.extend(round);
    expected.extend(["scheduled child", "before child", "after child"]);
    expected.extend(["Finished child", "after root", "Finished root", "after_run"]);
    assert_eq!(log.take(), expected);
}

#[test]
fn all_ready_tasks_are_scheduled_before_the_first_of_them_has_its_step() {
    let log = Log::new();
    run_with(
        &log,
        open_nursery(|n| async move {
            n.named("one").spawn(turns(1));
            n.named("two").spawn(turns(1));
        }),
    );
    let expected = [
        "spawned one",
        "spawned two", //
        "scheduled one",
        "scheduled two",
        "before one",
        "after one",
        "before two",
        "after two", //
        "scheduled one",
        "scheduled two",
        "before one",
        "after one",
        "Finished one", //
        "before two",
        "after two",
        "Finished two",
    ];
    assert_eq!(log.of(&["one", "two"]), expected);
}

#[test]
fn a_task_that_is_woken_twice_before_its_step_is_scheduled_once() {
    let log = Log::new();
    let (one, two) = (&Event::new(), &Event::new());
    run_with(
        &log,
        open_nursery(|n| async move {
            let both = async {
                futures_lite::future::zip(one.wait(), two.wait()).await;
            };
            n.named("waiter").spawn(both);
            turns(3).await;
            one.set();
            two.set();
        }),
    );
    let scheduled = |line: &&String| *line == "scheduled waiter";
    assert_eq!(log.take().iter().filter(scheduled).count(), 2);
}

#[test]
fn the_steps_of_nested_tasks_are_nested() {
    let log = Log::new();
    run_with(
        &log,
        open_nursery(|n| async move {
            n.named("outer").spawn(open_nursery(|n| async move {
                n.named("inner").spawn(turns(1));
            }));
        }),
    );
    let expected = [
        "spawned outer",
        "scheduled outer",
        "before outer", //
        "spawned inner",
        "scheduled inner",
        "before inner",
        "after inner",
        "after outer", //
        "scheduled outer",
        "before outer",
        "scheduled inner",
        "before inner",
        "after inner", //
        "Finished inner",
        "after outer",
        "Finished outer",
    ];
    assert_eq!(log.of(&["outer", "inner"]), expected);
}

#[test]
fn task_exited_reports_how_a_task_ended_and_a_cancelled_one_has_no_further_step() {
    let log = Log::new();
    let block = open_nursery(|n| async move {
        let cancelled = n.named("cancelled").spawn(sleep_forever());
        n.named("swept").spawn(sleep_forever());
        turns(2).await;
        cancelled.cancel().await;
        n.named("panics").spawn(async { panic!("on purpose") });
        sleep_forever().await
    });
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run_with(&log, block)));
    assert!(ended.is_err());
    let lines = log.take();
    let of =
        |name: &str| -> Vec<&String> { lines.iter().filter(|line| line.ends_with(name)).collect() };
    let first = |name: &str| {
        ["spawned", "scheduled", "before", "after"].map(|what| format!("{what} {name}"))
    };
    assert_eq!(of("swept")[..4], first("swept").each_ref()[..]);
    assert_eq!(of("swept")[4..], ["Cancelled swept"]);
    assert_eq!(
        of("cancelled")[4..],
        ["scheduled cancelled", "Cancelled cancelled"]
    );
    assert_eq!(of("panics")[..4], first("panics").each_ref()[..]);
    assert_eq!(of("panics")[4..], ["Panicked panics"]);
    assert_eq!(
        lines[lines.len() - 3..],
        ["after root", "Panicked root", "after_run"]
    );
}

#[test]
fn children_that_are_dropped_with_their_block_exit_too_also_those_that_never_had_a_step() {
    let log = Log::new();
    run_with(&log, async {
        let mut block = Box::pin(open_nursery(|n| async move {
            n.named("polled").spawn(sleep_forever());
            turns(1).await;
            n.named("not polled").spawn(sleep_forever());
            n.cancel();
            n.named("last words").spawn(async {});
        }));
        assert!(futures_lite::future::poll_once(&mut block).await.is_none());
        drop(block);
        let unpolled = open_nursery(|n| {
            n.named("never").spawn(async {});
            async { panic!("so that nobody is polled") }
        });
        let mut unpolled = Box::pin(unpolled);
        let poll = std::panic::AssertUnwindSafe(futures_lite::future::poll_once(&mut unpolled));
        assert!(futures_lite::FutureExt::catch_unwind(poll).await.is_err());
    });
    let lines = log.of(&["polled", "never"]);
    assert!(lines.contains(&"Cancelled polled".to_string()), "{lines:?}");
    let count = |what: &str| lines.iter().filter(|line| line.starts_with(what)).count();
    let exits = count("Cancelled") + count("Finished");
    assert_eq!(count("spawned"), exits, "{lines:?}");
}

/// Sets the event, on another thread, when the log has such a line.
fn set_when_told(log: &Arc<Log>, event: &Event, line: fn(&str) -> bool) -> JoinHandle<()> {
    let (log, event) = (log.clone(), event.clone());
    std::thread::spawn(move || {
        while !log.lines.lock().unwrap().iter().any(|told| line(told)) {
            std::thread::yield_now();
        }
        event.set();
    })
}

#[test]
fn waits_are_reported_in_pairs_with_the_time_until_the_next_deadline() {
    let log = Log::with_waits();
    let real = RunBuilder::new().instrument(log.clone());
    real.run(async {
        turns(1).await;
        let event = Event::new();
        let is_timed = |line: &str| line.starts_with("waits Some(35") && line.ends_with("s)");
        let setter = set_when_told(&log, &event, is_timed);
        let hour = Duration::from_secs(3600);
        assert!(move_on_after(hour, event.wait()).await.is_some());
        setter.join().unwrap();
    });
    let mut lines = log.take();
    lines.retain(|line| line.starts_with("wait"));
    assert_eq!(lines.len() % 2, 0, "{lines:?}");
    for pair in lines.chunks(2) {
        assert_eq!(pair[0].replace("waits", "waited"), pair[1]);
    }
    assert_eq!(lines[0], "waits Some(0ns)", "somebody is ready already");
}

#[test]
fn a_wait_without_a_deadline_has_no_time_out() {
    let log = Log::with_waits();
    let event = &Event::new();
    let real = RunBuilder::new().instrument(log.clone());
    real.run(async {
        let setter = set_when_told(&log, event, |line| line == "waits None");
        event.wait().await;
        setter.join().unwrap();
    });
    assert!(log.take().contains(&"waited None".to_string()));
}

// ---- The current task in hooks.

#[test]
fn hooks_of_steps_are_called_in_the_task_and_those_of_the_run_in_none() {
    #[derive(Default)]
    struct Asks(AtomicUsize);
    impl Asks {
        fn expect(&self, task: Option<&TaskInfo>) {
            self.0.fetch_add(1, SeqCst);
            assert_eq!(current_task().as_ref(), task);
        }
    }
    impl Instrument for Asks {
        fn before_run(&self) {
            self.expect(None);
        }
        fn after_run(&self) {
            self.expect(None);
        }
        fn before_io_wait(&self, _: Option<Duration>) {
            self.expect(None);
        }
        fn after_io_wait(&self, _: Option<Duration>) {
            self.expect(None);
        }
        fn task_spawned(&self, task: &TaskInfo) {
            self.expect(task.parent().as_ref());
        }
        fn task_scheduled(&self, task: &TaskInfo) {
            self.expect(task.parent().as_ref());
        }
        fn before_task_step(&self, task: &TaskInfo) {
            self.expect(Some(task));
        }
        fn after_task_step(&self, task: &TaskInfo) {
            self.expect(Some(task));
        }
        fn task_exited(&self, task: &TaskInfo, _: TaskExit) {
            self.expect(task.parent().as_ref());
        }
    }
    let asks = Arc::new(Asks::default());
    RunBuilder::new().instrument(asks.clone()).run(async {
        open_nursery(|n| async move {
            n.spawn(turns(2));
        })
        .await;
        assert!(remove_instrument(&asks).is_ok(), "no hook has panicked");
        assert!(add_instrument(asks.clone()));
    });
    assert!(asks.0.load(SeqCst) > 15);
}

// ---- Adding and removing.

#[test]
fn instruments_are_added_and_removed_while_the_run_goes_on() {
    let (always, late) = (Log::new(), Log::new());
    let (first, second) = (late.clone(), late.clone());
    run_with(
        &always,
        open_nursery(|n| async move {
            n.named("before").spawn(async {}).await;
            assert!(add_instrument(first));
            n.named("meanwhile").spawn(async {}).await;
            assert_eq!(remove_instrument(&second), Ok(()));
            n.named("afterwards").spawn(async {}).await;
        }),
    );
    let names = ["before", "meanwhile", "afterwards"];
    let told = |log: &Log| log.of(&names.map(|name| name));
    let all = told(&always);
    assert_eq!(all.len(), 3 * 5);
    assert_eq!(told(&late), all[5..10]);
}

#[test]
fn an_instrument_that_is_added_twice_is_called_once() {
    let log = Log::new();
    RunBuilder::new()
        .instrument(log.clone())
        .instrument(log.clone())
        .run(async {
            assert!(!add_instrument(log.clone()));
        });
    let begins = |line: &&String| *line == "before_run";
    assert_eq!(log.take().iter().filter(begins).count(), 1);
}

#[test]
fn two_instruments_without_size_are_not_the_same() {
    struct Silent;
    impl Instrument for Silent {}
    let (one, two) = (Arc::new(Silent), Arc::new(Silent));
    run(async {
        assert!(add_instrument(one.clone()));
        assert_eq!(remove_instrument(&two), Err(NotActiveError));
        assert!(add_instrument(two.clone()));
        let dynamic: Arc<dyn Instrument> = one;
        assert_eq!(remove_instrument(&dynamic), Ok(()));
        assert_eq!(remove_instrument(&two), Ok(()));
    });
}

#[test]
fn an_instrument_belongs_to_its_run() {
    let log = Log::new();
    run_with(&log, async {});
    log.take();
    assert_eq!(
        remove_instrument(&log),
        Err(NotActiveError),
        "the run has ended"
    );
    run(async {
        assert_eq!(remove_instrument(&log), Err(NotActiveError), "another run");
    });
    let kept = log.clone();
    run_with(&log, async move {
        let other = std::thread::spawn(|| {
            run(open_nursery(|n| async move {
                n.named("elsewhere").spawn(async {});
            }))
        });
        other.join().unwrap();
    });
    assert!(kept.of(&["elsewhere"]).is_empty());
    assert_eq!(
        Arc::strong_count(&log),
        2,
        "a run that has ended keeps nothing"
    );
}

#[test]
#[should_panic = "outside of a run"]
fn adding_an_instrument_outside_of_a_run_panics() {
    add_instrument(Log::new());
}

#[test]
fn tasks_outside_of_a_run_have_no_events() {
    let log = Log::new();
    run_with(&log, async {
        let block = open_nursery(|n| async move { n.named("foreign").spawn(async {}).await });
        smol::spawn(block).await;
        open_nursery(|n| async move {
            let on_smol = |child| smol::spawn(child).detach();
            n.named("remote").spawn_on(&on_smol, turns(3)).await;
        })
        .await;
    });
    let lines = log.take();
    assert!(
        !lines.iter().any(|line| line.ends_with("foreign")),
        "{lines:?}"
    );
    let (first, last) = ("spawned remote".to_string(), "Finished remote".to_string());
    assert!(
        lines.contains(&first) && lines.contains(&last),
        "what waits for it here is told"
    );
}

#[test]
fn a_child_that_another_thread_spawns_is_reported_on_the_run_s_thread() {
    struct Where(std::thread::ThreadId, AtomicUsize);
    impl Instrument for Where {
        fn task_spawned(&self, task: &TaskInfo) {
            assert_eq!(std::thread::current().id(), self.0);
            if task.name() == "from afar" {
                self.1.fetch_add(1, SeqCst);
            }
        }
    }
    let here = Arc::new(Where(std::thread::current().id(), AtomicUsize::new(0)));
    let log = Log::new();
    let builder = RunBuilder::new()
        .instrument(here.clone())
        .instrument(log.clone());
    fn put(n: Nursery<'static>) {
        std::thread::spawn(move || drop(n.named("from afar").spawn(async {})))
            .join()
            .unwrap();
    }
    builder.run(open_nursery(|n: Nursery<'static>| async move { put(n) }));
    assert_eq!(here.1.load(SeqCst), 1);
    let expected = ["spawned", "scheduled", "before", "after", "Finished"];
    assert_eq!(
        log.of(&["from afar"]),
        expected.map(|what| format!("{what} from afar"))
    );
}

// ---- Hooks that use the library, and hooks that panic.

#[test]
fn an_instrument_that_panics_is_removed_and_the_run_and_the_others_go_on() {
    struct Crashes(AtomicUsize);
    impl Instrument for Crashes {
        fn task_scheduled(&self, _: &TaskInfo) {
            self.0.fetch_add(1, SeqCst);
            panic!("an instrument's");
        }
    }
    let crashes = Arc::new(Crashes(AtomicUsize::new(0)));
    let log = Log::new();
    let builder = RunBuilder::new()
        .instrument(crashes.clone())
        .instrument(log.clone());
    let value = builder.run(open_nursery(|n| async move {
        n.named("child").spawn(turns(2)).await;
        5
    }));
    assert_eq!(value, 5);
    assert_eq!(crashes.0.load(SeqCst), 1);
    assert_eq!(remove_instrument(&crashes), Err(NotActiveError));
    let lines = log.take();
    assert_eq!(lines.first().unwrap(), "before_run");
    assert_eq!(lines.last().unwrap(), "after_run");
    assert!(lines.contains(&"Finished child".to_string()));
}

#[test]
fn each_hook_may_panic_and_the_run_returns_its_value() {
    struct At(&'static str);
    impl At {
        fn reached(&self, hook: &str) {
            assert_ne!(self.0, hook, "on purpose");
        }
    }
    impl Instrument for At {
        fn before_run(&self) {
            self.reached("before_run");
        }
        fn after_run(&self) {
            self.reached("after_run");
        }
        fn task_spawned(&self, _: &TaskInfo) {
            self.reached("task_spawned");
        }
        fn before_task_step(&self, _: &TaskInfo) {
            self.reached("before_task_step");
        }
        fn after_task_step(&self, _: &TaskInfo) {
            self.reached("after_task_step");
        }
        fn task_exited(&self, _: &TaskInfo, _: TaskExit) {
            self.reached("task_exited");
        }
        fn before_io_wait(&self, _: Option<Duration>) {
            self.reached("before_io_wait");
        }
        fn after_io_wait(&self, _: Option<Duration>) {
            self.reached("after_io_wait");
        }
    }
    let hooks = [
        "before_run",
        "task_spawned",
        "before_task_step",
        "after_task_step",
        "before_io_wait", //
        "after_io_wait",
        "task_exited",
    ];
    for hook in hooks {
        let crashes = Arc::new(At(hook));
        let removed = RunBuilder::new().instrument(crashes.clone()).run(async {
            open_nursery(|n| async move {
                n.spawn(turns(2));
            })
            .await;
            remove_instrument(&crashes)
        });
        assert_eq!(removed, Err(NotActiveError), "{hook}");
    }
    RunBuilder::new()
        .instrument(Arc::new(At("after_run")))
        .run(async {});
}

#[test]
fn a_hook_may_remove_its_own_instrument_and_add_another_which_is_called_from_then_on() {
    struct HandsOver {
        me: Mutex<Option<Arc<HandsOver>>>,
        heir: Arc<Log>,
        told: AtomicUsize,
    }
    impl Instrument for HandsOver {
        fn before_task_step(&self, _: &TaskInfo) {
            self.told.fetch_add(1, SeqCst);
            let me = self.me.lock().unwrap().take().unwrap();
            assert_eq!(remove_instrument(&me), Ok(()));
            assert!(add_instrument(self.heir.clone()));
        }
        fn after_task_step(&self, _: &TaskInfo) {
            self.told.fetch_add(1, SeqCst);
        }
    }
    let log = Log::new();
    let first = Arc::new(HandsOver {
        me: Mutex::new(None),
        heir: log.clone(),
        told: AtomicUsize::new(0),
    });
    *first.me.lock().unwrap() = Some(first.clone());
    RunBuilder::new().instrument(first.clone()).run(async {});
    assert_eq!(first.told.load(SeqCst), 1);
    assert_eq!(log.take(), ["after root", "Finished root", "after_run"]);
}

#[test]
fn a_hook_may_spawn_read_the_tree_and_cancel() {
    #[derive(Default)]
    struct Busy {
        nursery: Mutex<Option<Nursery<'static>>>,
        spawned: AtomicUsize,
    }
    impl Instrument for Busy {
        fn task_scheduled(&self, task: &TaskInfo) {
            let Some(n) = self.nursery.lock().unwrap().clone() else {
                return;
            };
            if task.name() == "trigger" && self.spawned.fetch_add(1, SeqCst) == 0 {
                assert_eq!(
                    n.info().children().len(),
                    1,
                    "it is seen while it waits for its turn"
                );
                n.named("from a hook").spawn(async {});
                assert_eq!(n.info().children().len(), 2);
            }
        }
        fn task_exited(&self, task: &TaskInfo, _: TaskExit) {
            if task.name() == "from a hook"
                && let Some(n) = self.nursery.lock().unwrap().take()
            {
                n.cancel();
            }
        }
    }
    let busy = Arc::new(Busy::default());
    let log = Log::new();
    let slot = busy.clone();
    let builder = RunBuilder::new().instrument(busy).instrument(log.clone());
    builder.run(open_nursery(|n: Nursery<'static>| async move {
        *slot.nursery.lock().unwrap() = Some(n.clone());
        n.named("trigger").spawn(sleep_forever());
        sleep_forever().await
    }));
    let lines = log.of(&["trigger", "from a hook"]);
    assert!(
        lines.contains(&"Finished from a hook".to_string()),
        "{lines:?}"
    );
    assert_eq!(lines.last().unwrap(), "Cancelled trigger");
}

#[test]
fn an_instrument_without_hooks_changes_nothing() {
    struct Null;
    impl Instrument for Null {}
    let builder = RunBuilder::new().instrument(Arc::new(Null));
    assert_eq!(builder.run(async { 3 }), 3);
}
