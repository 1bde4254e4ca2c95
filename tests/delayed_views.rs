//! Views of blocks of jobs: graphs as text, progress, traces. And several roots of a run.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::log::Log;
use common::{poll_with_yields, test};
use futures_lite::StreamExt;
use seedbed::delayed::{
    Cores, Delayed, Jobs, Progress, Resources, Setup, Statistics, ZERO, delayed_val, each, open,
    run_all,
};
use seedbed::sync::Event;
use seedbed::testing::MockClock;
use seedbed::{RunBuilder, checkpoint};
use serde_json::Value;
use tracing::Level;

fn cores(count: usize) -> Resources {
    Resources::none().cores(0..count)
}

/// The nodes of a graph in Graphviz's language, with their attributes, and its arrows.
struct Dot {
    nodes: BTreeMap<String, String>,
    arrows: Vec<(String, String)>,
}

/// Reads what `to_dot` writes, and fails for anything else.
fn parse(text: &str) -> Dot {
    let lines: Vec<&str> = text.lines().collect();
    let [first, inside @ .., last] = &lines[..] else {
        panic!("{text}")
    };
    assert_eq!((*first, *last), ("digraph delayed {", "}"), "{text}");
    let mut dot = Dot {
        nodes: BTreeMap::new(),
        arrows: Vec::new(),
    };
    for line in inside {
        let line = line.trim().strip_suffix(';').expect(text);
        if let Some((from, to)) = line.split_once(" -> ") {
            dot.arrows.push((from.into(), to.into()));
        } else {
            let (name, attributes) = line.split_once(" [").expect(text);
            let attributes = attributes.strip_suffix(']').expect(text);
            assert!(attributes.starts_with("label=\""), "{text}");
            let former = dot.nodes.insert(name.into(), attributes.into());
            assert!(former.is_none(), "{text}");
        }
    }
    let known = |name: &String| dot.nodes.contains_key(name);
    assert!(dot.arrows.iter().all(|(from, to)| known(from) && known(to)));
    dot
}

impl Dot {
    /// Returns the only node whose attributes contain this.
    fn node(&self, text: &str) -> &str {
        let mut found = self.nodes.iter().filter(|(_, node)| node.contains(text));
        let (name, _) = found
            .next()
            .unwrap_or_else(|| panic!("{text}: {:?}", self.nodes));
        assert!(found.next().is_none(), "{text}: {:?}", self.nodes);
        name
    }

    fn has_arrow(&self, from: &str, to: &str) -> bool {
        let arrow = (self.node(from).to_owned(), self.node(to).to_owned());
        self.arrows.contains(&arrow)
    }
}

#[test]
fn a_graph_is_written_with_its_jobs_operators_and_arrows() {
    test(open(cores(1), async |jobs| {
        let (go, one) = (Arc::new(Event::new()), jobs.on(ZERO));
        let goes = go.clone();
        let number = one.spawn(async move {
            goes.wait().await;
            -4
        });
        let absolute = jobs.then(number, i32::abs);
        let square = &absolute * &absolute;
        let list: Delayed<Vec<i32>> = [square.clone(), square - 1].into_iter().collect();
        let first = list.index(0).map(|first| first + 1);

        let dot = parse(&first.to_dot());
        assert_eq!(dot.nodes.len(), 7);
        assert_eq!(dot.arrows.len(), 8);
        assert!(dot.node("\"map\"") == "n0");
        assert!(dot.has_arrow("\"index\"", "\"map\""));
        assert!(dot.has_arrow("abs\", shape=box", "\"mul\""));
        assert!(dot.has_arrow("\"mul\"", "\"sub\""));
        let boxes = dot.nodes.values().filter(|node| node.contains("shape=box"));
        assert_eq!(boxes.count(), 2);
        assert!(!dot.nodes.values().any(|node| node.contains("filled")));

        go.set();
        assert_eq!((&first).await.unwrap(), 17);
        let done = parse(&first.to_dot());
        assert_eq!((done.nodes.len(), done.arrows.len()), (1, 0));
        assert!(done.nodes["n0"].ends_with("style=filled"));
    }));
}

