//! The `tracing` output of workers, recorded by a small subscriber.

use std::cell::RefCell;
use std::future::IntoFuture;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use crate::common;
use crate::common::log::Fields;
use crate::common::stage::kill;
use crate::common::{
    endless, name_of, pid, test, until_empty, wait_until_gone, with_workers,
    with_workers_that_stay, worker_type,
};
use seedbed::worker::WorkerType;
use seedbed::{CancelScope, WorkerConfig};
use serde::{Deserialize, Deserializer, Serialize};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_core::span::Current;

/// A span or an event.
#[derive(Clone, Debug)]
struct Told {
    level: Level,
    fields: Fields,
    /// The job of the call in whose span the event was emitted.
    within: Option<String>,
}

impl Told {
    fn message(&self) -> &str {
        self.fields.get("message")
    }
}

/// The recorded output. The whole process has one record, because background work runs on other
/// threads.
#[derive(Default)]
struct Ear {
    spans: Mutex<Vec<(&'static Metadata<'static>, Told)>>,
    events: Mutex<Vec<Told>>,
    deaf: AtomicBool,
    calls: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|error| error.into_inner())
}

thread_local! {
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

struct Listener(&'static Ear);

impl Listener {
    fn within(&self) -> Option<String> {
        let id = ENTERED.with_borrow(|entered| entered.last().copied())?;
        let spans = lock(&self.0.spans);
        Some(spans[id as usize - 1].1.fields.get("job").to_owned())
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "seedbed::worker" && !self.0.deaf.load(SeqCst)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(if self.0.deaf.load(SeqCst) {
            LevelFilter::INFO
        } else {
            LevelFilter::TRACE
        })
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.0.calls.fetch_add(1, SeqCst);
        let fields = Fields::of_span(span);
        let told = Told {
            level: *span.metadata().level(),
            fields,
            within: None,
        };
        let mut spans = lock(&self.0.spans);
        spans.push((span.metadata(), told));
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let mut spans = lock(&self.0.spans);
        values.record(&mut spans[id.into_u64() as usize - 1].1.fields);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let fields = Fields::of_event(event);
        let told = Told {
            level: *event.metadata().level(),
            fields,
            within: self.within(),
        };
        lock(&self.0.events).push(told);
    }

    fn enter(&self, id: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(id.into_u64()));
    }

    fn exit(&self, id: &Id) {
        let left = ENTERED.with_borrow_mut(Vec::pop);
        assert_eq!(left, Some(id.into_u64()));
    }

    fn current_span(&self) -> Current {
        match ENTERED.with_borrow(|entered| entered.last().copied()) {
            None => Current::none(),
            Some(id) => Current::new(Id::from_u64(id), lock(&self.0.spans)[id as usize - 1].0),
        }
    }
}

/// Installs the subscriber, once per process.
fn ear() -> &'static Ear {
    static EAR: OnceLock<&'static Ear> = OnceLock::new();
    EAR.get_or_init(|| {
        let ear: &'static Ear = Box::leak(Box::default());
        tracing::subscriber::set_global_default(Listener(ear)).unwrap();
        ear
    })
}

/// Returns the events of the context with this name.
fn events_of(context: &str) -> Vec<Told> {
    let mut events = lock(&ear().events).clone();
    events.retain(|event| event.fields.get("context") == context);
    events
}

/// Returns the levels and messages of these events, without those of fork servers.
fn story_of(context: &str) -> Vec<String> {
    let events = events_of(context);
    let of_workers = events
        .iter()
        .filter(|event| !event.message().contains("fork server"));
    of_workers
        .map(|event| format!("{} {}", event.level, event.message()))
        .collect()
}

/// Returns the spans of the calls of a job.
fn calls_of(job: &str) -> Vec<Fields> {
    let spans = lock(&ear().spans);
    let calls = spans.iter().filter(|(metadata, told)| {
        metadata.name() == "call" && told.fields.get("job").ends_with(job)
    });
    calls.map(|(_, told)| told.fields.clone()).collect()
}

/// A result that cannot be decoded.
#[derive(Debug, Serialize)]
struct Fragile;

impl<'de> Deserialize<'de> for Fragile {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        tracing::debug!(target: "seedbed::worker", "decoded");
        Err(serde::de::Error::custom("broke on the way"))
    }
}

fn fragile_result(_: ()) -> Fragile {
    Fragile
}

/// The decoding belongs to the call, too.
fn a_result_that_cannot_be_decoded_is_the_outcome_of_its_call() {
    seedbed::init();
    ear();
    test(with_workers(
        WorkerConfig::new().name("fragile"),
        |workers| async move {
            let error = workers.run_sync(fragile_result, ()).await.unwrap_err();
            let call = calls_of("::fragile_result").pop().unwrap();
            assert_eq!(call.get("outcome"), format!("{:?}", error.kind()));
            let events = lock(&ear().events).clone();
            let decoded = events.iter().find(|event| event.message() == "decoded");
            let within = decoded.unwrap().within.as_ref().unwrap();
            assert!(within.ends_with("::fragile_result"), "{within}");
        },
    ));
}

