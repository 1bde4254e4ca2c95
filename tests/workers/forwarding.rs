//! `tracing` events of jobs that reach the parent's subscriber.
//!
//! `unsafe` is needed to fork within a job.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::common::gate::{Gate, pass};
use crate::common::{test, with_workers};
use seedbed::worker::{Receiver, Sender, TracingLevel, WorkerContext, WorkerErrorKind, channel};
use seedbed::{CancelScope, WorkerConfig};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_core::span::Current;

/// An event that the subscriber got.
#[derive(Clone, Debug)]
struct Told {
    metadata: &'static Metadata<'static>,
    /// The fields as texts, each after the name of its type.
    fields: HashMap<&'static str, String>,
    /// The name and the field `job` of its parent.
    within: Option<String>,
}

impl Told {
    fn get(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

#[derive(Default)]
struct Fields(HashMap<&'static str, String>);

impl Fields {
    fn put(&mut self, field: &Field, value: String) {
        let before = self.0.insert(field.name(), value);
        assert_eq!(before, None, "{field} is recorded once");
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, format!("str {value}"));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, format!("i64 {value}"));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, format!("u64 {value}"));
    }
    fn record_i128(&mut self, field: &Field, value: i128) {
        self.put(field, format!("i128 {value}"));
    }
    fn record_u128(&mut self, field: &Field, value: u128) {
        self.put(field, format!("u128 {value}"));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, format!("f64 {value}"));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, format!("bool {value}"));
    }
}

/// The subscriber, which has all spans of calls and all events.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    /// The name and the field `job` of each span.
    spans: Vec<(&'static Metadata<'static>, String)>,
    entered: Vec<Id>,
    events: Vec<Told>,
}

