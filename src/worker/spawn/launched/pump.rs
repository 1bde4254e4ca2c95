//! Moves frames between a socket and a stream of packets: the same code in a relay, whose socket
//! leads to the worker's connection, and in a guardian, whose socket leads to the worker.
//!
//! Everything half-done lives in the [`Pump`] and nothing in a future, so a future that polls it
//! may be dropped at any point. Each poll tries the descriptors itself, as a connection does.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_io::Async;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, send, shutdown};

use crate::transport::endpoint::Endpoint;
use crate::transport::frame;
use crate::transport::frame::{Header, Kind};
use crate::transport::out_message::OutMessage;
use crate::transport::relay::bundle::{Bundle, NotCopyable, Unbundler};
use crate::transport::relay::greeting::GreetingFinder;
use crate::transport::relay::packet::{Control, MalformedPacket, Outbox, Packet, PacketReader};
use crate::transport::tuning::RELAY_WINDOW;
use crate::worker::conn::mailbox::ParentSide;
use crate::worker::tuning::{RELAY_ROUNDS_PER_POLL, STREAM_READ_BYTES};

/// The two directions of a stream, which may be the same socket.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) input: Arc<Async<OwnedFd>>,
    pub(super) output: Arc<Async<OwnedFd>>,
}

/// Moves frames between a socket and a stream of packets.
#[derive(Debug)]
pub(super) struct Pump {
    stream: Stream,
    /// Present until the greeting has been found, on the side that waits for one.
    greeting: Option<GreetingFinder>,
    reader: PacketReader,
    pub(super) outbox: Outbox,
    is_stream_closed: bool,
    socket: Option<Socket>,
    buffer: Box<[u8]>,
    arrived: Arrived,
    /// Bytes taken out of `arrived` for which the peer has not been told that there is room again.
    uncredited: usize,
    has_peer_hung_up: bool,
    /// The control packets that have been returned since nothing could be moved.
    controls_in_a_row: u32,
}

/// The data that has arrived and is no part of a message yet.
#[derive(Debug, Default)]
struct Arrived {
    pieces: VecDeque<Vec<u8>>,
    /// How much of the first piece has been taken.
    taken: usize,
    length: usize,
}

impl Arrived {
    fn push(&mut self, piece: Vec<u8>) {
        self.length += piece.len();
        self.pieces.push_back(piece);
    }

    /// Returns the next bytes, none if there are none.
    fn next(&self) -> &[u8] {
        self.pieces
            .front()
            .map_or(&[], |piece| &piece[self.taken..])
    }

    /// Takes some of the [next](Self::next) bytes.
    fn advance(&mut self, taken: usize) {
        self.taken += taken;
        self.length -= taken;
        if self
            .pieces
            .front()
            .is_some_and(|piece| piece.len() == self.taken)
        {
            self.pieces.pop_front();
            self.taken = 0;
        }
    }
}

/// The socket, and the messages that are half through it.
#[derive(Debug)]
struct Socket {
    endpoint: Endpoint<ParentSide>,
    unbundler: Unbundler,
    /// The message that is being sent, and how many of its bytes have been.
    sending: Option<(OutMessage, usize)>,
    /// The reader is gone, so what arrives for it is discarded.
    is_deaf: bool,
    is_write_closed: bool,
    /// The message that has been received and is being put into packets.
    bundle: Option<Bundle>,
    has_ended: bool,
}

/// The stream has come to its end, has failed, or has brought something else than packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamClosed;

impl From<MalformedPacket> for StreamClosed {
    fn from(MalformedPacket: MalformedPacket) -> Self {
        Self
    }
}

impl Pump {
    /// A pump of a guardian: it sends the greeting itself.
    pub(super) fn of_guardian(stream: Stream) -> Self {
        Self {
            stream,
            greeting: None,
            reader: PacketReader::default(),
            outbox: Outbox::new(),
            is_stream_closed: false,
            socket: None,
            buffer: vec![0; STREAM_READ_BYTES].into(),
            arrived: Arrived::default(),
            uncredited: 0,
            has_peer_hung_up: false,
            controls_in_a_row: 0,
        }
    }

    /// A pump of a relay: packets follow the greeting.
    pub(super) fn of_relay(stream: Stream) -> Self {
        Self {
            greeting: Some(GreetingFinder::default()),
            ..Self::of_guardian(stream)
        }
    }

    /// Sets the socket, once.
    pub(super) fn set_socket(&mut self, socket: Async<OwnedFd>) {
        self.socket = Some(Socket {
            endpoint: Endpoint::new(socket),
            unbundler: Unbundler::new(),
            sending: None,
            is_deaf: false,
            is_write_closed: false,
            bundle: None,
            has_ended: false,
        });
    }

    /// Returns what has arrived in place of a greeting.
    pub(super) fn noise(&self) -> String {
        self.greeting
            .as_ref()
            .map(GreetingFinder::noise)
            .unwrap_or_default()
    }

