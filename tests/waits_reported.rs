//! A cancelled scope that waits for work which cancellation does not interrupt is reported: what it
//! waits for, and what would end that. Such programs used to hang without a word.
//!
//! The report comes after two seconds of real time, which these tests wait for, all at the same
//! time.

mod common;

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::panic::Location;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use common::dispositions;
use common::log::Log;
use common::stage::{Stage, announced, forever, halting_pid, signal, wait_for, within};
use libtest_mimic::{Arguments, Trial};
use rustix::process::Signal;
use seedbed::sync::{Receiver, channel};
use seedbed::testing::MockClock;
use seedbed::time::sleep_forever;
use seedbed::{
    CancelScope, RunBuilder, WorkerConfig, on_cancel, open_nursery, open_worker_context, run,
    run_sync, shield, thread,
};
use tracing::Level;

/// Returns the log of all warnings, which the tests of this process share.
fn warnings() -> &'static Log {
    static WARNINGS: OnceLock<Log> = OnceLock::new();
    WARNINGS.get_or_init(|| {
        let log = Log::new("", Level::WARN);
        tracing::subscriber::set_global_default(log.clone()).unwrap();
        log
    })
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

fn a_job_that_cannot_be_killed_is_reported_with_its_process() {
    let log = warnings();
    run_test(None, async {
        let (scope, mut stage) = (CancelScope::new(), Stage::new());
        let call = scope.run(run_sync(halting_pid, stage.path()));
        let cancel = async {
            let pid = stage.reached().await;
            scope.cancel();
            let warning = log.message_with("halting_pid").await;
            assert!(warning.contains(&format!("process {pid}")), "{warning}");
            assert!(warning.contains("kill_on_cancel"), "{warning}");
            stage.release();
            pid
        };
        let (value, pid) = smol::future::zip(call, cancel).await;
        assert_eq!(value.unwrap().unwrap(), pid);
        assert_eq!(
            log.messages_with("halting_pid").len(),
            1,
            "it is reported once"
        );
    });
}

/// The child of a nursery, and the clean-up of a context, wait in other tasks than the cancelled
/// scope's.
fn a_context_that_waits_for_a_call_in_a_child_is_reported_with_the_call() {
    fn halting_in_a_context(stage: PathBuf) -> u32 {
        halting_pid(stage)
    }
    let log = warnings();
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
            let warning = log.message_with("halting_in_a_context").await;
            assert!(warning.contains("in `mill`"), "{warning}");
            stage.release();
        };
        smol::future::zip(block, cancel).await;
    });
}

fn a_thread_is_reported_with_its_function() {
    let log = warnings();
    run_test(None, async {
        let scope = CancelScope::new();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let call = scope.run(thread::run_sync(move || released.recv().is_ok()));
        let cancel = async {
            scope.cancel();
            let warning = log.message_with("a_thread_is_reported").await;
            assert!(warning.contains("abandon_on_cancel"), "{warning}");
            release.send(()).unwrap();
        };
        assert_eq!(smol::future::zip(call, cancel).await.0, Some(true));
    });
}

/// With a virtual clock the report is in real time: the clock may stand still, or jump.
fn the_innermost_shield_is_reported_with_its_place() {
    let log = warnings();
    run_test(Some(MockClock::new()), async {
        let (end, ended) = channel::<()>(1);
        let (scope, late) = (CancelScope::new(), CancelScope::new());
        let (inner, waits) = shield_until_closed(ended.clone());
        let body = scope.run(shield(waits));
        let (last, waits) = shield_until_closed(ended);
        let late_body = late.run(waits);
        let cancel = async {
            scope.cancel();
            let warning = log.message_with(&inner).await;
            assert!(warning.contains("`shield`"), "{warning}");
            // The outer shield would report itself before one that is cancelled only now.
            late.cancel();
            log.message_with(&last).await;
            let others = log.messages_with(file!());
            let is_known = |warning: &String| warning.contains(&inner) || warning.contains(&last);
            let others: Vec<_> = others.iter().filter(|w| w.contains("`shield`")).collect();
            assert!(others.iter().all(|warning| is_known(warning)), "{others:?}");
            drop(end);
        };
        let both = smol::future::zip(body, late_body);
        smol::future::zip(both, cancel).await;
        assert_eq!(log.messages_with(&inner).len(), 1, "it is reported once");
    });
}

fn clean_up_is_reported() {
    let log = warnings();
    run_test(None, async {
        let scope = CancelScope::new();
        let (end, ended) = channel::<()>(1);
        let clean_up = async { _ = ended.recv().await };
        let body = scope.run(on_cancel(sleep_forever(), clean_up));
        let cancel = async {
            scope.cancel();
            let warning = log.message_with("the clean-up of `on_cancel`").await;
            assert!(warning.contains(file!()), "{warning}");
            drop(end);
        };
        smol::future::zip(body, cancel).await;
    });
}

const HELPER: &str = "SEEDBED_TEST_PART";

/// After Ctrl-C, the person at the terminal is told too, and a second Ctrl-C works as told.
fn after_ctrl_c_standard_error_says_what_the_program_waits_for() {
    if let Some(path) = std::env::var_os(HELPER) {
        run(async {
            let path = PathBuf::from(path);
            drop(run_sync(forever, path).await);
        });
        return;
    }
    let stage = Stage::new();
    let mut helper = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "after_ctrl_c_standard_error_says_what_the_program_waits_for",
        ])
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

macro_rules! tests {
    ($($test:ident),* $(,)?) => { [$((stringify!($test), $test as fn())),*] };
}

fn main() {
    dispositions::reset();
    seedbed::init();
    let tests = tests![
        a_job_that_cannot_be_killed_is_reported_with_its_process,
        a_context_that_waits_for_a_call_in_a_child_is_reported_with_the_call,
        a_thread_is_reported_with_its_function,
        the_innermost_shield_is_reported_with_its_place,
        clean_up_is_reported,
        after_ctrl_c_standard_error_says_what_the_program_waits_for,
    ];
    let trials = tests.map(|(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    let mut arguments = Arguments::from_args();
    // libtest would run as many at a time as there are processors.
    arguments.test_threads = Some(trials.len());
    libtest_mimic::run(&arguments, trials.into()).exit()
}
