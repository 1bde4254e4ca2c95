//! A stream whose other side must take each answer within a time limit.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use seedbed::sleep;
use seedbed::time::Sleep;
use smol::io::{AsyncRead, AsyncWrite};

/// A stream whose writes fail if the other side takes too long.
///
/// The time begins when a write has to wait, and ends with the next flush, which hyper does when it
/// has nothing more to write. So the limit is one for a whole answer, and a client that takes a
/// byte from time to time does not extend it.
pub struct Timed<S> {
    stream: S,
    limit: Duration,
    too_late: Option<Sleep>,
}

impl<S> Timed<S> {
    pub fn new(stream: S, limit: Duration) -> Self {
        Self {
            stream,
            limit,
            too_late: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Poll::Ready(written) = Pin::new(&mut this.stream).poll_write(cx, bytes) {
            return Poll::Ready(written);
        }
        let too_late = this.too_late.get_or_insert_with(|| sleep(this.limit));
        ready!(Pin::new(too_late).poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.too_late = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use seedbed::testing::{MockClock, wait_all_tasks_blocked};
    use seedbed::{Nursery, RunBuilder, open_nursery};
    use smol::io::{AsyncWriteExt, Cursor};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Takes one byte of each write, after a pause that the clock has to make.
    struct OneByOne {
        pause: Option<Sleep>,
    }

    impl AsyncWrite for OneByOne {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            ready!(Pin::new(self.pause.get_or_insert_with(|| sleep(SECOND))).poll(cx));
            self.pause = None;
            Poll::Ready(Ok(1))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn the_limit_is_one_for_all_bytes_up_to_a_flush() {
        let clock = MockClock::autojump();
        RunBuilder::new().clock(clock.clone()).run(async {
            let limit = SECOND * 5 / 2;
            let mut stream = Timed::new(OneByOne { pause: None }, limit);
            for _ in 0..3 {
                stream.write_all(b"ab").await.unwrap();
                stream.flush().await.unwrap();
            }
            let written = stream.write_all(b"abc").await;
            assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        });
        assert_eq!(clock.elapsed(), 6 * SECOND + SECOND * 5 / 2);
    }

    #[test]
    fn a_stream_that_writes_at_once_has_all_the_time() {
        let clock = MockClock::new();
        let run = RunBuilder::new().clock(clock.clone());
        run.run(open_nursery(async |n: Nursery<'_>| {
            let writing = n.spawn(async {
                let mut stream = Timed::new(Cursor::new(Vec::new()), SECOND);
                stream.write_all(b"one").await.unwrap();
                sleep(2 * SECOND).await;
                stream.write_all(b" two").await.unwrap();
                stream.stream.into_inner()
            });
            wait_all_tasks_blocked().await;
            clock.jump(2 * SECOND);
            assert_eq!(writing.await, b"one two");
        }));
    }
}
