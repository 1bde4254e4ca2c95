//! Expressions over values that the test settles, polled by hand.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::awaiter::JobId;
use super::promise::{Promise, pending};
use super::sources::KeepSources;
use super::{Delayed, delayed_val, each};
use crate::delayed::error::{JobError, JobErrorKind};

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls a value whose leaves are settled to its end.
fn value<T: Clone>(value: Delayed<T>) -> Result<T, JobError> {
    let mut future = value.into_future();
    loop {
        if let Poll::Ready(result) = poll(&mut future) {
            return result;
        }
    }
}

fn leaf() -> (Promise<f64>, Delayed<f64>) {
    pending("leaf")
}

fn failure() -> JobError {
    JobError::failed(std::fmt::Error)
}

/// Returns the jobs that a value comes from, as far as they are known.
fn jobs_of<T>(value: &Delayed<T>) -> Vec<JobId> {
    let sources = value.0.sources();
    sources.map_or(Vec::new(), |sources| sources.jobs())
}

#[test]
fn a_computed_value_keeps_which_jobs_it_comes_from_while_there_is_a_trace() {
    let kept = KeepSources::begin();
    let (leaves, values): (Vec<_>, Vec<_>) = (0..4).map(|_| leaf()).unzip();
    let jobs: Vec<JobId> = leaves.iter().map(Promise::job).collect();
    let first = (&values[0] + 1.0) * &values[1] - &values[0];
    let chosen = Delayed::choose(
        values[2].gt(first.clone()),
        values[3].clone(),
        values[0].clone(),
    );
    for (leaf, number) in leaves.into_iter().zip([1.0, 2.0, 0.0, 9.0]) {
        leaf.settle(Ok(number));
    }
    assert_eq!(jobs_of(&first), []);
    assert_eq!(value(first.clone()).unwrap(), 3.0);
    assert_eq!(jobs_of(&first), jobs[..2]);
    // The computed value is an operand now.
    let again = each(vec![first.clone(), first.map(f64::sqrt)]);
    assert_eq!(value(again.clone()).unwrap().len(), 2);
    assert_eq!(jobs_of(&again), jobs[..2]);
    assert_eq!(value(chosen.clone()).unwrap(), 1.0);
    assert_eq!(jobs_of(&chosen), jobs[..3]);
    drop(kept);
}

#[test]
fn a_failed_value_keeps_which_jobs_it_comes_from_and_a_long_chain_is_dropped() {
    let kept = KeepSources::begin();
    let ((one, first), (two, second)) = (leaf(), leaf());
    let jobs = vec![one.job(), two.job()];
    let sum = &first + &second;
    one.settle(Err(failure()));
    value(sum.clone()).unwrap_err();
    assert_eq!(jobs_of(&sum), jobs);
    let ((three, mut chain), (four, other)) = (leaf(), leaf());
    let jobs = vec![three.job(), four.job()];
    three.settle(Ok(0.0));
    four.settle(Ok(1.0));
    for _ in 0..200_000 {
        chain += &other;
    }
    assert_eq!(value(chain.clone()).unwrap(), 200_000.0);
    assert_eq!(jobs_of(&chain), jobs);
    drop((chain, kept, two));
}

#[test]
fn every_operator_computes_what_it_computes_of_plain_values() {
    let (a, b) = (delayed_val(13u32), delayed_val(6u32));
    let all = vec![
        (&a + &b, 19),
        (&a - 3, 10),
        (2 * &b, 12),
        (&a / &b, 2),
        (&a % &b, 1),
        (&a & &b, 4),
        (a.clone() | &b, 15),
        (&a ^ b.clone(), 11),
        (&b << 2u32, 24),
        (64 >> &b, 1),
        (!&b, !6),
        ([&a, &b].into_iter().sum(), 19),
        (vec![a.clone(), b.clone()].into_iter().product(), 78),
        (Vec::<Delayed<u32>>::new().into_iter().product(), 1),
    ];
    for (at, (computed, expected)) in all.into_iter().enumerate() {
        assert_eq!(value(computed).unwrap(), expected, "operator {at}");
    }
    assert_eq!(value(-delayed_val(1.5)).unwrap(), -1.5);
    assert!(value(delayed_val(true) & !delayed_val(false)).unwrap());
}

