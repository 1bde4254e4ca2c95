//! Whether this process is a copy: whether the program has forked itself after it had something that a copy cannot use.
//!
//! A fork leaves the copy with one thread, and with descriptors that are one with those of the original: with the reactor's
//! registrations, and with the ends of sockets at whose other ends one process listens. What the copy did with them would
//! happen to the original. So it is to find out that it is one, before it does anything; the C library tells it.
//!
//! `unsafe` is needed to ask the C library for that. The fork server's forks are not told of, as they are system calls
//! of our own: the workers that come of them are no copies in this sense.
#![allow(unsafe_code)]

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

static IS_COPY: AtomicBool = AtomicBool::new(false);

/// Says that from now on a copy of this process would be one. Costs nothing the second time.
pub(crate) fn from_now_on() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler may be called in the copy at any moment after a fork, as it only stores to an atomic that is
        // initialised; and the program's image, in which it lies, is never unmapped.
        let error = unsafe { libc::pthread_atfork(None, None, Some(in_the_copy)) };
        // Out of memory: then copies go unnoticed, as they did before there was such a call.
        debug_assert_eq!(error, 0);
    });
}

/// Whether this process is a copy. A relaxed load, because the one thread that comes out of a fork has stored it itself.
pub(crate) fn is_copy() -> bool {
    IS_COPY.load(Ordering::Relaxed)
}

extern "C" fn in_the_copy() {
    IS_COPY.store(true, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_knows_that_it_is_one_and_the_original_that_it_is_not() {
        from_now_on();
        from_now_on();
        // SAFETY: the copy calls nothing but what may be called in a signal handler.
        let copy = unsafe { libc::fork() };
        if copy == 0 {
            let code = i32::from(is_copy());
            // SAFETY: `_exit` may be called at any moment.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: writes to `status`.
        let reaped = unsafe { libc::waitpid(copy, &raw mut status, 0) };
        assert_eq!(reaped, copy);
        assert_eq!(libc::WEXITSTATUS(status), 1);
        assert!(!is_copy());
    }
}
