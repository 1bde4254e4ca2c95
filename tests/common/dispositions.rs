//! The signal dispositions that tests rely on, whatever started the test program.

#![allow(dead_code)] // each test program uses its own part of this

use std::sync::Once;

/// Gives each signal that this process inherited as ignored its default action, at the first call.
///
/// A background job of a shell script inherits SIGINT and SIGQUIT as ignored, `nohup` adds SIGHUP,
/// and Python's children may inherit SIGXFSZ; what this process starts inherits them in turn.
/// SIGPIPE stays ignored, as in every Rust program.
pub fn reset() {
    static RESET: Once = Once::new();
    RESET.call_once(|| {
        // Real-time signals are ignored by nothing that starts test programs.
        let signals = (1..32)
            .filter(|signal| ![libc::SIGKILL, libc::SIGSTOP, libc::SIGPIPE].contains(signal));
        signals
            .filter(|&signal| is_ignored(signal))
            .for_each(set_default);
    });
}

fn is_ignored(signal: i32) -> bool {
    let mut current = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a null pointer for the new action is allowed and changes nothing. The call writes the
    // current action to `current`, which has room for it, if it succeeds, and it does for all these
    // signals.
    let current = unsafe {
        assert_eq!(
            libc::sigaction(signal, std::ptr::null(), current.as_mut_ptr()),
            0
        );
        current.assume_init()
    };
    current.sa_sigaction == libc::SIG_IGN
}

fn set_default(signal: i32) {
    // SAFETY: the default action installs no code of this program.
    let before = unsafe { libc::signal(signal, libc::SIG_DFL) };
    assert_ne!(before, libc::SIG_ERR, "signal {signal}");
}