#[test]
fn a_long_chain_is_written_without_recursion_and_a_failed_node_is_red() {
    let mut sum = delayed_val(0u64);
    for _ in 0..200_000 {
        sum += 1;
    }
    assert_eq!(sum.to_dot().lines().count(), 2 + 200_001 + 200_000);
    let failed = delayed_val(1u32) / 0;
    smol::block_on(failed.shared()).unwrap_err();
    assert!(parse(&failed.to_dot()).nodes["n0"].contains("color=red"));
    let chosen = Delayed::choose(delayed_val(true), delayed_val(1), delayed_val(2));
    let all = each((chosen, delayed_val("a")));
    let dot = parse(&all.to_dot());
    assert!(dot.has_arrow("\"choose\"", "\"each\""));
}

#[test]
fn a_chain_of_jobs_that_wait_for_their_arguments_is_dropped_without_recursion() {
    test(async {
        let last = Mutex::new(None);
        let block = open(cores(1), async |jobs| {
            let mut value = jobs.spawn(std::future::pending::<i32>());
            for _ in 0..50_000 {
                value = jobs.then(value, i32::abs);
            }
            *last.lock().unwrap() = Some(value);
            std::future::pending::<()>().await;
        });
        assert!(!poll_with_yields(block, 2).await);
        let last = last.into_inner().unwrap().unwrap();
        assert!(last.is_done());
        drop(last);
    });
}

/// Returns the counts of an item.
fn counts(now: &Statistics) -> [usize; 6] {
    [
        now.submitted,
        now.queued,
        now.running,
        now.succeeded,
        now.failed,
        now.cancelled,
    ]
}

#[test]
fn progress_shows_each_state_once_and_ends_with_the_block() {
    test(async {
        let kept: Mutex<Option<Progress>> = Mutex::new(None);
        open(cores(1), async |jobs| {
            let one = jobs.on(Cores(1));
            let mut progress = jobs.progress();
            *kept.lock().unwrap() = Some(jobs.progress());
            let mut next = async || counts(&progress.next().await.unwrap());
            assert_eq!(next().await, [0; 6]);
            let go = Arc::new(Event::new());
            let waits = go.clone();
            let first = one.spawn(async move { waits.wait().await });
            let second = one.spawn(async {});
            assert_eq!(next().await, [2, 1, 1, 0, 0, 0]);
            assert!(!poll_with_yields(next(), 3).await);
            go.set();
            first.await.unwrap();
            second.await.unwrap();
            assert_eq!(next().await, [2, 0, 0, 2, 0, 0]);
            let failing = jobs.spawn(async { Err::<(), _>(std::fmt::Error) });
            let failing = jobs.then(failing.flatten().map(|()| 1), i32::abs);
            failing.await.unwrap_err();
            assert_eq!(next().await, [4, 0, 0, 3, 1, 0]);
            let inner = jobs.open(async |jobs| {
                drop(jobs.spawn(std::future::pending::<()>()));
                std::future::pending::<()>().await;
            });
            assert!(!poll_with_yields(inner, 2).await);
            assert_eq!(next().await, [5, 0, 0, 3, 1, 1]);
        })
        .await;
        let mut kept = kept.into_inner().unwrap().unwrap();
        assert_eq!(counts(&kept.next().await.unwrap()), [5, 0, 0, 3, 1, 1]);
        assert!(kept.next().await.is_none());
        assert!(kept.next().await.is_none());
    });
}

#[test]
fn progress_of_another_task_does_not_keep_a_block_open() {
    test(seedbed::open_nursery(async |n| {
        let (sender, receiver) = smol::channel::bounded::<Progress>(1);
        let watching = n.spawn(async move {
            let mut progress = receiver.recv().await.unwrap();
            let mut last = 0;
            while let Some(now) = progress.next().await {
                last = now.succeeded;
            }
            last
        });
        open(cores(1), async |jobs| {
            sender.send(jobs.progress()).await.unwrap();
            let values = (0..5).map(|number| jobs.spawn(async move { number }));
            let total: Delayed<u32> = values.sum();
            total.await.unwrap();
        })
        .await;
        assert_eq!(watching.await, 5);
    }));
}

