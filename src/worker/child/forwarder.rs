//! The `tracing` subscriber of a worker that sends the events of its jobs to the parent.
//!
//! Each event is a frame in the socket, sent at once if the kernel has room for it. Otherwise it
//! waits in an [`Outbox`], whose oldest events are dropped if it gets too large. The rest is sent
//! before the answer of the job. So a running job never waits for a parent that reads slowly, and
//! the parent has all events when it reads the answer.

use std::collections::VecDeque;
use std::fmt;
use std::fmt::Write;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, OnceLock};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use tracing_core::dispatcher::{Dispatch, set_global_default};
use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::{Event, LevelFilter, Metadata, Subscriber};

use super::faults::while_sending;
use super::tuning::{OUTBOX_BYTES, TRACED_TEXT_BYTES};
use crate::sys::primitives::lock;
use crate::sys::socket::send_all;
use crate::transport::codec;
use crate::transport::frame;
use crate::transport::frame::Kind;
use crate::transport::traced::{Traced, TracedCallsite, TracedEvent, TracedValue, TracingLevel};

static FORWARDER: OnceLock<Forwarder> = OnceLock::new();

#[derive(Debug)]
struct Forwarder {
    /// A descriptor of its own for the socket of this worker.
    socket: OwnedFd,
    /// The worker, and not a process that a job has forked.
    pid: u32,
    outbox: Mutex<Outbox>,
}

/// Events that have not been sent.
#[derive(Debug, Default)]
struct Outbox {
    /// A job runs.
    is_open: bool,
    frames: VecDeque<Vec<u8>>,
    /// The bytes of all frames.
    bytes: usize,
    /// The number of events that were dropped since the last one was sent.
    dropped: u64,
}

/// Sends the events of this process's jobs through `socket` from now on, unless the program has set
/// a global subscriber.
pub(super) fn install(level: TracingLevel, socket: OwnedFd) {
    let forwarder = Forwarder {
        socket,
        pid: std::process::id(),
        outbox: Mutex::default(),
    };
    let subscriber = ToParent(LevelFilter::from_level(level.level()));
    if FORWARDER.set(forwarder).is_ok() {
        let _ = set_global_default(Dispatch::new(subscriber)); // a subscriber of the program is preferred
    }
}

/// Lets events be sent, because a job begins.
pub(super) fn open() {
    if let Some(forwarder) = FORWARDER.get() {
        lock(&forwarder.outbox).is_open = true;
    }
}

/// Sends what is left of the events of the job that has ended. Later events are discarded, until
/// the next job begins.
pub(super) fn close() {
    let Some(forwarder) = FORWARDER.get() else {
        return;
    };
    let mut outbox = lock(&forwarder.outbox);
    outbox.is_open = false;
    let flushed = outbox.flush(|frame| while_sending(|| send_all(&forwarder.socket, frame)));
    drop(flushed); // a parent that cannot be reached is met by the answer, too
}

impl Forwarder {
    fn send(&self, frame: Vec<u8>) {
        // A copy that a job has forked has the locks of other threads, which it does not have.
        if std::process::id() != self.pid {
            return;
        }
        let mut outbox = lock(&self.outbox);
        if !outbox.is_open {
            return;
        }
        outbox.add(frame);
        let flushed = outbox.flush(|frame| while_sending(|| self.send_now(frame)));
        drop(flushed); // an event that cannot be sent stays in the outbox
    }

    /// Sends a frame if that is possible at once.
    fn send_now(&self, frame: &[u8]) -> io::Result<()> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = loop {
            match send(self.socket.as_fd(), frame, flags) {
                Err(Errno::INTR) => {}
                sent => break sent?,
            }
        };
        // The kernel sends a frame of this length as a whole. If it does not, this waits.
        send_all(&self.socket, &frame[sent..])
    }
}

impl Outbox {
    /// Adds a frame. Drops the oldest ones if there are too many.
    fn add(&mut self, frame: Vec<u8>) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
        while self.bytes > OUTBOX_BYTES
            && let Some(oldest) = self.frames.pop_front()
        {
            self.bytes -= oldest.len();
            self.dropped += 1;
        }
    }

    /// Sends all frames, until there is an error.
    fn flush(&mut self, mut send: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        if self.dropped > 0 {
            send(&encoded(&Traced::Dropped(self.dropped)))?;
            self.dropped = 0;
        }
        while let Some(frame) = self.frames.front() {
            send(frame)?;
            self.bytes -= frame.len();
            self.frames.pop_front();
        }
        Ok(())
    }
}