    /// Moves what can be moved. Returns a control packet that has arrived, in its order among the
    /// data, or that none will come any more.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Control, StreamClosed>> {
        // A peer that sends them without a pause must not keep others waiting.
        if self.controls_in_a_row == RELAY_ROUNDS_PER_POLL {
            self.controls_in_a_row = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match self.try_poll(cx) {
            Err(StreamClosed) => {
                self.is_stream_closed = true;
                Poll::Ready(Err(StreamClosed))
            }
            Ok(Poll::Ready(control)) => {
                self.controls_in_a_row += 1;
                Poll::Ready(Ok(control))
            }
            Ok(Poll::Pending) => {
                self.controls_in_a_row = 0;
                Poll::Pending
            }
        }
    }

    fn try_poll(&mut self, cx: &mut Context<'_>) -> Result<Poll<Control>, StreamClosed> {
        for _ in 0..RELAY_ROUNDS_PER_POLL {
            while let Some(packet) = self.reader.take()? {
                match packet {
                    Packet::Data(_) if self.has_peer_hung_up => return Err(StreamClosed),
                    Packet::Data(data) if self.room() < data.len() => return Err(StreamClosed),
                    Packet::Data(data) => self.arrived.push(data),
                    Packet::Credit(bytes) => self.outbox.add_credit(bytes)?,
                    Packet::Control(control) if *control == Control::HungUp => {
                        self.has_peer_hung_up = true;
                    }
                    // It sends packets that are answered, and reads no answer.
                    Packet::Control(_) if self.outbox.unwritten().len() > RELAY_WINDOW => {
                        return Err(StreamClosed);
                    }
                    Packet::Control(control) => return Ok(Poll::Ready(*control)),
                }
            }
            let mut goes_on = self.read(cx);
            goes_on |= self.deliver(cx)?;
            goes_on |= self.collect(cx);
            goes_on |= self.flush(cx);
            if !goes_on {
                return if self.is_stream_closed {
                    Err(StreamClosed)
                } else {
                    Ok(Poll::Pending)
                };
            }
        }
        cx.waker().wake_by_ref();
        Ok(Poll::Pending)
    }

    /// Returns how many bytes of data the peer may send.
    fn room(&self) -> usize {
        RELAY_WINDOW - self.arrived.length - self.uncredited
    }

