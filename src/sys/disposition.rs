//! The default action of a signal, switched off while some part of the program wants the signal,
//! and then on again.
//!
//! signal-hook installs one handler per signal and never removes it. So a signal that ended the
//! process before would afterwards do nothing. The first [`Claim`] of a signal with the default
//! disposition therefore also installs, for good, an action that does what the system would have
//! done, if a flag is set. The flag is set while there is no claim.
//!
//! A signal that was ignored stays ignored, and a handler that was installed before signal-hook is
//! still called, before all others. signal-hook takes care of both, with or without a claim.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libc::c_int;

use super::signal::is_default;

/// The state of the signals that have ever been claimed.
static SIGNALS: Mutex<BTreeMap<c_int, Entry>> = Mutex::new(BTreeMap::new());

struct Entry {
    /// Whether the signal has its default action. `None` if it had another disposition when it was
    /// first claimed, or if signal-hook does not know its default action (real-time signals).
    in_force: Option<Arc<AtomicBool>>,
    claims: usize,
}

fn signals() -> MutexGuard<'static, BTreeMap<c_int, Entry>> {
    SIGNALS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Switches the default action of a signal off while it exists.
#[derive(Debug)]
pub(crate) struct Claim {
    signal: c_int,
}

impl Claim {
    /// Claims a signal, which must not be one that signal-hook forbids.
    pub(crate) fn new(signal: c_int) -> io::Result<Self> {
        let mut signals = signals();
        let entry = match signals.entry(signal) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(first) => first.insert(Entry {
                in_force: take_over(signal)?,
                claims: 0,
            }),
        };
        entry.claims += 1;
        if let Some(in_force) = &entry.in_force {
            in_force.store(false, Ordering::SeqCst);
        }
        Ok(Claim { signal })
    }

    /// Returns the flag that switches the default action on, if this file controls that. A signal's
    /// action may set it, to switch the default action on in spite of claims.
    pub(crate) fn in_force(&self) -> Option<Arc<AtomicBool>> {
        signals().get(&self.signal)?.in_force.clone()
    }

    /// Gives the claim back. Returns whether the default action is on again.
    pub(crate) fn release(self) -> bool {
        std::mem::ManuallyDrop::new(self).end()
    }

    fn end(&self) -> bool {
        let mut signals = signals();
        let entry = signals.get_mut(&self.signal).expect("entries stay");
        entry.claims -= 1;
        match &entry.in_force {
            Some(in_force) if entry.claims == 0 => {
                in_force.store(true, Ordering::SeqCst);
                true
            }
            Some(_) | None => false,
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.end();
    }
}

/// Installs the action that replaces the default one, switched on.
fn take_over(signal: c_int) -> io::Result<Option<Arc<AtomicBool>>> {
    let known = signal_hook::low_level::signal_name(signal).is_some();
    if !known || !is_default(signal) {
        return Ok(None);
    }
    let in_force = Arc::new(AtomicBool::new(true));
    signal_hook::flag::register_conditional_default(signal, in_force.clone())?;
    Ok(Some(in_force))
}
