//! A cancelled scope that waits for work which cancellation does not interrupt is reported: what it
//! waits for, and what would end that. Such programs used to hang without a word.
//!
//! The report comes after two seconds of real time, which these tests wait for.

mod common;

use std::fmt::Write as _;
use std::future::poll_fn;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::panic::Location;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, Once};
use std::task::{Poll, Waker};

use common::alone;
use common::stage::{Stage, announced, forever, halting_pid, signal, wait_for, within};
use rustix::process::Signal;
use seedbed::sync::{Receiver, channel};
use seedbed::testing::MockClock;
use seedbed::time::sleep_forever;
use seedbed::{
    CancelScope, RunBuilder, WorkerConfig, on_cancel, open_nursery, open_worker_context, run,
    run_sync, shield, thread,
};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The messages of all events at WARN. All tests of the process share them.
static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Tests that wait for a warning.
static WAITING: Mutex<Vec<Waker>> = Mutex::new(Vec::new());

struct Recorder;

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        WARNINGS.lock().unwrap().push(message.0);
        let waiting = std::mem::take(&mut *WAITING.lock().unwrap());
        waiting.into_iter().for_each(Waker::wake);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            write!(self.0, "{value:?}").unwrap();
        }
    }
}

fn record_warnings() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Recorder).unwrap());
}

/// Returns the warnings that contain this text.
fn warnings(text: &str) -> Vec<String> {
    let all = WARNINGS.lock().unwrap();
    all.iter()
        .filter(|warning| warning.contains(text))
        .cloned()
        .collect()
}

/// Waits for a warning that contains this text.
async fn warned(text: &str) -> String {
    poll_fn(|cx| {
        WAITING.lock().unwrap().push(cx.waker().clone());
        match warnings(text).pop() {
            Some(warning) => Poll::Ready(warning),
            None => Poll::Pending,
        }
    })
    .await
}

/// Runs a test. One that hangs fails.
fn run_test(clock: Option<MockClock>, body: impl Future<Output = ()>) {
    let builder = RunBuilder::new();
    let builder = match clock {
        Some(clock) => builder.clock(clock),
        None => builder,
    };
    builder.run(within(body));
}

/// Shields a wait for the end of a channel. Returns the place that its report names, too.
#[track_caller]
fn shield_until_closed(channel: Receiver<()>) -> (String, impl Future<Output = ()>) {
    let closed = async move { _ = channel.recv().await };
    (Location::caller().to_string(), shield(closed))
}

#[test]
fn a_job_that_cannot_be_killed_is_reported_with_its_process() {
    record_warnings();
    seedbed::init();
    let _alone = alone();
    run_test(None, async {
        let (scope, mut stage) = (CancelScope::new(), Stage::new());
        let call = scope.run(run_sync(halting_pid, stage.path()));
        let cancel = async {
            let pid = stage.reached().await;
            scope.cancel();
            let warning = warned("halting_pid").await;
            assert!(warning.contains(&format!("process {pid}")), "{warning}");
            assert!(warning.contains("kill_on_cancel"), "{warning}");
            stage.release();
            pid
        };
        let (value, pid) = smol::future::zip(call, cancel).await;
        assert_eq!(value.unwrap().unwrap(), pid);
        assert_eq!(warnings("halting_pid").len(), 1, "it is reported once");
    });
}

/// The child of a nursery, and the clean-up of a context, wait in other tasks than the cancelled
/// scope's.
#[test]
fn a_context_that_waits_for_a_call_in_a_child_is_reported_with_the_call() {
    fn halting_in_a_context(stage: PathBuf) -> u32 {
        halting_pid(stage)
    }
    record_warnings();
    seedbed::init();
    let _alone = alone();
    run_test(None, async {
        let (scope, mut stage) = (CancelScope::new(), Stage::new());
        let path = stage.path();
        let config = WorkerConfig::new().name("mill");
        let block = scope.run(open_nursery(async |n| {
            n.spawn(open_worker_context(config, |workers| async move {
                workers.run_sync(halting_in_a_context, path).await
            }));
        }));
        let cancel = async {
            stage.reached().await;
            scope.cancel();
            let warning = warned("halting_in_a_context").await;
            assert!(warning.contains("in `mill`"), "{warning}");
            stage.release();
        };
        smol::future::zip(block, cancel).await;
    });
}

