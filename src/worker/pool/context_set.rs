//! Worker contexts that one block opens as it needs them, by a number.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use super::context::WorkerContext;
use super::current::current;
use super::shutdown::report;
use crate::sys::primitives::lock;
use crate::worker::config::WorkerConfig;

/// Worker contexts with the configuration that the current context had at the beginning of their
/// block.
pub(crate) struct ContextSet {
    config: OnceLock<WorkerConfig>,
    contexts: Mutex<BTreeMap<usize, WorkerContext>>,
}

impl ContextSet {
    pub(crate) fn new() -> Self {
        Self {
            config: OnceLock::new(),
            contexts: Mutex::default(),
        }
    }

    /// Takes the configuration of the context that is current now, with another name if there is
    /// one. Later calls change nothing.
    pub(crate) fn use_current_configuration(&self, name: Option<&Arc<str>>) -> &WorkerConfig {
        self.config.get_or_init(|| {
            let config = current().config().clone();
            match name {
                Some(name) => config.name(&**name),
                None => config,
            }
        })
    }

    /// Returns the context with this number, which is opened if it is new.
    pub(crate) fn get(&self, number: usize) -> WorkerContext {
        let mut contexts = lock(&self.contexts);
        let open = || WorkerContext::new(self.use_current_configuration(None).clone());
        contexts.entry(number).or_insert_with(open).clone()
    }

    /// Shuts down all contexts.
    pub(crate) async fn close(&self) {
        let contexts: Vec<WorkerContext> = lock(&self.contexts).values().cloned().collect();
        for context in contexts {
            report(context.close().await);
        }
    }
}
