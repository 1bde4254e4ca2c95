//! The first bytes of an HTTP/2 connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use smol::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// The bytes that every client of HTTP/2 sends first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Waits until the client has said that it speaks HTTP/2.
///
/// hyper has no time limit for this, and its keep-alive begins after it, so a silent client would
/// keep its connection. The caller sets a limit.
///
/// # Errors
///
/// If the client has left, or has sent something else.
pub async fn read_preface<S: AsyncRead + Unpin>(mut stream: S) -> io::Result<Replayed<S>> {
    let mut bytes = [0; PREFACE.len()];
    stream.read_exact(&mut bytes).await?;
    if bytes != *PREFACE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Replayed {
        to_replay: PREFACE,
        stream,
    })
}

/// A stream whose preface is read again, by hyper.
pub struct Replayed<S> {
    to_replay: &'static [u8],
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Replayed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.to_replay.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        Poll::Ready(io::Read::read(&mut self.to_replay, buffer))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replayed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
