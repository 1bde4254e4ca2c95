//! A subscriber that keeps events, and the fields of spans and events for other subscribers.

#![allow(dead_code)] // each test program uses its own part of this

use std::fmt::{self, Debug};
use std::future::poll_fn;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The fields of a span or an event, with their values as text.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<(&'static str, String)>);

impl Fields {
    pub fn of_event(event: &Event<'_>) -> Self {
        let mut fields = Self::default();
        event.record(&mut fields);
        fields
    }

    pub fn of_span(span: &Attributes<'_>) -> Self {
        let mut fields = Self::default();
        span.record(&mut fields);
        fields
    }

    /// Returns the value of a field; an empty text if there is none.
    pub fn get(&self, name: &str) -> &str {
        let field = self.0.iter().find(|(known, _)| *known == name);
        field.map_or("", |(_, value)| value)
    }

    fn set(&mut self, name: &'static str, value: String) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.set(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field.name(), value.to_owned());
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = self.0.iter();
        fields.try_for_each(|(name, value)| write!(f, "{name}={value} "))
    }
}

/// Keeps the events at or above a level whose target begins with some text.
#[derive(Clone)]
pub struct Log {
    target: &'static str,
    level: Level,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    events: Vec<Fields>,
    /// Tests that wait for an event.
    waiting: Vec<Waker>,
}

impl Log {
    pub fn new(target: &'static str, level: Level) -> Self {
        Log {
            target,
            level,
            kept: Arc::default(),
        }
    }

    /// Returns the events so far.
    pub fn events(&self) -> Vec<Fields> {
        self.lock().events.clone()
    }

    /// Returns the events so far as text.
    pub fn lines(&self) -> Vec<String> {
        self.lock().events.iter().map(Fields::to_string).collect()
    }

    /// Returns the messages so far that contain this text.
    pub fn messages_with(&self, text: &str) -> Vec<String> {
        let kept = self.lock();
        let messages = kept.events.iter().map(|event| event.get("message"));
        messages
            .filter(|message| message.contains(text))
            .map(str::to_owned)
            .collect()
    }

    /// Waits for a message that contains this text.
    pub async fn message_with(&self, text: &str) -> String {
        poll_fn(|cx| {
            self.lock().waiting.push(cx.waker().clone());
            match self.messages_with(text).pop() {
                Some(message) => Poll::Ready(message),
                None => Poll::Pending,
            }
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // A test that fails must not keep others of its program from their events.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level && metadata.target().starts_with(self.target)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let fields = Fields::of_event(event);
        let waiting = {
            let mut kept = self.lock();
            kept.events.push(fields);
            mem::take(&mut kept.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