/// Runs a block that writes a trace, and returns its events. The clock advances only in sleeps.
fn traced(body: impl AsyncFnOnce(Jobs<'_>) + Send) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    let to = path.clone();
    let run = RunBuilder::new().clock(MockClock::autojump());
    run.run(async move {
        open(
            Setup::from(cores(2)).name("traced"),
            async |jobs: Jobs<'_>| {
                jobs.trace_to(to).unwrap();
                body(jobs).await;
            },
        )
        .await;
    });
    let text = std::fs::read_to_string(path).unwrap();
    let trace: Value = serde_json::from_str(&text).unwrap();
    trace.as_array().unwrap().clone()
}

fn of_phase<'a>(events: &'a [Value], phase: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["ph"] == phase).collect()
}

#[test]
fn a_trace_has_a_row_for_each_core_a_slice_for_each_job_and_arrows_for_arguments() {
    let seconds = Duration::from_secs;
    let events = traced(async |jobs| {
        let both = jobs.on(Cores(2)).spawn(async move {
            seedbed::sleep(seconds(2)).await;
            -3
        });
        let one = jobs.on(Cores(1)).spawn(async move {
            seedbed::sleep(seconds(1)).await;
            -4
        });
        let free = jobs.spawn(seedbed::sleep(seconds(1)));
        let sum = both + one;
        let absolute = jobs.then(sum, i32::abs);
        assert_eq!(absolute.await.unwrap(), 7);
        free.await.unwrap();
    });
    let names = of_phase(&events, "M");
    let rows: BTreeMap<u64, &str> = names
        .iter()
        .filter(|event| event["name"] == "thread_name")
        .map(|event| {
            let name = event["args"]["name"].as_str().unwrap();
            (event["tid"].as_u64().unwrap(), name)
        })
        .collect();
    assert_eq!(
        rows.values().copied().collect::<Vec<_>>(),
        ["core 0", "core 1", "no core"]
    );
    assert!(names.iter().any(|event| event["args"]["name"] == "traced"));
    let slices: Vec<(&str, f64, f64)> = of_phase(&events, "X")
        .iter()
        .map(|event| {
            let number = |key: &str| event[key].as_f64().unwrap();
            (
                rows[&event["tid"].as_u64().unwrap()],
                number("ts"),
                number("dur"),
            )
        })
        .collect();
    // The call is of a worker, for which the clock of the run stands still.
    let second = 1e6;
    let expected = [
        ("no core", 0.0, second),
        ("core 0", 0.0, 2.0 * second),
        ("core 1", 0.0, 2.0 * second),
        ("core 0", 2.0 * second, second),
        ("core 0", 3.0 * second, 0.0),
    ];
    assert_eq!(slices, expected);
    let (from, to) = (of_phase(&events, "s"), of_phase(&events, "f"));
    assert_eq!((from.len(), to.len()), (2, 2));
    for (from, to) in from.iter().zip(to) {
        assert_eq!(from["id"], to["id"]);
        assert_eq!(to["ts"].as_f64().unwrap(), 3.0 * second);
        assert_eq!(to["bp"], "e");
    }
    let ends: BTreeSet<u64> = from
        .iter()
        .map(|event| event["ts"].as_f64().unwrap().ceil() as u64)
        .collect();
    assert_eq!(ends, BTreeSet::from([2_000_000, 3_000_000]));
}

#[test]
fn an_arrow_leads_to_a_job_from_each_direct_input_and_from_no_other() {
    let events = traced(async |jobs| {
        let first = jobs.spawn(async {
            seedbed::sleep(Duration::from_secs(1)).await;
            -3
        });
        let second = jobs.then(first, i32::abs);
        let third = jobs.then(second, i32::signum);
        let fourth = jobs.then(third, i32::count_ones);
        assert_eq!(fourth.await.unwrap(), 1);
    });
    assert_eq!(of_phase(&events, "X").len(), 4);
    let arrows = (of_phase(&events, "s").len(), of_phase(&events, "f").len());
    assert_eq!(arrows, (3, 3));
}