    /// Reads from the stream. Returns whether anything has arrived.
    fn read(&mut self, cx: &mut Context<'_>) -> bool {
        while !self.is_stream_closed {
            match rustix::io::read(&*self.stream.input, &mut *self.buffer) {
                Ok(0) => self.is_stream_closed = true,
                Ok(length) => {
                    self.take_in(length);
                    return true;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => match self.stream.input.poll_readable(cx) {
                    Poll::Pending => return false,
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => self.is_stream_closed = true,
                },
                Err(_) => self.is_stream_closed = true,
            }
        }
        false
    }

    /// Takes the first bytes out of the buffer, this many.
    fn take_in(&mut self, length: usize) {
        let bytes = &self.buffer[..length];
        let Some(finder) = &mut self.greeting else {
            return self.reader.push(bytes);
        };
        match finder.push(bytes) {
            Ok(None) => {}
            Ok(Some(rest)) => {
                self.reader.push(rest);
                self.greeting = None;
            }
            Err(_) => self.is_stream_closed = true,
        }
    }

    /// Writes packets to the stream. Returns whether all were written, and there were some.
    fn flush(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_written = false;
        while !self.outbox.unwritten().is_empty() {
            match write(&self.stream.output, self.outbox.unwritten()) {
                Ok(length) => {
                    self.outbox.advance(length);
                    has_written = true;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => match self.stream.output.poll_writable(cx) {
                    Poll::Pending => return false,
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return false,
                },
                // The other direction may still bring what the peer said last.
                Err(_) => {
                    let length = self.outbox.unwritten().len();
                    self.outbox.advance(length);
                    return false;
                }
            }
        }
        has_written
    }

    /// Puts arrived data together and sends it through the socket. Returns whether there is room
    /// for more data than before.
    fn deliver(&mut self, cx: &mut Context<'_>) -> Result<bool, StreamClosed> {
        let Some(socket) = &mut self.socket else {
            return Ok(false);
        };
        loop {
            socket.send(cx);
            if socket.is_deaf {
                self.uncredited += std::mem::take(&mut self.arrived).length;
            }
            let mut next = self.arrived.next();
            if socket.sending.is_some() || next.is_empty() {
                break;
            }
            let length = next.len();
            let message = socket.unbundler.push(&mut next)?;
            let taken = length - next.len();
            self.arrived.advance(taken);
            self.uncredited += taken;
            socket.sending = message.map(|message| (message, 0));
        }
        if self.has_peer_hung_up && self.arrived.length == 0 && socket.sending.is_none() {
            socket.close_write();
        }
        if self.uncredited < RELAY_WINDOW / 4 {
            return Ok(false);
        }
        self.outbox.put_credit(self.uncredited);
        self.uncredited = 0;
        Ok(true)
    }

    /// Receives from the socket and puts frames into packets, as far as there is room. Returns
    /// whether there may be more to receive.
    fn collect(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(socket) = &mut self.socket else {
            return false;
        };
        loop {
            while let Some(bundle) = &mut socket.bundle {
                let room = self.outbox.room_for_data();
                if room == 0 {
                    return false;
                }
                if bundle.take(room, |data| self.outbox.put_data(data)) {
                    socket.bundle = None;
                }
            }
            if socket.has_ended {
                return false;
            }
            match socket.endpoint.take_received() {
                Ok(Some(frame)) => {
                    let refused = |NotCopyable(header)| Bundle::of_bytes(refusal(&header));
                    socket.bundle = Some(Bundle::of(frame).unwrap_or_else(refused));
                    continue;
                }
                Ok(None) => {}
                Err(_) => socket.end(&mut self.outbox),
            }
            match socket.endpoint.read(RecvFlags::DONTWAIT) {
                Ok(true) => return true,
                Ok(false) => match socket.endpoint.socket().poll_readable(cx) {
                    Poll::Pending => return false,
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => socket.end(&mut self.outbox),
                },
                Err(_) => socket.end(&mut self.outbox),
            }
        }
    }

    /// Puts the frames into packets that have arrived from a process which has ended. Returns
    /// whether all have been. (The socket may not come to its end: other processes may hold it.)
    pub(super) fn collect_rest(&mut self, cx: &mut Context<'_>) -> bool {
        while self.collect(cx) {}
        match &mut self.socket {
            Some(socket) if socket.bundle.is_none() => {
                // `collect` has found the socket empty.
                if !socket.has_ended {
                    socket.end(&mut self.outbox);
                }
                true
            }
            Some(_) => false,
            None => true,
        }
    }

    /// Delivers the rest of the data after the last control packet. Returns whether all of it has
    /// gone through the socket; then the socket is closed for writing.
    pub(super) fn deliver_rest(&mut self, cx: &mut Context<'_>) -> bool {
        self.has_peer_hung_up = true;
        // An incomplete message is discarded.
        self.deliver(cx).is_err()
            || self
                .socket
                .as_ref()
                .is_none_or(|socket| socket.is_write_closed)
    }

    /// Tells the peer that nothing more will be written.
    pub(super) fn close_stream(&self) {
        // An error means that it is closed already, or no socket.
        let _ = shutdown(&*self.stream.output, Shutdown::Write);
    }
}

impl Socket {
    /// Sends as much of the current message as the socket takes.
    fn send(&mut self, cx: &mut Context<'_>) {
        while let Some((message, sent)) = &mut self.sending {
            if self.is_deaf || *sent == message.bytes().len() {
                self.sending = None;
                return;
            }
            match self.endpoint.send_some(message, *sent, SendFlags::DONTWAIT) {
                Ok(length) => *sent += length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => match self.endpoint.socket().poll_writable(cx) {
                    Poll::Pending => return,
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => self.is_deaf = true,
                },
                Err(_) => self.is_deaf = true,
            }
        }
    }

    fn close_write(&mut self) {
        if !self.is_write_closed {
            self.is_write_closed = true;
            // An error means that the reader is gone.
            let _ = shutdown(self.endpoint.socket(), Shutdown::Write);
        }
    }

    /// Notes that no more frames will come.
    fn end(&mut self, outbox: &mut Outbox) {
        if !std::mem::replace(&mut self.has_ended, true) {
            outbox.put_control(&Control::HungUp);
        }
    }
}

/// Returns the frame that takes the place of one that brings a descriptor.
fn refusal(header: &Header) -> Vec<u8> {
    let text = "it holds a file, a socket or a side of a channel (a `Descriptor`), which cannot leave the machine of \
                a worker that a launcher has started: return what it contains, or its path";
    let mut frame = frame::of_bytes(Kind::BadResult, 0, text.as_bytes());
    frame::mark(&mut frame, header.call);
    frame
}

/// Writes to a socket or to another file. If the reader of a socket is gone, no signal is raised.
fn write(output: &Async<OwnedFd>, bytes: &[u8]) -> rustix::io::Result<usize> {
    match send(output, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
        Err(Errno::NOTSOCK) => rustix::io::write(output, bytes),
        sent => sent,
    }
}

/// Registers descriptors of a stream with the reactor.
pub(super) fn stream(input: OwnedFd, output: OwnedFd) -> io::Result<Stream> {
    Ok(Stream {
        input: Arc::new(Async::new(input)?),
        output: Arc::new(Async::new(output)?),
    })
}