#[test]
fn assigning_operators_change_one_handle_only() {
    let mut a = delayed_val(1);
    let before = a.clone();
    a += 2;
    a *= delayed_val(5);
    a -= &before;
    assert_eq!(value(a).unwrap(), 14);
    assert_eq!(value(before).unwrap(), 1);
}

#[test]
fn operands_may_have_other_types_than_the_result() {
    let time = std::time::Instant::now();
    let hour = std::time::Duration::from_secs(3600);
    let later = delayed_val(time) + delayed_val(hour);
    assert_eq!(value(&later - delayed_val(time)).unwrap(), hour);
    assert_eq!(value(delayed_val(hour) * 2u32).unwrap(), 2 * hour);
}

/// A value that counts its clones.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

#[test]
fn a_value_moves_out_of_its_last_handle_and_is_cloned_out_of_others() {
    let clones = Arc::new(AtomicUsize::new(0));
    let (promise, delayed) = pending("leaf");
    let mapped = delayed.map(|value: Counted| value).map(|value| value);
    let mut future = mapped.into_future();
    assert!(poll(&mut future).is_pending());
    promise.settle(Ok(Counted(clones.clone())));
    assert!(poll(&mut future).is_ready());
    assert_eq!(clones.load(Ordering::Relaxed), 0);
    let shared = delayed_val(Counted(clones.clone()));
    value(shared.clone()).unwrap();
    assert_eq!(clones.load(Ordering::Relaxed), 1);
    value(shared).unwrap();
    assert_eq!(clones.load(Ordering::Relaxed), 1);
}

#[test]
fn a_value_that_several_values_need_is_computed_once() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let once = delayed_val(1).map(move |value| {
        counted.fetch_add(1, Ordering::Relaxed);
        value
    });
    assert_eq!(value(&once + &once).unwrap(), 2);
    assert_eq!(value(&once * 3).unwrap(), 3);
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

#[test]
fn a_value_waits_for_all_leaves_and_is_woken_once() {
    let (leaves, values): (Vec<_>, Vec<_>) = (0..3).map(|_| leaf()).unzip();
    let total: Delayed<f64> = values.iter().sum::<Delayed<f64>>() + &values[0];
    let mut future = total.into_future();
    let count = Arc::new(Count::default());
    let waker = count.clone().into();
    let mut cx = Context::from_waker(&waker);
    assert!(Pin::new(&mut future).poll(&mut cx).is_pending());
    let mut leaves = leaves.into_iter();
    for leaf in leaves.by_ref().take(2) {
        leaf.settle(Ok(1.0));
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
    }
    leaves.next().unwrap().settle(Ok(2.0));
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    let Poll::Ready(result) = Pin::new(&mut future).poll(&mut cx) else {
        panic!("all leaves have values")
    };
    assert_eq!(result.unwrap(), 5.0);
}

#[test]
fn a_failure_ends_the_wait_for_others() {
    let (slow, failing) = (leaf(), leaf());
    let sum = slow.1.map(|value| value + 1.0) + &failing.1 * 2.0;
    let mut future = (&sum).into_future();
    assert!(poll(&mut future).is_pending());
    failing.0.settle(Err(failure()));
    let Poll::Ready(Err(error)) = poll(&mut future) else {
        panic!("an operand has failed")
    };
    assert_eq!(error.kind(), JobErrorKind::Failed);
    assert!(sum.is_done());
    drop(slow.0);
}

#[test]
fn a_failure_before_the_wait_needs_no_wait() {
    let (slow, failing) = (leaf(), leaf());
    failing.0.settle(Err(failure()));
    let mut future = (slow.1.map(|value| value + 1.0) + failing.1).into_future();
    assert!(poll(&mut future).is_ready());
}