/// Returns the arrows of a trace, with their names and the seconds at which they begin and end.
fn arrows(events: &[Value]) -> Vec<(&str, u64, u64)> {
    let ends: BTreeMap<u64, &Value> = of_phase(events, "f")
        .into_iter()
        .map(|event| (event["id"].as_u64().unwrap(), event))
        .collect();
    let at = |event: &Value| (event["ts"].as_f64().unwrap() / 1e6).ceil() as u64;
    let mut arrows: Vec<_> = of_phase(events, "s")
        .into_iter()
        .map(|from| {
            let to = ends[&from["id"].as_u64().unwrap()];
            assert_eq!(from["name"], to["name"]);
            (from["name"].as_str().unwrap(), at(from), at(to))
        })
        .collect();
    assert_eq!(arrows.len(), ends.len());
    arrows.sort_unstable();
    arrows
}

/// Returns a value that is there after some seconds.
fn after(jobs: &Jobs<'_>, seconds: u64) -> Delayed<u64> {
    jobs.spawn(async move {
        seedbed::sleep(Duration::from_secs(seconds)).await;
        seconds
    })
}

#[test]
fn arrows_lead_to_a_future_from_all_jobs_whose_results_it_receives() {
    let events = traced(async |jobs| {
        let [one, two, three, four, five] = [1, 2, 3, 4, 5].map(|seconds| after(&jobs, seconds));
        let sum = each(vec![one, &two * 2 - 1]).map(|values| values.into_iter().sum::<u64>());
        let again = sum.clone();
        let chosen = Delayed::choose(three.gt(1), four, five.clone());
        let future = jobs.spawn(async move {
            assert_eq!(sum.clone().await.unwrap(), 4);
            assert_eq!(*sum.shared().await.unwrap(), 4); // no second arrow
            assert_eq!(chosen.await.unwrap(), 4);
        });
        // The sum was computed for the other future.
        let later = jobs.spawn(async move {
            assert_eq!(five.await.unwrap(), 5);
            seedbed::sleep(Duration::from_secs(1)).await;
            assert_eq!(again.await.unwrap(), 4);
        });
        each((future, later)).await.unwrap();
        // The body of the block is no job.
        assert_eq!(two.await.unwrap(), 2);
    });
    let expected = [
        ("result", 1, 2),
        ("result", 1, 6),
        ("result", 2, 2),
        ("result", 2, 6),
        ("result", 3, 4),
        ("result", 4, 4),
        ("result", 5, 5),
    ];
    assert_eq!(arrows(&events), expected);
}

#[test]
fn an_arrow_leads_from_a_job_that_had_not_ended_when_the_error_of_another_one_was_received() {
    let events = traced(async |jobs| {
        let failing = after(&jobs.time_limit(Duration::from_secs(1)), 3);
        let two = after(&jobs, 2);
        let future = jobs.spawn(async move {
            each((failing, two.clone())).await.unwrap_err();
            assert_eq!(two.await.unwrap(), 2);
        });
        future.await.unwrap();
    });
    let expected = [("result", 1, 1), ("result", 2, 2)];
    assert_eq!(arrows(&events), expected);
}

#[test]
fn arrows_lead_to_a_job_from_the_future_that_submits_it_and_from_a_computed_argument() {
    let events = traced(async |jobs| {
        let (inner, one) = (jobs.clone(), after(&jobs, 1));
        let future = jobs.spawn(async move {
            seedbed::sleep(Duration::from_secs(2)).await;
            let seconds = (&one + 0).await.unwrap();
            let block = inner.open(async |inner| after(&inner, seconds).await.unwrap());
            block.await
        });
        let value = (&future + 1).map(|value| value as i32);
        assert_eq!((&value).await.unwrap(), 2); // lets go of its operands
        assert_eq!(jobs.then(value, i32::abs).await.unwrap(), 2);
        let error = (&future - 5).map(|value| value as i32);
        jobs.then(error, i32::abs).await.unwrap_err();
    });
    let expected = [
        ("result", 1, 2),
        ("result", 3, 3),
        ("result", 3, 3),
        ("submitted", 2, 2),
    ];
    assert_eq!(arrows(&events), expected);
}