fn encoded(traced: &Traced) -> Vec<u8> {
    let built = frame::build(Kind::Traced, 0, |out| codec::encode_onto(traced, out));
    built.unwrap_or_else(|error| unreachable!("our own messages can be encoded: {error}"))
}

/// The subscriber. It has no spans.
struct ToParent(LevelFilter);

impl Subscriber for ToParent {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // A hint of `enabled!` is neither an event nor a span.
        !metadata.is_span() && *metadata.level() <= self.0
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0)
    }

    fn event(&self, event: &Event<'_>) {
        // Before any lock is taken, because it may run code of the job.
        let frame = encoded(&Traced::Event(record(event)));
        if let Some(forwarder) = FORWARDER.get() {
            forwarder.send(frame);
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn record(event: &Event<'_>) -> TracedEvent {
    let metadata = event.metadata();
    let fields: Vec<_> = metadata
        .fields()
        .iter()
        .map(|field| field.name().to_owned())
        .collect();
    let mut values = Values {
        values: fields.iter().map(|_| None).collect(),
        room: TRACED_TEXT_BYTES,
    };
    event.record(&mut values);
    TracedEvent {
        callsite: TracedCallsite {
            level: TracingLevel::of(*metadata.level()),
            name: metadata.name().to_owned(),
            target: metadata.target().to_owned(),
            module: metadata.module_path().map(str::to_owned),
            file: metadata.file().map(str::to_owned),
            line: metadata.line(),
            fields,
        },
        values: values.values,
    }
}

/// The values of an event.
struct Values {
    values: Vec<Option<TracedValue>>,
    /// The number of bytes of text that still fit into the event.
    room: usize,
}

impl Values {
    fn put(&mut self, field: &Field, value: TracedValue) {
        if let Some(place) = self.values.get_mut(field.index()) {
            *place = Some(value);
        }
    }

    /// Formats a value, as far as there is room.
    fn text(&mut self, value: fmt::Arguments<'_>) -> String {
        let mut text = Text {
            text: String::new(),
            room: self.room,
        };
        let _ = text.write_fmt(value); // ends with an error where the room ends; the text is kept
        self.room = text.room;
        text.text
    }
}

impl Visit for Values {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = self.text(format_args!("{value:?}"));
        self.put(field, TracedValue::Text(text));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let text = self.text(format_args!("{value}"));
        self.put(field, TracedValue::Str(text));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, TracedValue::Float(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, TracedValue::Signed(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, TracedValue::Unsigned(value));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.put(field, TracedValue::LongSigned(value));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.put(field, TracedValue::LongUnsigned(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, TracedValue::Bool(value));
    }
}

/// A text of limited length.
struct Text {
    text: String,
    room: usize,
}

impl Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let most = part.len().min(self.room);
        let fits = (0..=most)
            .rev()
            .find(|&end| part.is_char_boundary(end))
            .unwrap_or(0);
        self.text.push_str(&part[..fits]);
        self.room -= fits;
        if fits < part.len() {
            self.room = 0;
            return Err(fmt::Error);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outbox_keeps_the_latest_events_and_counts_the_others() {
        let mut outbox = Outbox::default();
        let frame = |n: u8| vec![n; OUTBOX_BYTES / 4];
        for n in 0..7 {
            outbox.add(frame(n));
        }
        let mut sent = Vec::new();
        let mut room = 3;
        let mut send = |frame: &[u8]| {
            if room == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            room -= 1;
            sent.push(frame.to_vec());
            Ok(())
        };
        assert!(outbox.flush(&mut send).is_err());
        room = 10;
        let mut send = |frame: &[u8]| {
            room -= 1;
            sent.push(frame.to_vec());
            Ok::<_, io::Error>(())
        };
        outbox.flush(&mut send).unwrap();
        assert_eq!(sent[0], encoded(&Traced::Dropped(3)));
        assert_eq!(sent[1..], [3, 4, 5, 6].map(frame));
        assert_eq!((outbox.bytes, outbox.dropped), (0, 0));
    }

    #[test]
    fn the_text_of_an_event_is_cut_between_characters() {
        let mut values = Values {
            values: Vec::new(),
            room: 5,
        };
        assert_eq!(values.text(format_args!("{}", "ab")), "ab");
        assert_eq!(values.text(format_args!("{}{}", "ää", "x")), "ä");
        assert_eq!(values.text(format_args!("x")), "");
    }
}