#[test]
fn a_promise_that_is_dropped_cancels_its_value() {
    let (promise, delayed) = leaf();
    let mut future = (delayed + 1.0).into_future();
    assert!(poll(&mut future).is_pending());
    drop(promise);
    let Poll::Ready(Err(error)) = poll(&mut future) else {
        panic!("the leaf is cancelled")
    };
    assert_eq!(error.kind(), JobErrorKind::Cancelled);
    assert_eq!(error.job(), Some("leaf"));
}

#[test]
fn a_panic_is_the_error_of_the_value_and_of_what_needs_it() {
    let panicking = delayed_val(1).map(|value: i32| -> i32 { panic!("no {value}") });
    let error = value(&panicking + 1).unwrap_err();
    assert_eq!(error.kind(), JobErrorKind::Panicked);
    assert!(error.to_string().ends_with("no 1"), "{error}");
    assert!(value(panicking).is_err());
}

#[test]
fn the_value_that_was_not_chosen_does_not_count() {
    let (never, unsettled) = leaf();
    let (promise, condition) = pending("condition");
    let chosen = Delayed::choose(condition, delayed_val(1.0f64) + 1.0, unsettled);
    let mut future = chosen.into_future();
    assert!(poll(&mut future).is_pending());
    promise.settle(Ok(true));
    assert!(matches!(poll(&mut future), Poll::Ready(Ok(2.0))));
    let failing = delayed_val(vec![1.0]).index(1);
    let chosen = Delayed::choose(delayed_val(false), failing, delayed_val(3.0));
    assert_eq!(value(chosen).unwrap(), 3.0);
    drop(never);
}

#[test]
fn the_chosen_value_is_waited_for() {
    let (promise, delayed) = leaf();
    let chosen = Delayed::choose(delayed_val(1).lt(2), delayed * 2.0, delayed_val(0.0));
    let mut future = chosen.into_future();
    assert!(poll(&mut future).is_pending());
    promise.settle(Ok(4.0));
    assert!(matches!(poll(&mut future), Poll::Ready(Ok(8.0))));
}

/// More than any stack would hold.
const LONG: usize = 1_000_000;

fn chain(mut value: Delayed<f64>) -> Delayed<f64> {
    for _ in 0..LONG {
        value += 1.0;
    }
    value
}

#[test]
fn a_long_chain_is_computed_without_recursion() {
    assert_eq!(value(chain(delayed_val(0.0))).unwrap(), LONG as f64);
    let (promise, delayed) = leaf();
    let mut future = chain(delayed).into_future();
    while !promise_is_watched(&mut future) {}
    promise.settle(Ok(1.0));
    loop {
        if let Poll::Ready(result) = poll(&mut future) {
            break assert_eq!(result.unwrap(), LONG as f64 + 1.0);
        }
    }
}

/// Polls until a poll does not wake the task, which then waits for the leaf.
fn promise_is_watched<F: Future + Unpin>(future: &mut F) -> bool {
    let count = Arc::new(Count::default());
    let waker = count.clone().into();
    assert!(
        Pin::new(future)
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    count.0.load(Ordering::Relaxed) == 0
}

#[test]
fn a_long_chain_is_dropped_without_recursion() {
    drop(chain(delayed_val(0.0)));
    let (promise, delayed) = leaf();
    let long = chain(delayed);
    let captured = delayed_val(0.0).map(move |value| {
        drop(long); // a function may own a chain
        value
    });
    drop(captured);
    drop(promise);
}

#[test]
fn a_long_chain_that_was_computed_in_part_is_dropped_without_recursion() {
    let mut future = chain(delayed_val(0.0)).into_future();
    assert!(poll(&mut future).is_pending());
    drop(future);
    let failing = chain(delayed_val(vec![0.0]).index(1));
    assert!(value(failing).is_err());
}

#[test]
fn a_long_chain_does_not_keep_other_tasks_waiting() {
    let mut future = chain(delayed_val(0.0)).into_future();
    let polls = std::iter::repeat_with(|| poll(&mut future));
    assert!(polls.take_while(Poll::is_pending).count() > 100);
}

#[test]
fn a_graph_with_more_paths_than_can_be_walked_is_computed() {
    let (promise, delayed) = leaf();
    let mut total = delayed;
    for _ in 0..60 {
        total = &total + &total;
    }
    let mut future = total.into_future();
    assert!(poll(&mut future).is_pending());
    promise.settle(Ok(1.0));
    assert!(matches!(poll(&mut future), Poll::Ready(Ok(value)) if value == 2f64.powi(60)));
}

#[test]
fn two_tasks_may_compute_the_same_values() {
    let base = chain_of(delayed_val(1u64), 20_000);
    let threads: Vec<_> = (0..4)
        .map(|more| {
            let mine = &base + more;
            std::thread::spawn(move || smol::block_on(mine.into_future()).unwrap())
        })
        .collect();
    for (more, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().unwrap(), 20_001 + more as u64);
    }
}

