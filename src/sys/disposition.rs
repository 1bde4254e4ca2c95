//! What a signal does by default, taken out of force as long as somebody wants the signal, and put in force again.
//!
//! signal-hook installs one handler per signal and never takes it out: without any action of ours, a signal that ended
//! the process before would from then on do nothing. So the first who wants a signal that had its default disposition
//! also installs, for good, an action that does what the system would have done, if a flag says so. The flag is set
//! while nobody has a [`Claim`].
//!
//! A signal that was ignored stays ignored, and a handler that was there before signal-hook goes on being called,
//! before all others: signal-hook sees to both, whether or not anybody has a claim.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libc::c_int;

use super::signal::is_default;

/// What is known of the signals that were ever claimed.
static SIGNALS: Mutex<BTreeMap<c_int, Entry>> = Mutex::new(BTreeMap::new());

struct Entry {
    /// Whether the signal does what it does by default. `None` if that was not its disposition when it was first
    /// claimed, or if signal-hook does not know what it does (real-time signals).
    in_force: Option<Arc<AtomicBool>>,
    claims: usize,
}

fn signals() -> MutexGuard<'static, BTreeMap<c_int, Entry>> {
    SIGNALS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While there is one, the signal does not do what it does by default.
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

    /// The flag that says whether the signal does what it does by default, if that is for us to say. May be set, by a
    /// signal's action for instance, to put the default in force in spite of claims.
    pub(crate) fn in_force(&self) -> Option<Arc<AtomicBool>> {
        signals().get(&self.signal)?.in_force.clone()
    }

    /// Gives the claim back; true if by that the default is in force again.
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

/// Installs the action that stands in for the default, in force for the moment.
fn take_over(signal: c_int) -> io::Result<Option<Arc<AtomicBool>>> {
    let known = signal_hook::low_level::signal_name(signal).is_some();
    if !known || !is_default(signal) {
        return Ok(None);
    }
    let in_force = Arc::new(AtomicBool::new(true));
    signal_hook::flag::register_conditional_default(signal, in_force.clone())?;
    Ok(Some(in_force))
}
