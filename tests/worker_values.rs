//! Values arrive in jobs and come back as they were sent, or the call fails.

mod common;

use std::collections::BTreeMap;
use std::sync::Mutex;

use common::{test, with_workers};
use seedbed::WorkerConfig;
use seedbed::worker::{Described, WorkerErrorKind};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Verdict {
    Unknown,
    #[serde(skip)]
    Cached,
    #[serde(alias = "Yes")]
    Accept,
    Reject {
        reasons: Vec<String>,
    },
}

fn all_verdicts(_: ()) -> Vec<Verdict> {
    let reasons = vec!["so".to_owned()];
    vec![
        Verdict::Reject { reasons },
        Verdict::Accept,
        Verdict::Unknown,
    ]
}

/// `Accept` once arrived as `Reject`.
#[test]
fn variants_after_a_skipped_one_arrive_as_they_were_sent() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let echo = |verdicts: Vec<Verdict>| verdicts == all_verdicts(());
        assert!(workers.run_sync(echo, all_verdicts(())).await.unwrap());
        let back = workers.run_sync(all_verdicts, ()).await;
        assert_eq!(back.unwrap(), all_verdicts(()));
        let error = workers
            .run_sync(|()| Verdict::Cached, ())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::EncodeResult);
    }));
}

static INITIAL: Mutex<Option<Verdict>> = Mutex::new(None);

#[test]
fn data_of_closures_arrives_as_it_was_sent() {
    let config = WorkerConfig::new()
        .init_with(Verdict::Accept, |verdict: &Verdict| {
            *INITIAL.lock().unwrap() = Some(verdict.clone());
        })
        .retire_with(Verdict::Accept, |verdict: &Verdict, _| {
            *verdict != Verdict::Accept
        });
    test(with_workers(config, |workers| async move {
        for _ in 0..2 {
            let initial = workers
                .run_sync(|()| INITIAL.lock().unwrap().clone(), ())
                .await;
            assert_eq!(initial.unwrap(), Some(Verdict::Accept));
        }
    }));
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct OneEach {
    #[serde(skip_serializing)]
    kept: u8,
    #[serde(skip_deserializing)]
    sent: u8,
}

/// The value of one field once arrived in the other.
#[test]
fn types_whose_directions_disagree_are_errors_of_their_own_kind() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let error = workers.run_sync(|_: OneEach| (), OneEach::default()).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::DecodeArgument, "{error}");
        let error = workers
            .run_sync(|()| OneEach::default(), ())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::DecodeResult, "{error}");
        assert!(error.to_string().contains("skip_serializing"), "{error}");
    }));
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Event {
    Started,
    Ended {
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<i32>,
        #[serde(flatten)]
        rest: BTreeMap<String, serde_json::Value>,
    },
}

#[test]
fn a_type_that_needs_a_self_describing_format_fails_with_the_name_of_its_wrapper() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let error = workers.run_sync(|event: Event| event, Event::Started).await;
        let text = error.unwrap_err().to_string();
        assert!(text.contains("Described"), "{text}");
        let rest = [("a".to_owned(), serde_json::json!({"b": [1, null]}))];
        for event in [
            Event::Started,
            Event::Ended {
                code: None,
                rest: rest.into(),
            },
        ] {
            let sent = Described(vec![event]);
            let back = workers.run_sync(|events: Described<Vec<Event>>| events, sent.clone());
            assert_eq!(back.await.unwrap(), sent);
        }
    }));
}

#[derive(Serialize, Deserialize)]
struct Nest(Option<Box<Nest>>);

fn nest(depth: u32) -> Nest {
    (0..depth).fold(Nest(None), |inner, _| Nest(Some(Box::new(inner))))
}

fn length(mut nest: &Nest) -> u32 {
    let mut length = 0;
    while let Some(inner) = &nest.0 {
        nest = inner;
        length += 1;
    }
    length
}

fn measure(nest: Nest) -> u32 {
    let measured = length(&nest);
    std::mem::forget(nest);
    measured
}

fn on_stack<R: Send + 'static>(bytes: usize, f: impl FnOnce() -> R + Send + 'static) -> R {
    let thread = std::thread::Builder::new().stack_size(bytes);
    thread.spawn(f).unwrap().join().unwrap()
}

/// A deep result once overflowed the stack of the caller, and ended its process.
#[test]
fn a_value_nested_too_deeply_is_an_error_and_ends_neither_process() {
    const DEEP: u32 = 200_000;
    const LARGE_STACK: usize = 1 << 30;
    let small = |stack_size| WorkerConfig::new().stack_size(stack_size);
    let kind_of = |config: WorkerConfig, stack: usize, depth: u32, is_argument: bool| {
        on_stack(stack, move || {
            smol::block_on(with_workers(config, |workers| async move {
                let pid = workers.run_sync(common::pid, ()).await.unwrap();
                let kind = if is_argument {
                    let outcome = workers.run_sync(measure, nest(depth)).await;
                    outcome
                        .map(|length| assert_eq!(length, depth))
                        .map_err(|error| error.kind())
                } else {
                    let outcome = workers.run_sync(nest, depth).await;
                    outcome
                        .map(|nest| assert_eq!(measure(nest), depth))
                        .map_err(|error| error.kind())
                };
                let same = workers.run_sync(common::pid, ()).await.unwrap();
                assert_eq!(pid, same, "the worker is healthy");
                kind
            }))
        })
    };
    test(async move {
        use WorkerErrorKind::{DecodeArgument, DecodeResult, EncodeArgument, EncodeResult};
        let large = || small(LARGE_STACK);
        assert_eq!(kind_of(large(), 2 << 20, DEEP, false), Err(DecodeResult));
        assert_eq!(kind_of(large(), 2 << 20, DEEP, true), Err(EncodeArgument));
        assert_eq!(
            kind_of(small(2 << 20), LARGE_STACK, DEEP, true),
            Err(DecodeArgument)
        );
        assert_eq!(
            kind_of(small(2 << 20), LARGE_STACK, DEEP, false),
            Err(EncodeResult)
        );
        assert_eq!(kind_of(large(), LARGE_STACK, DEEP, true), Ok(()));
        assert_eq!(kind_of(large(), LARGE_STACK, DEEP, false), Ok(()));
        assert_eq!(kind_of(small(2 << 20), 2 << 20, 100, true), Ok(()));
    });
}