#[test]
fn a_thread_that_sees_a_result_sees_also_which_jobs_it_comes_from() {
    let _kept = KeepSources::begin();
    let (promise, mut last) = leaf();
    let steps: Vec<_> = (0..20_000)
        .map(|_| {
            last += 1.0;
            last.clone()
        })
        .collect();
    promise.settle(Ok(0.0));
    // Reads each step as soon as the other thread has computed it.
    let reader = std::thread::spawn(move || {
        let is_known = |step: &Delayed<f64>| {
            let mut spins = 0;
            while !step.is_done() {
                spins += 1;
                if spins % 1000 == 0 {
                    std::thread::yield_now(); // there may be one core
                }
            }
            step.0.sources().is_some()
        };
        steps.iter().filter(|step| is_known(step)).count()
    });
    value(last).unwrap();
    assert_eq!(reader.join().unwrap(), 20_000);
}

fn chain_of(mut value: Delayed<u64>, length: usize) -> Delayed<u64> {
    for _ in 0..length {
        value = value.map(|value| value + 1);
    }
    value
}

#[test]
fn an_await_that_is_dropped_changes_nothing() {
    let (promise, delayed) = leaf();
    let sum = delayed + 1.0;
    for _ in 0..1000 {
        let mut future = (&sum).into_future();
        assert!(poll(&mut future).is_pending());
    }
    promise.settle(Ok(1.0));
    assert_eq!(value(sum).unwrap(), 2.0);
}

#[test]
fn a_shared_value_is_not_cloned() {
    let clones = Arc::new(AtomicUsize::new(0));
    let delayed = delayed_val(Counted(clones.clone()));
    let shared = smol::block_on(delayed.shared()).unwrap();
    assert!(Arc::ptr_eq(&shared.clone().0, &clones));
    assert_eq!(clones.load(Ordering::Relaxed), 0);
    let failing = delayed_val(vec![1]).index(1);
    assert!(smol::block_on(failing.shared()).is_err());
}

#[test]
fn many_values_are_one_and_one_is_many() {
    let (promise, delayed) = leaf();
    let list = each(vec![delayed.clone(), delayed_val(2.0)]);
    let mut future = each((
        list.clone(),
        [delayed.clone(), delayed].into_iter().collect(),
    ))
    .into_future();
    assert!(poll(&mut future).is_pending());
    promise.settle(Ok(1.0));
    let Poll::Ready(Ok((list, copies))) = poll(&mut future) else {
        panic!("all values are there")
    };
    assert_eq!((list, copies), (vec![1.0, 2.0], vec![1.0, 1.0]));
    let (a, b, c) = delayed_val((1, "two", 3.0)).unzip();
    assert_eq!(value(each((c, a, b))).unwrap(), (3.0, 1, "two"));
    assert_eq!(
        value(each([delayed_val(1), delayed_val(2)])).unwrap(),
        [1, 2]
    );
}

#[test]
fn an_element_is_set_in_one_handle_only() {
    let mut list = delayed_val(vec![1, 2]);
    let before = list.clone();
    list.set(1, delayed_val(5) * 2);
    assert_eq!(value(list).unwrap(), [1, 10]);
    assert_eq!(value(before.index(1)).unwrap(), 2);
    assert_eq!(value(before.slice(..1)).unwrap(), [1]);
}
