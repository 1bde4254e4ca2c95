//! The default action of a signal, switched off while some part of the program wants the signal.
//!
//! signal-hook installs one handler for each signal and never removes it, and between installing
//! the handler and storing the first action it loses signals. So this file installs a handler of
//! its own first, which signal-hook then calls before its actions. It replaces the default action
//! in one step of the kernel, and acts it out unless the signal is claimed: by a [`Claim`], or, for
//! SIGINT, by the [runs](super::ctrl_c). A signal that arrives at any moment either belongs to a
//! claim or has its default action.
//!
//! A part of the program that receives a signal
//!
//! 1. [takes it over](take_over), which changes nothing that can be observed;
//! 2. registers its actions with signal-hook;
//! 3. claims it, and from then on the default action is off.
//!
//! It gives the signal back in the reverse order. signal-hook's `register` and `unregister` wait
//! for handlers that are running, so after `unregister` its actions have seen every signal that
//! arrived under the claim.
//!
//! A signal that was ignored stays ignored, and a handler that was installed earlier is still
//! called, before all others; signal-hook takes care of both.
//!
//! `unsafe` is needed for libc's calls: rustix leaves the state of signals to the C library, which
//! owns it.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use libc::c_int;

use super::ctrl_c;
use super::ctrl_c::{Arrival, RUNS};
use super::fork_detector::is_forked_copy;
use super::tuning::ENDS_TRIED;

/// One more than the highest number of a signal on Linux.
const SIGNALS: usize = 65;

/// The number of claims of each signal.
static CLAIMS: [AtomicUsize; SIGNALS] = [const { AtomicUsize::new(0) }; SIGNALS];

/// The signals that were ever taken over, with whether this file acts out their default action.
static TAKEN_OVER: Mutex<BTreeMap<c_int, bool>> = Mutex::new(BTreeMap::new());

/// A signal that is ready to be claimed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimable {
    signal: c_int,
    /// False if the program ignores or handles the signal, so there is no default action to switch
    /// off.
    has_default: bool,
}

/// Installs the handler that acts out the default action, if that is the signal's disposition.
///
/// # Errors
///
/// Fails if the kernel or the C library refuses a handler for this signal.
pub(crate) fn take_over(signal: c_int) -> io::Result<Claimable> {
    let mut taken_over = TAKEN_OVER.lock().unwrap_or_else(PoisonError::into_inner);
    let has_default = match taken_over.get(&signal) {
        Some(known) => *known,
        None => {
            let new = is_default(signal)? && install(signal)?;
            taken_over.insert(signal, new);
            new
        }
    };
    Ok(Claimable {
        signal,
        has_default,
    })
}

impl Claimable {
    /// Returns whether the signal has a default action that a claim switches off.
    pub(crate) fn has_default(self) -> bool {
        self.has_default
    }

    /// Switches the default action off until the claim ends.
    pub(crate) fn claim(self) -> Claim {
        claims_of(self.signal).fetch_add(1, Ordering::SeqCst);
        Claim(self)
    }
}

/// Switches the default action of a signal off while it exists.
#[derive(Debug)]
pub(crate) struct Claim(Claimable);

impl Claim {
    /// Gives the claim back. Returns whether the default action is on again.
    pub(crate) fn release(self) -> bool {
        std::mem::ManuallyDrop::new(self).end()
    }

    fn end(&self) -> bool {
        let before = claims_of(self.0.signal).fetch_sub(1, Ordering::SeqCst);
        before == 1 && self.0.has_default
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.end();
    }
}

fn claims_of(signal: c_int) -> &'static AtomicUsize {
    let index = usize::try_from(signal).expect("only a signal of the kernel can be taken over");
    &CLAIMS[index]
}

/// The handler of all signals that were taken over. It uses atomics and system calls only.
extern "C" fn on_signal(signal: c_int) {
    // A forked copy has inherited the claims, but not the threads of those that claim.
    if is_forked_copy() {
        return act_out_default(signal);
    }
    if signal == libc::SIGINT {
        match RUNS.arrive() {
            Arrival::First => return ctrl_c::wake_runs(),
            Arrival::Again => return act_out_default(signal),
            Arrival::Unwatched => {}
        }
    }
    let index = usize::try_from(signal).unwrap_or(0);
    if CLAIMS
        .get(index)
        .is_some_and(|claims| claims.load(Ordering::SeqCst) == 0)
    {
        act_out_default(signal);
    }
}

/// The action of the kernel if a signal has its default disposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DefaultAction {
    Ignore,
    Stop,
    End,
}

fn default_action(signal: c_int) -> DefaultAction {
    match signal {
        libc::SIGCHLD | libc::SIGCONT | libc::SIGURG | libc::SIGWINCH => DefaultAction::Ignore,
        libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => DefaultAction::Stop,
        _ => DefaultAction::End,
    }
}

