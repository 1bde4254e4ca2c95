//! The wait for a token of a [`TokenPool`]: what the futures of a limiter and of a semaphore share.

use std::fmt;
use std::mem;
use std::task::Waker;

use super::token_pool::TokenPool;
use super::wait_list::WaiterKey;

/// A handle on a primitive whose tokens are in a pool.
pub(super) trait TokenHandle {
    /// The message of the panic when a future is polled after it had returned its token.
    const POLLED_AFTER_END: &'static str;

    fn tokens(&self) -> &TokenPool;
}

/// A future's way to a token. Dropping it leaves the queue, and passes on a token that was already
/// granted.
pub(super) struct Acquiring<H: TokenHandle> {
    state: State<H>,
}

enum State<H> {
    /// Not polled yet, so not in the queue.
    New(H),
    /// In the queue, or granted a token and not polled since.
    Queued(H, WaiterKey),
    /// The token was returned.
    Done,
}

impl<H: TokenHandle> Acquiring<H> {
    pub(super) fn new(handle: H) -> Self {
        Acquiring {
            state: State::New(handle),
        }
    }

    /// Takes a token, and returns the handle that it belongs to. Otherwise the future is in the
    /// queue, and `waker` is the one to wake.
    #[inline]
    pub(super) fn poll(&mut self, waker: &Waker) -> Option<H> {
        self.advance(waker).then(|| self.finish())
    }

    /// Whether a token was taken for [`finish`](Self::finish); if not, the state is `Queued` now.
    #[inline]
    fn advance(&mut self, waker: &Waker) -> bool {
        let handle = match &self.state {
            State::New(handle) => handle,
            State::Queued(handle, key) => {
                return handle.tokens().poll_granted(key, waker).is_ready();
            }
            State::Done => panic!("{}", H::POLLED_AFTER_END),
        };
        // The common case first: no lock, and no clone of the waker.
        if handle.tokens().try_take() {
            return true;
        }
        let Some(key) = handle.tokens().arrive(waker) else {
            return true;
        };
        if let State::New(handle) = mem::replace(&mut self.state, State::Done) {
            self.state = State::Queued(handle, key);
        }
        false
    }

    /// Ends with the token that `advance` has taken.
    #[inline]
    fn finish(&mut self) -> H {
        match mem::replace(&mut self.state, State::Done) {
            State::New(handle) => handle,
            State::Queued(handle, key) => {
                handle.tokens().claim(key);
                handle
            }
            State::Done => unreachable!("`advance` found a token"),
        }
    }
}

impl<H: TokenHandle> Drop for Acquiring<H> {
    fn drop(&mut self) {
        if let State::Queued(..) = &self.state
            && let State::Queued(handle, key) = mem::replace(&mut self.state, State::Done)
        {
            let then = handle.tokens().lock_queue().give_up(key);
            then.run();
        }
    }
}

/// Shows the state only.
impl<H: TokenHandle> fmt::Debug for Acquiring<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::New(_) => "not polled yet",
            State::Queued(..) => "queued",
            State::Done => "done",
        };
        fmt::Debug::fmt(state, f)
    }
}