#[test]
fn a_second_trace_is_refused_and_touches_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let (first, other) = (folder.path().join("first"), folder.path().join("other"));
    std::fs::write(&other, "kept").unwrap();
    test(open(cores(1), async |jobs| {
        jobs.trace_to(&first).unwrap();
        // So many that a part of the trace is in the file.
        for number in 0..200 {
            jobs.spawn(async move { number }).await.unwrap();
        }
        assert_ne!(std::fs::metadata(&first).unwrap().len(), 0);
        for path in [&first, &other, &folder.path().join("new")] {
            let error = jobs.trace_to(path).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
        }
    }));
    let trace: Value = serde_json::from_slice(&std::fs::read(&first).unwrap()).unwrap();
    assert_eq!(of_phase(trace.as_array().unwrap(), "X").len(), 200);
    assert_eq!(std::fs::read(&other).unwrap(), b"kept");
    assert!(!folder.path().join("new").exists());
}

#[test]
fn a_cancelled_job_ends_its_slice_and_jobs_of_parts_share_no_row() {
    let second = Duration::from_secs(1);
    let events = traced(async move |jobs| {
        let inner = jobs.open(async |jobs| {
            let half = jobs.on(Cores::share(0.5));
            drop(half.spawn(std::future::pending::<()>()));
            drop(half.spawn(std::future::pending::<()>()));
            std::future::pending::<()>().await;
        });
        seedbed::move_on_after(second, inner).await;
    });
    let slices = of_phase(&events, "X");
    assert!(slices.iter().all(|slice| slice["dur"] == 1e6));
    let rows: BTreeSet<u64> = slices
        .iter()
        .map(|slice| slice["tid"].as_u64().unwrap())
        .collect();
    assert_eq!((slices.len(), rows.len()), (2, 2));
}

#[test]
fn a_trace_that_cannot_be_written_is_an_error_and_the_block_goes_on() {
    let log = Log::new("seedbed::delayed", Level::WARN);
    tracing::subscriber::with_default(log.clone(), || {
        test(open(cores(1), async |jobs| {
            let missing = PathBuf::from("/no/such/folder/trace.json");
            let error = jobs.trace_to(&missing).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
            let text = error.to_string();
            assert!(text.contains("/no/such/folder/trace.json"), "{text}");

            jobs.trace_to("/dev/full").unwrap();
            let twice = jobs.trace_to("/dev/null").unwrap_err();
            assert_eq!(twice.kind(), std::io::ErrorKind::AlreadyExists);
            assert_eq!(jobs.on(Cores(1)).spawn(async { 3 }).await.unwrap(), 3);
        }));
    });
    let log = log.lines().concat();
    assert!(
        log.contains("trace of a block of jobs could not be written"),
        "{log}"
    );
    assert!(log.contains("No space left"), "{log}");
}

#[test]
fn several_roots_run_side_by_side_in_one_block() {
    let met = Arc::new(Event::new());
    let (sets, waits) = (met.clone(), met);
    let first = async move |jobs: Jobs<'_>| {
        waits.wait().await;
        jobs.on(Cores(1)).spawn(async { 1 }).await.unwrap()
    };
    let second = async move |jobs: Jobs<'_>| {
        sets.set();
        jobs.statistics().resources[0].total.to_string()
    };
    let (one, total) = run_all(cores(1), (first, second)).unwrap();
    assert_eq!((one, total.as_str()), (1, "1"));

    async fn count(jobs: Jobs<'_>) -> usize {
        jobs.spawn(async {}).await.unwrap();
        checkpoint().await;
        jobs.statistics().submitted
    }
    assert_eq!(run_all(cores(1), [count, count]).unwrap(), [2, 2]);
    assert_eq!(run_all(cores(1), vec![count; 3]).unwrap(), [3, 3, 3]);
}

#[test]
fn a_panic_of_a_root_cancels_the_others_and_a_faulty_setup_runs_none() {
    let never = async |_: Jobs<'_>| std::future::pending::<()>().await;
    let panics = async |_: Jobs<'_>| -> u8 { panic!("on purpose") };
    let run = || run_all(cores(1), (never, panics));
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
    let error = run_all(Setup::from_file("/no/such/file.toml"), (never, panics)).unwrap_err();
    assert!(error.to_string().contains("/no/such/file.toml"), "{error}");
}