fn a_call_is_a_span_with_its_job_its_worker_and_its_outcome() {
    fn traced(what: u32) -> u32 {
        match what {
            0 => std::process::id(),
            1 => panic!("as asked"),
            _ => loop {
                std::thread::park();
            },
        }
    }
    seedbed::init();
    ear();
    test(with_workers(
        WorkerConfig::new().name("traced"),
        |workers| async move {
            let worker = workers.run_sync(traced, 0).await.unwrap();
            workers.run_sync(traced, 1).await.unwrap_err();
            let scope = CancelScope::new();
            let call = scope.run(workers.run_sync(traced, 2).kill_on_cancel(true));
            let mut call = Box::pin(call);
            assert!(smol::future::poll_once(&mut call).await.is_none());
            let begun = calls_of("::traced").pop().unwrap();
            assert_eq!(
                begun.get("worker.pid"),
                worker.to_string(),
                "while it goes on"
            );
            assert_eq!(begun.get("outcome"), "");
            scope.cancel();
            assert!(call.await.is_none());

            let calls = calls_of("::traced");
            let spans = lock(&ear().spans).clone();
            let levels = spans
                .iter()
                .filter(|(metadata, _)| metadata.name() == "call");
            assert!(
                levels
                    .into_iter()
                    .all(|(_, told)| told.level == Level::DEBUG)
            );
            let outcomes: Vec<&str> = calls.iter().map(|call| call.get("outcome")).collect();
            assert_eq!(outcomes, ["Done", "Panicked", "Cancelled"]);
            let forked = worker_type() == WorkerType::ForkServer;
            for call in &calls {
                assert_eq!(call.get("worker.pid"), worker.to_string());
                assert_eq!(call.get("worker.forked"), forked.to_string());
                assert_eq!(call.get("context"), "traced");
                assert_ne!(call.get("duration"), "");
            }
            let came_up = &events_of("traced")
                .into_iter()
                .find(|event| event.message() == "a worker came up")
                .unwrap();
            assert!(came_up.within.as_ref().unwrap().ends_with("::traced"));
            assert_eq!(came_up.fields.get("pid"), worker.to_string());
            assert_ne!(came_up.fields.get("took"), "");
        },
    ));
}

