//! Emits the `tracing` events that a worker has forwarded.

use tracing::Span;
use tracing::dispatcher::get_default;
use tracing_core::field::{DisplayValue, Value, display};
use tracing_core::span::Id;
use tracing_core::{Dispatch, Event, Metadata};

use super::callsites;
use crate::transport::codec;
use crate::transport::frame::Frame;
use crate::transport::traced::{Traced, TracedEvent, TracedValue, TracingLevel};
use crate::worker::tuning::MOST_FIELDS;

const TARGET: &str = "seedbed::worker";

/// The events of a worker's jobs.
#[derive(Debug)]
pub(super) struct Forwarded {
    /// The span in which the worker was given its job, which is that of the call.
    span: Span,
}

impl Forwarded {
    pub(super) fn new() -> Self {
        Self { span: Span::none() }
    }

    /// Makes the current span the parent of the events of the job that the worker is given.
    pub(super) fn begin_job(&mut self) {
        self.span = Span::current();
    }

    /// Lets go of the span, so that it may be closed.
    pub(super) fn end_job(&mut self) {
        self.span = Span::none();
    }

    /// Emits what a frame holds. A frame that holds something else is ignored: a faulty job has
    /// sent it.
    pub(super) fn emit(&self, frame: &Frame) {
        match codec::decode(frame.payload()) {
            Ok(Traced::Event(event)) if event.values.len() == event.callsite.fields.len() => {
                match callsites::find(&event.callsite) {
                    Some(callsite) => self.emit_at(callsite.wanted(), &event.values),
                    None => self.emit_as_text(&event),
                }
            }
            Ok(Traced::Dropped(dropped)) => tracing::warn!(
                target: TARGET, parent: &self.span, dropped,
                "events of a job were dropped, because this process did not read them in time"
            ),
            Ok(Traced::Event(_)) | Err(_) => {}
        }
    }

    fn emit_at(
        &self,
        metadata: Option<&'static Metadata<'static>>,
        values: &[Option<TracedValue>],
    ) {
        let Some(metadata) = metadata else { return };
        let in_span = self.span.with_subscriber(|(id, dispatch)| {
            // The subscriber of the span may be another one than that of this thread.
            emit(dispatch, Some(id), metadata, values);
        });
        if in_span.is_none() {
            get_default(|dispatch| emit(dispatch, None, metadata, values));
        }
    }

    /// Emits an event of which the callsite cannot be made.
    fn emit_as_text(&self, event: &TracedEvent) {
        let (span, text) = (&self.span, text_of(event));
        let origin = event.callsite.target.as_str();
        match event.callsite.level {
            TracingLevel::Error => tracing::error!(target: TARGET, parent: span, origin, "{text}"),
            TracingLevel::Warn => tracing::warn!(target: TARGET, parent: span, origin, "{text}"),
            TracingLevel::Info => tracing::info!(target: TARGET, parent: span, origin, "{text}"),
            TracingLevel::Debug => tracing::debug!(target: TARGET, parent: span, origin, "{text}"),
            TracingLevel::Trace => tracing::trace!(target: TARGET, parent: span, origin, "{text}"),
        }
    }
}

fn emit(
    dispatch: &Dispatch,
    parent: Option<&Id>,
    metadata: &'static Metadata<'static>,
    values: &[Option<TracedValue>],
) {
    if !dispatch.enabled(metadata) {
        return;
    }
    let shown = values.iter().map(|value| value.as_ref().map(Shown::of));
    let shown: Vec<Option<Shown<'_>>> = shown.collect();
    let fields: Vec<_> = metadata.fields().iter().collect();
    let Some(first) = fields.first() else {
        let none: [(&_, Option<&dyn Value>); 0] = [];
        let values = metadata.fields().value_set(&none);
        return dispatch.event(&Event::new_child_of(parent.cloned(), metadata, &values));
    };
    // Their number is a part of the type. A field without a value is not recorded.
    let mut all: [(_, Option<&dyn Value>); MOST_FIELDS] = [(first, None); MOST_FIELDS];
    for (place, (field, value)) in all.iter_mut().zip(fields.iter().zip(&shown)) {
        *place = (field, value.as_ref().map(Shown::value));
    }
    let values = metadata.fields().value_set(&all);
    dispatch.event(&Event::new_child_of(parent.cloned(), metadata, &values));
}

/// A value in the form in which a subscriber gets it.
enum Shown<'a> {
    As(&'a dyn Value),
    Text(DisplayValue<&'a str>),
}

impl<'a> Shown<'a> {
    fn of(value: &'a TracedValue) -> Self {
        match value {
            TracedValue::Signed(value) => Self::As(value),
            TracedValue::Unsigned(value) => Self::As(value),
            TracedValue::LongSigned(value) => Self::As(value),
            TracedValue::LongUnsigned(value) => Self::As(value),
            TracedValue::Float(value) => Self::As(value),
            TracedValue::Bool(value) => Self::As(value),
            TracedValue::Str(value) => Self::As(value),
            TracedValue::Text(text) => Self::Text(display(text)),
        }
    }

    fn value(&self) -> &dyn Value {
        match self {
            Self::As(value) => *value,
            Self::Text(text) => text,
        }
    }
}

/// Returns the message, and then the other fields.
fn text_of(event: &TracedEvent) -> String {
    let named = || event.callsite.fields.iter().zip(&event.values);
    let message = named().filter(|(name, _)| *name == "message");
    let others = named().filter(|(name, _)| *name != "message");
    let message = message.filter_map(|(_, value)| Some(value.as_ref()?.to_string()));
    let others = others.filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)));
    message.chain(others).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::traced::TracedCallsite;

    #[test]
    fn an_event_as_text_begins_with_its_message() {
        let field = |name: &str| name.to_owned();
        let event = TracedEvent {
            callsite: TracedCallsite {
                level: TracingLevel::Warn,
                name: String::new(),
                target: String::new(),
                module: None,
                file: None,
                line: None,
                fields: ["count", "message", "left", "of"].map(field).into(),
            },
            values: vec![
                Some(TracedValue::Signed(-3)),
                Some(TracedValue::Text("counted".to_owned())),
                None,
                Some(TracedValue::Str("sheep".to_owned())),
            ],
        };
        assert_eq!(text_of(&event), "counted count=-3 of=sheep");
    }
}