/// Returns whether this signal would end or stop this process, because it has its default action.
pub(super) fn is_deadly(signal: c_int) -> bool {
    default_action(signal) != DefaultAction::Ignore && is_default(signal).unwrap_or(false)
}

/// Does to this process what the kernel does by default when this signal arrives.
/// Async-signal-safe.
fn act_out_default(signal: c_int) {
    match default_action(signal) {
        DefaultAction::Ignore => {}
        DefaultAction::Stop => stop_by(signal),
        DefaultAction::End => end_by(signal),
    }
}

/// Ends this process by a signal that does so by default. Async-signal-safe.
///
/// The kernel does not end a process by a default action that is number 1 of its namespace, as in
/// many containers. Such a process exits with 128 plus the signal's number, as shells report it.
pub(crate) fn end_by(signal: c_int) -> ! {
    for _ in 0..ENDS_TRIED {
        // If that fails, the process exits below.
        _ = replace_action(signal, &default_disposition());
        unblock(signal);
        raise_here(signal);
        // Unless this is process 1, another thread has installed a handler just before, for a
        // receiver that it opens.
        if is_default(signal).unwrap_or(true) {
            break;
        }
    }
    // SAFETY: `_exit` may be called at any moment, also in a signal handler.
    unsafe { libc::_exit(128 + signal) }
}

/// Stops this process by a signal that does so by default, until it is continued.
fn stop_by(signal: c_int) {
    // While the default disposition is installed, more signals of this kind have their default
    // action as well.
    let handler = replace_action(signal, &default_disposition());
    let mask = unblock(signal);
    raise_here(signal);
    set_mask(&mask);
    // If another thread was in here first, that one puts the handler back.
    if let Ok(handler) = handler
        && handler.sa_sigaction != libc::SIG_DFL
    {
        // An error is impossible: this was the action a moment ago.
        _ = replace_action(signal, &handler);
    }
}

/// Sends the signal to this thread.
fn raise_here(signal: c_int) {
    let thread = rustix::thread::gettid().as_raw_nonzero().get();
    // SAFETY: the call takes three numbers. Not `raise`: musl's uses a thread id from memory, which
    // is wrong in a forked worker.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) };
}

/// Unblocks a signal on this thread, and returns the mask of before.
fn unblock(signal: c_int) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises `set`, and `pthread_sigmask` initialises `before`. Neither
    // fails for a valid operation, and the number is that of a signal which was taken over.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), before.as_mut_ptr());
        before.assume_init()
    }
}

fn set_mask(mask: &libc::sigset_t) {
    // SAFETY: the mask is initialised; the null pointer means that the old one is not requested.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, ptr::null_mut()) };
}

fn default_disposition() -> libc::sigaction {
    // SAFETY: all fields are numbers, an optional pointer or an array of numbers, so zeroes are a
    // value: the default disposition with an empty mask.
    unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() }
}

