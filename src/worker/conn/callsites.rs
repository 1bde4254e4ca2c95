//! The callsites of forwarded events, as `tracing` knows them in this process.
//!
//! A subscriber gets metadata that live as long as the process. So those of each callsite of a job
//! are made once, and are never freed. A faulty job must not fill the memory with them, so there is
//! a limit.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};

use tracing_core::Metadata;
use tracing_core::callsite::{Callsite, Identifier, register};
use tracing_core::field::FieldSet;
use tracing_core::metadata::Kind;
use tracing_core::subscriber::Interest;

use crate::sys::primitives::lock;
use crate::transport::traced::TracedCallsite;
use crate::worker::tuning::{CALLSITE_BYTES, MOST_CALLSITES, MOST_FIELDS};

/// The callsites by what workers have sent of them.
static CALLSITES: OnceLock<Mutex<HashMap<&TracedCallsite, &ForwardedCallsite>>> = OnceLock::new();

/// A callsite of a job.
#[derive(Debug)]
pub(super) struct ForwardedCallsite {
    metadata: OnceLock<Metadata<'static>>,
    /// No subscriber wants its events.
    is_unwanted: AtomicBool,
}

impl Callsite for ForwardedCallsite {
    fn set_interest(&self, interest: Interest) {
        self.is_unwanted
            .store(interest.is_never(), Ordering::Relaxed);
    }

    fn metadata(&self) -> &Metadata<'_> {
        self.metadata()
    }
}

impl ForwardedCallsite {
    fn metadata(&self) -> &Metadata<'static> {
        let metadata = self.metadata.get();
        metadata.expect("they are set before the callsite is known")
    }

    /// Returns the metadata, unless no subscriber wants them.
    pub(super) fn wanted(&'static self) -> Option<&'static Metadata<'static>> {
        let is_wanted = !self.is_unwanted.load(Ordering::Relaxed);
        is_wanted.then(|| self.metadata())
    }
}

/// Returns the callsite, which is made if it is new. Returns `None` if there are too many, or if it
/// is too large.
pub(super) fn find(callsite: &TracedCallsite) -> Option<&'static ForwardedCallsite> {
    let mut callsites = lock(CALLSITES.get_or_init(Mutex::default));
    if let Some(known) = callsites.get(callsite) {
        return Some(known);
    }
    if callsites.len() == MOST_CALLSITES || !is_small(callsite) {
        return None;
    }
    let (made, callsite) = make(callsite);
    callsites.insert(callsite, made);
    drop(callsites);
    register(made); // runs code of subscribers
    Some(made)
}

fn is_small(callsite: &TracedCallsite) -> bool {
    let options = [&callsite.module, &callsite.file];
    let texts = [&callsite.name, &callsite.target]
        .into_iter()
        .chain(options.into_iter().flatten())
        .chain(&callsite.fields);
    callsite.fields.len() <= MOST_FIELDS && texts.map(String::len).sum::<usize>() <= CALLSITE_BYTES
}

/// Makes a callsite, and a copy of its description. Both live as long as the process.
fn make(callsite: &TracedCallsite) -> (&'static ForwardedCallsite, &'static TracedCallsite) {
    let callsite: &'static TracedCallsite = Box::leak(Box::new(callsite.clone()));
    let names: Vec<&'static str> = callsite.fields.iter().map(String::as_str).collect();
    let made: &'static ForwardedCallsite = Box::leak(Box::new(ForwardedCallsite {
        metadata: OnceLock::new(),
        is_unwanted: AtomicBool::new(false),
    }));
    made.metadata.get_or_init(|| {
        Metadata::new(
            &callsite.name,
            &callsite.target,
            callsite.level.level(),
            callsite.file.as_deref(),
            callsite.line,
            callsite.module.as_deref(),
            FieldSet::new(names.leak(), Identifier(made)),
            Kind::EVENT,
        )
    });
    (made, callsite)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::traced::TracingLevel;

    fn callsite(name: &str) -> TracedCallsite {
        TracedCallsite {
            level: TracingLevel::Info,
            name: name.to_owned(),
            target: "test".to_owned(),
            module: None,
            file: Some("src/test.rs".to_owned()),
            line: Some(7),
            fields: vec!["message".to_owned(), "count".to_owned()],
        }
    }

    #[test]
    fn a_callsite_is_made_once_with_its_metadata() {
        let made = find(&callsite("one")).unwrap();
        assert!(std::ptr::eq(made, find(&callsite("one")).unwrap()));
        assert!(!std::ptr::eq(made, find(&callsite("two")).unwrap()));
        let metadata = made.metadata();
        assert!(metadata.is_event());
        assert_eq!((metadata.name(), metadata.target()), ("one", "test"));
        assert_eq!(
            (metadata.file(), metadata.line()),
            (Some("src/test.rs"), Some(7))
        );
        let fields: Vec<_> = metadata.fields().iter().map(|field| field.name()).collect();
        assert_eq!(fields, ["message", "count"]);
    }

    #[test]
    fn a_callsite_that_is_too_large_is_not_made() {
        assert!(find(&callsite(&"x".repeat(CALLSITE_BYTES))).is_none());
        let mut many = callsite("many");
        many.fields = (0..=MOST_FIELDS).map(|n| n.to_string()).collect();
        assert!(find(&many).is_none());
    }
}
