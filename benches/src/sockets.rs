//! A limit of a warm call: a child process at the other end of a socket pair, with no library in
//! between.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use smol::{Async, io::AsyncReadExt, io::AsyncWriteExt};

use crate::child;

/// A child that blocks in `read`, and a stream to it.
pub struct SocketPair {
    child: std::process::Child,
    /// Closed before the child is waited for, because the child ends when its stream closes.
    stream: Option<UnixStream>,
}

impl SocketPair {
    pub fn start(core: Option<usize>) -> SocketPair {
        let (child, stream) = child::start_echo(core);
        let stream = Some(stream);
        SocketPair { child, stream }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn stream(&self) -> &UnixStream {
        self.stream.as_ref().expect("open until dropped")
    }

    /// Calls the child, and blocks this thread.
    pub fn call(&self, number: u64) -> u64 {
        let mut stream = self.stream();
        let written = stream.write_all(&number.to_ne_bytes());
        written.expect("the child reads");
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).expect("the child answers");
        u64::from_ne_bytes(answer)
    }

    /// Returns the stream for an executor. From then on it is non-blocking.
    pub fn to_async(&self) -> Async<UnixStream> {
        let stream = self.stream().try_clone().expect("a descriptor");
        Async::new(stream).expect("a socket has readiness")
    }
}

impl Drop for SocketPair {
    fn drop(&mut self) {
        self.stream = None;
        self.child.wait().expect("our own child");
    }
}

/// Calls the child over a stream from [`SocketPair::to_async`].
pub async fn socket_call(mut stream: &Async<UnixStream>, number: u64) -> u64 {
    let written = stream.write_all(&number.to_ne_bytes()).await;
    written.expect("the child reads");
    let mut answer = [0; 8];
    let read = stream.read_exact(&mut answer).await;
    read.expect("the child answers");
    u64::from_ne_bytes(answer)
}