/// Sets the action of a signal, and returns the one of before.
fn replace_action(signal: c_int, new: &libc::sigaction) -> io::Result<libc::sigaction> {
    let mut old = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: `new` is an initialised structure whose handler is the default, the one of before, or
    // `on_signal`, which has the required type and is async-signal-safe; `old` has room for one.
    match unsafe { libc::sigaction(signal, new, old.as_mut_ptr()) } {
        // SAFETY: `sigaction` has succeeded, so it has filled in the structure.
        0 => Ok(unsafe { old.assume_init() }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Installs `on_signal` in place of the default disposition. Returns false if another thread has
/// installed a handler in the meantime, which stays.
fn install(signal: c_int) -> io::Result<bool> {
    let mut new = default_disposition();
    new.sa_sigaction = on_signal as extern "C" fn(c_int) as usize;
    new.sa_flags = libc::SA_RESTART;
    let before = replace_action(signal, &new)?;
    let was_default = before.sa_sigaction == libc::SIG_DFL;
    if !was_default {
        replace_action(signal, &before)?;
    }
    Ok(was_default)
}

/// Returns whether this signal has its default disposition.
fn is_default(signal: c_int) -> io::Result<bool> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: with a null pointer for the new action nothing changes, and `action` has room for the
    // old one.
    match unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } {
        // SAFETY: `sigaction` has succeeded, so it has filled in the structure.
        0 => Ok(unsafe { action.assume_init() }.sa_sigaction == libc::SIG_DFL),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sys::ctrl_c::{RunEnd, RunWatch};

    /// A process in which a run begins and ends, a receiver opens and closes, and SIGINT arrives.
    /// Each party is a program counter; each step is one atomic operation of the real code.
    #[derive(Default)]
    struct Process {
        runs: RunWatch,
        claims: usize,
        /// The receiver's actions are in signal-hook's table.
        registered: bool,
        /// The receiver has seen the signal.
        flag: bool,
        /// The handler, when it began, found the receiver's actions.
        seen: bool,
        default_is_on: bool,
        died: bool,
        at: [usize; 3],
    }

    const RUN: usize = 0;
    const RECEIVER: usize = 1;
    const HANDLER: usize = 2;
    const STEPS: [usize; 3] = [2, 7, 4];

    impl Process {
        /// Whether the next step of a party need not wait: signal-hook waits for running handlers.
        fn can_step(&self, party: usize) -> bool {
            let is_barrier = party == RECEIVER && matches!(self.at[party], 1 | 5);
            let handler_runs = (1..STEPS[HANDLER]).contains(&self.at[HANDLER]);
            self.at[party] < STEPS[party] && !(is_barrier && handler_runs)
        }

        fn step(&mut self, party: usize) {
            match (party, self.at[party]) {
                (RUN, 0) => self.runs.begin(),
                (RUN, _) => self.died |= self.runs.end() == RunEnd::Last,
                (RECEIVER, 0) => self.registered = true,
                (RECEIVER, 2) => self.claims += 1,
                (RECEIVER, 3) => {
                    self.claims -= 1;
                    self.default_is_on = self.claims == 0;
                }
                (RECEIVER, 4) => self.registered = false,
                (RECEIVER, 6) if self.default_is_on && self.flag => self.handle(false),
                (RECEIVER, _) => {}
                (HANDLER, 0) => self.seen = self.registered,
                (HANDLER, 1) => match self.runs.arrive() {
                    // The rest of the handler runs anyway: the receiver's actions are called.
                    Arrival::First => self.at[HANDLER] += 1,
                    Arrival::Again => self.died = true,
                    Arrival::Unwatched => {}
                },
                (HANDLER, 2) => self.died |= self.claims == 0,
                (HANDLER, _) => self.flag |= self.seen,
                _ => unreachable!(),
            }
            self.at[party] += 1;
        }

        /// Handles a signal that the receiver raises again, in one go.
        fn handle(&mut self, seen: bool) {
            match self.runs.arrive() {
                Arrival::First => {}
                Arrival::Again => self.died = true,
                Arrival::Unwatched => self.died |= self.claims == 0,
            }
            self.flag |= seen;
        }
    }

    /// Calls `check` with the process after each possible interleaving, each in a new process.
    fn in_every_order(check: impl Fn(&Process, &[usize])) -> usize {
        let (mut orders, mut pending) = (0, vec![Vec::new()]);
        while let Some(order) = pending.pop() {
            let mut process = Process::default();
            order.iter().for_each(|&party| process.step(party));
            if process.died {
                orders += 1;
                continue;
            }
            let next: Vec<_> = (0..3).filter(|&party| process.can_step(party)).collect();
            if next.is_empty() {
                assert!(
                    (0..3).all(|party| process.at[party] >= STEPS[party]),
                    "{order:?}"
                );
                check(&process, &order);
                orders += 1;
            }
            for party in next {
                pending.push([&order[..], &[party]].concat());
            }
        }
        orders
    }

    #[test]
    fn a_signal_between_any_two_steps_of_a_run_and_a_receiver_kills_in_the_end() {
        // Nothing takes the signal from the receiver, so there is no order in which it has no
        // effect.
        let orders = in_every_order(|_, order| panic!("swallowed: {order:?}"));
        assert!(orders > 1000, "{orders}");
    }

    #[test]
    fn the_second_signal_and_signals_without_a_run_are_told_apart() {
        let runs = RunWatch::default();
        assert_eq!(runs.arrive(), Arrival::Unwatched);
        runs.begin();
        runs.begin();
        assert_eq!(
            (runs.arrive(), runs.arrive()),
            (Arrival::First, Arrival::Again)
        );
        runs.begin();
        assert!(runs.is_interrupted());
        assert_eq!(
            (runs.end(), runs.end()),
            (RunEnd::OthersLeft, RunEnd::OthersLeft)
        );
        assert_eq!(runs.end(), RunEnd::Last);
        assert_eq!(runs.arrive(), Arrival::Again, "the process is about to end");
    }

    #[test]
    fn a_claim_switches_the_default_action_off_until_the_last_one_is_released() {
        let signal = take_over(libc::SIGUSR2).unwrap();
        assert!(signal.has_default());
        let (first, second) = (signal.claim(), signal.claim());
        raise_here(libc::SIGUSR2);
        assert!(!first.release());
        assert!(second.release());
        // Ignored by default, so it may be raised without a claim.
        take_over(libc::SIGWINCH).unwrap();
        raise_here(libc::SIGWINCH);
        for number in [0, -1, 65, libc::SIGKILL] {
            assert!(take_over(number).is_err(), "{number}");
        }
    }
}
