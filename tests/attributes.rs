//! `#[seedbed::test]` with each option. `compile_pass` and `compile_fail` have programs with
//! `#[seedbed::main]`.

use std::process::{ExitCode, id};
use std::time::Duration;

use seedbed::run::CtrlC;
use seedbed::testing::MockClock;
use seedbed::time::current_time;
use seedbed::{WorkerConfig, fail_after, open_nursery, run_sync, sleep};

const HOUR: Duration = Duration::from_secs(3600);

fn pid(_: ()) -> u32 {
    id()
}

#[seedbed::test(clock = MockClock::autojump())]
async fn a_virtual_clock_passes_hours_in_no_time() {
    let begun = current_time();
    sleep(HOUR).await;
    assert_eq!(current_time() - begun, HOUR);
}

#[seedbed::test]
async fn without_options_a_test_calls_a_worker() -> Result<(), seedbed::WorkerError> {
    assert_ne!(run_sync(pid, ()).await?, id());
    Ok(())
}

#[seedbed::test(workers = WorkerConfig::new().single_use())]
async fn the_workers_of_a_test_have_its_configuration() {
    let (first, second) = (run_sync(pid, ()), run_sync(pid, ()));
    assert_ne!(first.await.unwrap(), second.await.unwrap());
}

/// A comma in a value, in brackets of every kind, does not end it.
#[seedbed::test(
    ctrl_c = CtrlC::Leave,
    shuffle = [1, 2].into_iter().map(|seed| seed << 1).collect::<Result3<_, 7>>().0,
    workers = { let (limit, config) = (1 << 30, WorkerConfig::new()); config.memory_limit(limit) },
    clock = MockClock::autojump(),
)]
async fn options_may_be_combined() {
    let order = &std::sync::Mutex::new(Vec::new());
    open_nursery(|n| async move {
        for child in 0..20 {
            n.spawn(async move { order.lock().unwrap().push(child) });
        }
    })
    .await;
    let is_sorted = order.lock().unwrap().is_sorted();
    assert!(!is_sorted, "the seed 6 shuffles it");
    assert!(fail_after(HOUR, sleep(2 * HOUR)).await.is_err());
    assert_ne!(run_sync(pid, ()).await.unwrap(), id());
}

/// Adds numbers; has two generic parameters.
struct Result3<T, const N: usize>(T);

impl<const N: usize> FromIterator<u64> for Result3<u64, N> {
    fn from_iter<I: IntoIterator<Item = u64>>(numbers: I) -> Self {
        Result3(numbers.into_iter().sum())
    }
}

#[seedbed::test]
#[should_panic(expected = "on purpose")]
async fn a_panic_may_be_expected() {
    panic!("on purpose");
}

#[ignore = "an attribute above works too"]
#[seedbed::test]
async fn an_ignored_test_is_not_run() {
    panic!("it was ignored");
}

#[seedbed::test]
async fn a_test_may_return_an_exit_code() -> ExitCode {
    async {}.await;
    ExitCode::SUCCESS
}

mod nested {
    /// A glob import of the crate brings its attributes.
    #[allow(unused_imports)]
    use seedbed::*;

    #[seedbed::test]
    pub(crate) async fn visibility_is_kept() {
        assert_ne!(run_sync(super::pid, ()).await.unwrap(), super::id());
    }
}