impl Recorder {
    fn record(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// Returns the events of jobs of this program.
    fn events(&self) -> Vec<Told> {
        let mut events = self.record().events.clone();
        events.retain(|event| event.metadata.target() == "job");
        events
    }

    fn count(&self) -> usize {
        let record = self.record();
        let events = record.events.iter();
        events
            .filter(|event| event.metadata.target() == "job")
            .count()
    }

    fn messages(&self) -> Vec<String> {
        let events = self.events();
        events
            .iter()
            .map(|event| event.get("message").to_owned())
            .collect()
    }

    /// Returns how many events were dropped.
    fn dropped(&self) -> u64 {
        let record = self.record();
        let reports = record
            .events
            .iter()
            .filter(|event| !event.get("dropped").is_empty());
        reports
            .map(|event| {
                event
                    .get("dropped")
                    .strip_prefix("u64 ")
                    .unwrap()
                    .parse::<u64>()
                    .unwrap()
            })
            .sum()
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        ["job", "seedbed::worker"].contains(&metadata.target())
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields::default();
        span.record(&mut fields);
        let job = fields.0.get("job").map_or("", String::as_str);
        let name = format!("{} {job}", span.metadata().name());
        let mut record = self.record();
        record.spans.push((span.metadata(), name));
        Id::from_u64(record.spans.len() as u64)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut record = Recorder::record(self);
        let within = event
            .parent()
            .map(|id| record.spans[id.into_u64() as usize - 1].1.clone());
        record.events.push(Told {
            metadata: event.metadata(),
            fields: fields.0,
            within,
        });
    }
    fn enter(&self, id: &Id) {
        Recorder::record(self).entered.push(id.clone());
    }
    fn exit(&self, id: &Id) {
        let left = Recorder::record(self).entered.pop();
        assert_eq!(left.as_ref(), Some(id));
    }
    fn current_span(&self) -> Current {
        let record = Recorder::record(self);
        match record.entered.last() {
            None => Current::none(),
            Some(id) => Current::new(id.clone(), record.spans[id.into_u64() as usize - 1].0),
        }
    }
}

/// Runs a test with workers that forward events of this level, and with a subscriber of its own.
fn forwarding<F, Fut>(level: TracingLevel, body: F)
where
    F: FnOnce(WorkerContext, Recorder) -> Fut,
    Fut: Future<Output = ()>,
{
    seedbed::init(); // before there is a subscriber, which a worker would have, too
    let recorder = Recorder::default();
    let config = WorkerConfig::new().forward_tracing(level);
    let told = recorder.clone();
    tracing::subscriber::with_default(recorder, || {
        test(with_workers(config, |workers| body(workers, told)));
    });
}

/// Emits events of all levels and kinds. Returns the number of the line of the first.
fn tell(long: usize) -> u32 {
    let line = line!() + 1;
    tracing::info!(name: "told", target: "job", files = 3_u64, size = -7, ratio = 0.5, whole = true,
        text = "a text", wide = u128::MAX, low = i128::MIN, list = ?[1, 2], none = tracing::field::Empty,
        "{} is told", "it");
    tracing::error!(target: "job", long = "x".repeat(long));
    tracing::debug!(target: "job", "too unimportant");
    tracing::info_span!(target: "job", "a span")
        .in_scope(|| tracing::warn!(target: "job", "in a span"));
    line
}

fn an_event_arrives_as_it_was_in_the_span_of_the_call() {
    forwarding(TracingLevel::Info, |workers, recorder| async move {
        for _ in 0..2 {
            let line = workers.run_sync(tell, 100_000).await.unwrap();
            let events = recorder.events();
            assert_eq!(recorder.messages(), ["it is told", "", "in a span"]);
            let told = &events[0];
            let metadata = told.metadata;
            assert_eq!((metadata.name(), *metadata.level()), ("told", Level::INFO));
            assert_eq!(
                (metadata.file(), metadata.line()),
                (Some(file!()), Some(line))
            );
            assert_eq!(metadata.module_path(), Some(module_path!()));
            for (name, value) in [
                ("files", "u64 3"),
                ("size", "i64 -7"),
                ("ratio", "f64 0.5"),
                ("whole", "bool true"),
                ("text", "str a text"),
                ("wide", &format!("u128 {}", u128::MAX)),
                ("low", &format!("i128 {}", i128::MIN)),
                ("list", "[1, 2]"),
                ("none", ""),
            ] {
                assert_eq!(told.get(name), value, "{name}");
            }
            assert!(events.iter().all(|event| {
                let within = event.within.as_deref();
                within.is_some_and(|within| {
                    within.starts_with("call str ") && within.ends_with("tell")
                })
            }));
            assert_eq!(
                events[1].get("long"),
                format!("str {}", "x".repeat(8 << 10))
            );
            recorder.record().events.clear();
        }
    });
}

fn events_arrive_while_the_job_runs_and_before_a_crash() {
    fn tell_and_crash(gate: PathBuf) {
        tracing::info!(target: "job", "before the gate");
        pass(&gate);
        tracing::warn!(target: "job", "behind the gate");
        std::process::abort();
    }
    forwarding(TracingLevel::Trace, |workers, recorder| async move {
        let gate = Gate::new();
        let call = workers.run_sync(tell_and_crash, gate.path()).into_future();
        let watch = async {
            while recorder.messages().is_empty() {
                smol::future::yield_now().await;
            }
            assert_eq!(recorder.messages(), ["before the gate"]);
            gate.open();
        };
        let (outcome, ()) = smol::future::zip(call, watch).await;
        assert_eq!(outcome.unwrap_err().kind(), WorkerErrorKind::Broken);
        assert_eq!(recorder.messages(), ["before the gate", "behind the gate"]);
    });
}

/// Emits events while no process reads them, then tells that, and waits.
fn flood((count, mut done, go): (u64, Sender<()>, Receiver<()>)) {
    for number in 0..count {
        tracing::info!(target: "job", number, text = "x".repeat(1000));
    }
    done.send_blocking(()).unwrap();
    assert_eq!(go.into_iter().count(), 0);
    tracing::info!(target: "job", number = count);
}

fn the_oldest_events_are_dropped_and_counted_if_they_are_not_read() {
    const COUNT: u64 = 5000;
    forwarding(TracingLevel::Info, |workers, recorder| async move {
        let (done, mut flooded) = channel(1).unwrap();
        let (go, job_go) = channel(1).unwrap();
        let call = workers.run_sync(flood, (COUNT, done, job_go)).into_future();
        let mut call = std::pin::pin!(call);
        while recorder.count() == 0 {
            assert!(smol::future::poll_once(&mut call).await.is_none());
        }
        flooded.recv_blocking().unwrap(); // the call is not polled until then
        drop(go);
        call.await.unwrap();
        let numbers: Vec<u64> = recorder
            .events()
            .iter()
            .map(|event| {
                event
                    .get("number")
                    .strip_prefix("u64 ")
                    .unwrap()
                    .parse()
                    .unwrap()
            })
            .collect();
        assert!(numbers.is_sorted());
        assert!(
            numbers.ends_with(&[COUNT - 2, COUNT - 1, COUNT]),
            "{numbers:?}"
        );
        assert_eq!(numbers.len() as u64 + recorder.dropped(), COUNT + 1);
        assert!(recorder.dropped() > COUNT / 2, "{}", recorder.dropped());
    });
}

fn a_job_that_emits_without_end_is_killed_like_any_other() {
    fn emit_forever(_: ()) {
        loop {
            tracing::info!(target: "job", "again");
        }
    }
    forwarding(TracingLevel::Info, |workers, recorder| async move {
        let scope = CancelScope::new();
        let call = scope.run(workers.run_sync(emit_forever, ()).kill_on_cancel(true));
        let cancel = async {
            while recorder.count() < 10_000 {
                smol::future::yield_now().await;
            }
            scope.cancel();
        };
        let (outcome, ()) = smol::future::zip(call, cancel).await;
        assert!(outcome.is_none());
    });
}

fn other_threads_and_async_jobs_and_maps_forward_too() {
    fn in_a_thread(number: u32) -> u32 {
        std::thread::spawn(move || tracing::info!(target: "job", "{number} in a thread"))
            .join()
            .unwrap();
        number
    }
    async fn tell_later(_: ()) {
        seedbed::checkpoint().await;
        tracing::info!(target: "job", "in a run");
    }
    forwarding(TracingLevel::Info, |workers, recorder| async move {
        workers.run_sync(in_a_thread, 7).await.unwrap();
        assert_eq!(recorder.messages(), ["7 in a thread"]);
        recorder.record().events.clear();
        let results = workers.map_sync(in_a_thread, 0..20).try_collect().await;
        assert_eq!(results.unwrap().len(), 20);
        let mut messages = recorder.messages();
        messages.sort();
        let mut expected: Vec<_> = (0..20)
            .map(|number| format!("{number} in a thread"))
            .collect();
        expected.sort();
        assert_eq!(messages, expected);
        recorder.record().events.clear();
        workers.run_async(tell_later, ()).await.unwrap();
        assert_eq!(recorder.messages(), ["in a run"]);
    });
}

fn without_the_setting_nothing_is_forwarded_and_nothing_enabled() {
    fn is_enabled(_: ()) -> bool {
        tracing::error!(target: "job", "unheard");
        tracing::enabled!(target: "job", Level::ERROR)
    }
    seedbed::init();
    let recorder = Recorder::default();
    let told = recorder.clone();
    tracing::subscriber::with_default(recorder, || {
        test(with_workers(WorkerConfig::new(), |workers| async move {
            assert!(!workers.run_sync(is_enabled, ()).await.unwrap());
            assert!(told.messages().is_empty());
        }));
    });
}

fn a_subscriber_that_an_init_closure_sets_is_preferred() {
    forwarding(TracingLevel::Info, |_, recorder| async move {
        let config = WorkerConfig::new()
            .forward_tracing(TracingLevel::Info)
            .init(|| tracing::subscriber::set_global_default(Recorder::default()).unwrap());
        with_workers(config, |workers| async move {
            workers.run_sync(tell, 1).await.unwrap();
        })
        .await;
        assert!(recorder.events().is_empty());
    });
}

fn a_process_that_a_job_forks_forwards_nothing() {
    fn fork_and_tell(_: ()) {
        // SAFETY: the worker has one thread, so the copy can do what it could.
        match unsafe { libc::fork() } {
            0 => {
                tracing::info!(target: "job", "from the copy");
                // SAFETY: any process may call it at any moment.
                unsafe { libc::_exit(0) }
            }
            // SAFETY: the pointer may be null.
            copy => assert_eq!(
                unsafe { libc::waitpid(copy, std::ptr::null_mut(), 0) },
                copy
            ),
        }
        tracing::info!(target: "job", "from the worker");
    }
    forwarding(TracingLevel::Info, |workers, recorder| async move {
        workers.run_sync(fork_and_tell, ()).await.unwrap();
        assert_eq!(recorder.messages(), ["from the worker"]);
    });
}

suite! {
    an_event_arrives_as_it_was_in_the_span_of_the_call,
    events_arrive_while_the_job_runs_and_before_a_crash,
    the_oldest_events_are_dropped_and_counted_if_they_are_not_read,
    a_job_that_emits_without_end_is_killed_like_any_other,
    other_threads_and_async_jobs_and_maps_forward_too,
    without_the_setting_nothing_is_forwarded_and_nothing_enabled,
    a_subscriber_that_an_init_closure_sets_is_preferred,
    a_process_that_a_job_forks_forwards_nothing,
}
