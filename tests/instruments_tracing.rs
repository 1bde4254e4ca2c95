//! `TracingInstrument`: tasks as spans, recorded by a small subscriber.

#[path = "common/log.rs"]
mod log;
#[path = "common/polling.rs"]
mod polling;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use log::{Fields, Log};
use polling::turns;
use seedbed::instrument::{Instrument, TracingInstrument};
use seedbed::nursery::{TaskInfo, current_task};
use seedbed::time::sleep_forever;
use seedbed::{RunBuilder, open_nursery, run};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Records spans, by the names of their tasks, and events with their spans.
#[derive(Default)]
struct Seen {
    lines: Mutex<Vec<String>>,
    names: Mutex<HashMap<u64, String>>,
    entered: Mutex<Vec<u64>>,
    next: AtomicU64,
}

impl Seen {
    fn add(&self, line: String) {
        self.lines.lock().unwrap().push(line);
    }

    fn name(&self, id: u64) -> String {
        self.names.lock().unwrap()[&id].clone()
    }
}

struct Reader(Arc<Seen>);

impl Subscriber for Reader {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        ["seedbed::task", "test"].contains(&metadata.target())
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let fields = Fields::of_span(span);
        let id = self.0.next.fetch_add(1, SeqCst) + 1;
        assert_eq!(
            (span.metadata().name(), *span.metadata().level()),
            ("task", Level::DEBUG)
        );
        assert!(fields.get("task.id").parse::<u64>().unwrap() > 0);
        let name = match span.parent() {
            None => "root".to_string(),
            Some(parent) => {
                let parent = self.0.name(parent.into_u64());
                self.0
                    .add(format!("new {} in {parent}", fields.get("task.name")));
                fields.get("task.name").to_string()
            }
        };
        self.0.names.lock().unwrap().insert(id, name);
        Id::from_u64(id)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let fields = Fields::of_event(event);
        let entered = self.0.entered.lock().unwrap().last().copied();
        let within = event.parent().map(Id::into_u64).or(entered);
        let within = within.map_or("nothing".to_string(), |id| self.0.name(id));
        let said = format!("{} {}", fields.get("message"), fields.get("how"));
        self.0.add(format!("{} in {within}", said.trim_end()));
    }

    fn enter(&self, id: &Id) {
        self.0.entered.lock().unwrap().push(id.into_u64());
    }

    fn exit(&self, id: &Id) {
        assert_eq!(self.0.entered.lock().unwrap().pop(), Some(id.into_u64()));
    }

    fn try_close(&self, id: Id) -> bool {
        // Called for each dropped handle on the span. This subscriber does not count the handles.
        _ = id;
        false
    }
}

/// Returns the records of `act` on this thread.
fn seen_by<T>(act: impl FnOnce() -> T) -> (T, Vec<String>) {
    let seen = Arc::new(Seen::default());
    let value = tracing::subscriber::with_default(Reader(seen.clone()), act);
    assert!(
        seen.entered.lock().unwrap().is_empty(),
        "whatever was entered was left"
    );
    let lines = std::mem::take(&mut *seen.lines.lock().unwrap());
    (value, lines)
}

#[test]
fn a_subscriber_may_spawn_whenever_it_is_called() {
    /// Calls the instrument in each of its own methods, as a subscriber that spawns does.
    struct Spawns(Arc<TracingInstrument>, AtomicU64);
    impl Spawns {
        fn called(&self) {
            if let Some(task) = current_task()
                && self.1.fetch_add(1, SeqCst) < 1000
            {
                self.0.task_scheduled(&task);
            }
        }
    }
    impl Subscriber for Spawns {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            self.called();
            Id::from_u64(1)
        }
        fn clone_span(&self, id: &Id) -> Id {
            self.called();
            id.clone()
        }
        fn try_close(&self, _: Id) -> bool {
            self.called();
            true
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {}
        fn enter(&self, _: &Id) {
            self.called();
        }
        fn exit(&self, _: &Id) {
            self.called();
        }
    }
    let instrument = Arc::new(TracingInstrument::new());
    let subscriber = Spawns(instrument.clone(), AtomicU64::new(0));
    tracing::subscriber::with_default(subscriber, || {
        let nursery = open_nursery(|n| async move {
            n.spawn(turns(2));
        });
        RunBuilder::new().instrument(instrument).run(nursery);
    });
}

#[test]
fn each_task_is_a_span_below_its_parent_s_and_events_of_a_step_are_in_it() {
    let run = || {
        let builder = RunBuilder::new().instrument(Arc::new(TracingInstrument::new()));
        builder.run(open_nursery(|n| async move {
            n.named("outer").spawn(open_nursery(|n| async move {
                n.named("inner").spawn(async {
                    turns(1).await;
                    tracing::info!(target: "test", "said");
                });
                tracing::info!(target: "test", "opened");
            }));
            turns(1).await;
            n.named("cancelled").spawn(sleep_forever());
            turns(3).await;
            n.cancel();
        }))
    };
    let ((), mut lines) = seen_by(run);
    for expected in [
        "the run waits in nothing",
        "the run has waited in nothing",
        "scheduled in root",
        "scheduled in outer",
        "scheduled in inner",
        "scheduled in cancelled",
    ] {
        assert!(
            lines.iter().any(|line| line == expected),
            "{expected}: {lines:?}"
        );
    }
    lines.retain(|line| {
        !line.starts_with("scheduled")
            && !line.starts_with("the run wai")
            && !line.contains("has waited")
    });
    let expected = [
        "the run begins in nothing",
        "new outer in root",
        "new inner in outer",
        "opened in outer",
        "new cancelled in root",
        "said in inner",
        "exited Finished in inner",
        "exited Finished in outer",
        "exited Cancelled in cancelled",
        "exited Finished in root",
        "the run has ended in nothing",
    ];
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    // The order of the steps is not tested here.
    assert_eq!(
        sorted(lines.clone()),
        sorted(expected.map(String::from).to_vec())
    );
    let at = |line: &str| lines.iter().position(|other| other == line).unwrap();
    assert!(at("new inner in outer") < at("said in inner"));
    assert!(at("said in inner") < at("exited Finished in inner"));
    assert!(at("exited Finished in inner") < at("exited Finished in outer"));
}

#[test]
fn without_the_instrument_there_are_no_spans() {
    let ((), lines) = seen_by(|| {
        run(open_nursery(|n| async move {
            n.spawn(async {});
        }))
    });
    assert!(lines.is_empty(), "{lines:?}");
}

#[test]
fn an_instrument_that_panics_is_logged_with_its_hook_and_its_message() {
    struct Crashes;
    impl Instrument for Crashes {
        fn task_spawned(&self, _: &TaskInfo) {
            panic!("an instrument's words");
        }
    }
    let log = Log::new("", Level::ERROR);
    tracing::subscriber::with_default(log.clone(), || {
        RunBuilder::new()
            .instrument(Arc::new(Crashes))
            .run(async {});
    });
    let heard = log.events();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert_eq!(heard[0].get("hook"), "task_spawned");
    assert_eq!(heard[0].get("panic"), "an instrument's words");
    assert_eq!(
        heard[0].get("message"),
        "an instrument panicked, and was removed"
    );
}