/// A job that continues in the background may be polled in the span of another task.
fn a_job_of_a_dropped_call_writes_to_no_other_span() {
    fn traced_alone(_: ()) {}
    seedbed::init();
    ear();
    test(with_workers(
        WorkerConfig::new().name("alone"),
        |workers| async move {
            workers.run_sync(traced_alone, ()).await.unwrap();
            let mut call = Box::pin(workers.run_sync(traced_alone, ()).into_future());
            let _ = smol::future::poll_once(&mut call).await; // it may be over by then
            let other = tracing::info_span!(target: "seedbed::worker", "other", worker.pid = tracing::field::Empty);
            other.in_scope(|| drop(call));
            while workers.statistics().running_workers > 0 {
                smol::future::yield_now().await;
            }
            assert_eq!(workers.statistics().jobs_done, 2);
            let spans = lock(&ear().spans);
            let is_other = |span: &&(&Metadata<'_>, Told)| span.0.name() == "other";
            let (_, told) = spans.iter().find(is_other).unwrap();
            assert_eq!(told.fields.get("worker.pid"), "");
        },
    ));
}

fn each_change_of_a_worker_from_start_to_end_is_an_event() {
    const UP: &str = "DEBUG a worker came up";
    seedbed::init();
    ear();
    let named = |name: &str| WorkerConfig::new().name(name);

    test(with_workers(
        named("retires").single_use(),
        |workers| async move {
            wait_until_gone(workers.run_sync(pid, ()).await.unwrap());
            until_empty(&workers).await;
            assert_eq!(story_of("retires"), [UP, "DEBUG a worker retired"]);
            assert_eq!(events_of("retires").pop().unwrap().fields.get("jobs"), "1");
        },
    ));

    let short = named("idles").idle_timeout(Duration::from_millis(1));
    test(with_workers(short, |workers| async move {
        workers.run_sync(pid, ()).await.unwrap();
        until_empty(&workers).await;
        let left = "DEBUG a worker exited after its idle timeout";
        assert_eq!(story_of("idles"), [UP, left]);
    }));

    test(with_workers(named("obeys"), |workers| async move {
        workers.run_sync(pid, ()).await.unwrap();
        workers.shutdown().await.unwrap();
        assert_eq!(
            story_of("obeys"),
            [UP, "DEBUG a worker exited because it was told to"]
        );
    }));

    test(with_workers(named("crashes"), |workers| async move {
        let idle = workers.run_sync(pid, ()).await.unwrap();
        kill(idle);
        wait_until_gone(idle);
        until_empty(&workers).await;
        assert_eq!(story_of("crashes"), [UP, "WARN a worker crashed"]);
        let crash = events_of("crashes").pop().unwrap();
        assert_eq!(crash.fields.get("pid"), idle.to_string());
        assert!(
            crash.fields.get("how").contains("killed by SIGKILL"),
            "{crash:?}"
        );
    }));

    // On a busy machine the worker could come up during the only poll, so its start is made to
    // fail.
    let slow = named("broken off").init(|| endless(()));
    test(with_workers(slow, |workers| async move {
        let scope = CancelScope::new();
        let mut call = Box::pin(scope.run(workers.run_sync(pid, ()).kill_on_cancel(true)));
        assert!(smol::future::poll_once(&mut call).await.is_none());
        scope.cancel();
        assert!(call.await.is_none());
        let broken_off = "DEBUG the start of a worker was broken off";
        assert_eq!(story_of("broken off"), [broken_off]);
    }));

    test(with_workers(named("cancelled"), |workers| async move {
        let begin = || workers.run_sync(endless, ()).kill_on_cancel(true);
        workers.run_sync(pid, ()).await.unwrap();
        let scope = CancelScope::new();
        let mut call = Box::pin(scope.run(begin()));
        assert!(smol::future::poll_once(&mut call).await.is_none());
        scope.cancel();
        assert!(call.await.is_none());
        let cancelled = "DEBUG a worker was killed: its call was cancelled";
        assert_eq!(story_of("cancelled"), [UP, cancelled]);

        workers.run_sync(pid, ()).await.unwrap();
        let mut call = Box::pin(begin().into_future());
        assert!(smol::future::poll_once(&mut call).await.is_none());
        drop(call);
        let dropped = "DEBUG a worker was killed: its call or context was dropped";
        assert_eq!(story_of("cancelled"), [UP, cancelled, UP, dropped]);
    }));

    let stubborn = with_workers_that_stay(named("stays"));
    let stubborn = stubborn.grace_period(Duration::from_millis(1));
    test(with_workers(stubborn, |workers| async move {
        workers.run_sync(pid, ()).await.unwrap();
        workers.shutdown().await.unwrap_err();
        let killed = "WARN a worker was killed: it did not exit within the grace period";
        assert_eq!(story_of("stays"), [UP, killed]);
    }));

    let stillborn = named("fails").init(|| panic!("no toner"));
    test(with_workers(stillborn, |workers| async move {
        workers.run_sync(pid, ()).await.unwrap_err();
        assert_eq!(story_of("fails"), ["WARN a worker did not come up"]);
        let failure = events_of("fails").pop().unwrap();
        assert!(
            failure.fields.get("error").contains("no toner"),
            "{failure:?}"
        );
    }));
}

fn each_change_of_a_fork_server_is_an_event() {
    seedbed::init();
    ear();
    test(with_workers(
        WorkerConfig::new().name("forks"),
        |workers| async move {
            workers.run_sync(pid, ()).await.unwrap();
            let of_servers = || {
                let mut events = events_of("forks");
                events.retain(|event| event.message().contains("fork server"));
                events
            };
            if worker_type() != WorkerType::ForkServer {
                assert!(of_servers().is_empty());
                return;
            }
            let is_server = |pid: &u32| name_of(*pid) == "forks-fork";
            let server = common::children().into_iter().find(is_server).unwrap();
            let came_up = of_servers().pop().unwrap();
            assert_eq!(
                (came_up.level, came_up.message()),
                (Level::DEBUG, "a fork server came up")
            );
            assert_eq!(came_up.fields.get("pid"), server.to_string());

            kill(server);
            wait_until_gone(server);
            kill(workers.run_sync(pid, ()).await.unwrap());
            until_empty(&workers).await;
            workers.run_sync(pid, ()).await.unwrap();
            let events = of_servers();
            assert_eq!(events.len(), 3, "{events:?}");
            assert_eq!(events[1].level, Level::WARN);
            assert!(
                events[1].message().starts_with("a fork server died"),
                "{events:?}"
            );
            assert_eq!(events[1].fields.get("pid"), server.to_string());
            assert_eq!(events[2].message(), "a fork server came up");
        },
    ));
}

fn a_subscriber_for_warnings_only_causes_no_spans() {
    fn untraced(_: ()) {}
    seedbed::init();
    let ear = ear();
    test(with_workers(
        WorkerConfig::new().name("quiet"),
        |workers| async move {
            ear.deaf.store(true, SeqCst);
            tracing_core::callsite::rebuild_interest_cache();
            let before = ear.calls.load(SeqCst);
            workers.run_sync(untraced, ()).await.unwrap();
            workers.shutdown().await.unwrap();
            assert_eq!(ear.calls.load(SeqCst), before);
            ear.deaf.store(false, SeqCst);
            tracing_core::callsite::rebuild_interest_cache();
            assert!(calls_of("::untraced").is_empty());
            assert!(story_of("quiet").is_empty());
        },
    ));
}

suite! {
    a_result_that_cannot_be_decoded_is_the_outcome_of_its_call,
    a_call_is_a_span_with_its_job_its_worker_and_its_outcome,
    a_job_of_a_dropped_call_writes_to_no_other_span,
    each_change_of_a_worker_from_start_to_end_is_an_event,
    each_change_of_a_fork_server_is_an_event,
    a_subscriber_for_warnings_only_causes_no_spans,
}