#[test]
fn a_thread_is_reported_with_its_function() {
    record_warnings();
    run_test(None, async {
        let scope = CancelScope::new();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let call = scope.run(thread::run_sync(move || released.recv().is_ok()));
        let cancel = async {
            scope.cancel();
            let warning = warned("a_thread_is_reported").await;
            assert!(warning.contains("abandon_on_cancel"), "{warning}");
            release.send(()).unwrap();
        };
        assert_eq!(smol::future::zip(call, cancel).await.0, Some(true));
    });
}

/// With a virtual clock the report is in real time: the clock may stand still, or jump.
#[test]
fn the_innermost_shield_is_reported_with_its_place() {
    record_warnings();
    run_test(Some(MockClock::new()), async {
        let (end, ended) = channel::<()>(1);
        let (scope, late) = (CancelScope::new(), CancelScope::new());
        let (inner, waits) = shield_until_closed(ended.clone());
        let body = scope.run(shield(waits));
        let (last, waits) = shield_until_closed(ended);
        let late_body = late.run(waits);
        let cancel = async {
            scope.cancel();
            let warning = warned(&inner).await;
            assert!(warning.contains("`shield`"), "{warning}");
            // The outer shield would report itself before one that is cancelled only now.
            late.cancel();
            warned(&last).await;
            let others = warnings(file!());
            let is_known = |warning: &String| warning.contains(&inner) || warning.contains(&last);
            let others: Vec<_> = others.iter().filter(|w| w.contains("`shield`")).collect();
            assert!(others.iter().all(|warning| is_known(warning)), "{others:?}");
            drop(end);
        };
        let both = smol::future::zip(body, late_body);
        smol::future::zip(both, cancel).await;
        assert_eq!(warnings(&inner).len(), 1, "it is reported once");
    });
}

#[test]
fn clean_up_is_reported() {
    record_warnings();
    run_test(None, async {
        let scope = CancelScope::new();
        let (end, ended) = channel::<()>(1);
        let clean_up = async { _ = ended.recv().await };
        let body = scope.run(on_cancel(sleep_forever(), clean_up));
        let cancel = async {
            scope.cancel();
            let warning = warned("the clean-up of `on_cancel`").await;
            assert!(warning.contains(file!()), "{warning}");
            drop(end);
        };
        smol::future::zip(body, cancel).await;
    });
}

const HELPER: &str = "SEEDBED_TEST_PART";

/// After Ctrl-C, the person at the terminal is told too, and a second Ctrl-C works as told.
#[test]
fn after_ctrl_c_standard_error_says_what_the_program_waits_for() {
    if let Some(path) = std::env::var_os(HELPER) {
        run(async {
            let path = PathBuf::from(path);
            drop(run_sync(forever, path).await);
        });
        return;
    }
    seedbed::init();
    let _alone = alone();
    let stage = Stage::new();
    let mut helper = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", std::thread::current().name().unwrap()])
        .arg("--nocapture")
        .env(HELPER, stage.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let job = smol::block_on(stage.reached());
    signal(helper.id(), Signal::INT);
    let mut stderr = helper.stderr.take().unwrap();
    let line = announced(&mut stderr, "Ctrl-C: waiting for ", "\n");
    assert!(line.contains("forever"), "{line}");
    assert!(line.contains(&format!("process {job}")), "{line}");
    signal(helper.id(), Signal::INT);
    assert_eq!(wait_for(&mut helper).signal(), Some(Signal::INT.as_raw()));
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "it is told once");
}
