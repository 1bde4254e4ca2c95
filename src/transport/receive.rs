//! From a socket into an inbox, on either side.

use std::io;
use std::os::fd::AsFd;

use rustix::buffer::spare_capacity;
use rustix::net::{RecvFlags, recv};

use super::frame::{Inbox, ROOM};
use crate::sys::socket::{Arrived, receive_onto};

/// Receives what fits once, with the descriptors that came along. Gives the number of bytes; 0 is the end.
pub(crate) fn receive(socket: impl AsFd, inbox: &mut Inbox, flags: RecvFlags) -> io::Result<usize> {
    if !inbox.is_empty() {
        // Descriptors come beside a frame's first byte. What is received there ends with the message that brought them, so
        // the rest of a frame brings none, unless a frame with some follows one that was cut in two; and none does.
        let (bytes, _) = recv(socket, spare_capacity(inbox.buffer()), flags)?;
        return Ok(bytes);
    }
    let mut fds = Vec::new();
    let Arrived { bytes, lost } = receive_onto(socket, inbox.buffer(), ROOM, &mut fds, flags)?;
    inbox.arrived(fds, lost);
    Ok(bytes)
}
