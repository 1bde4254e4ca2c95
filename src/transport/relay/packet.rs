//! Packets between a relay and a guardian: a kind, a length, and that many bytes. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::codec;
use super::super::job::image::Fingerprint;
use super::super::tuning::{PACKET_DATA_BYTES, RELAY_WINDOW};
use crate::sys::process::Ended;

/// The length of a packet's head: its kind, and the length of the rest in little-endian order.
const HEAD: usize = 5;

const DATA: u8 = 0;
const CREDIT: u8 = 1;
const CONTROL: u8 = 2;

/// The longest control packet: a *start* with many environment variables.
const MAX_CONTROL: usize = 4 << 20;

/// A packet that has arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    /// A part of the frames; see [`bundle`](super::bundle).
    Data(Vec<u8>),
    /// The peer has room for this many bytes of data more.
    Credit(usize),
    Control(Box<Control>),
}

/// Everything but data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Control {
    /// From the guardian: it has reached the hook.
    Hello(Hello),
    /// To the guardian: it is to start the worker.
    Start(Start),
    /// From the guardian: the process id of the worker.
    Started(u32),
    /// From the guardian: why it has no worker.
    NotStarted(String),
    /// From the guardian: it asks for the renewal of its lease with this number.
    Renew(u64),
    /// To the guardian: the renewal is granted.
    Renewed(u64),
    /// To the guardian: it is to kill the worker.
    Kill,
    /// From either side: its socket has come to its end, and so has the data.
    HungUp,
    /// From the guardian: the worker has ended, and no data follows.
    Ended(WorkerEnd),
}

/// The first message of a guardian, about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) image: Fingerprint,
    /// A hash of the contents of the image, if it has no build identifier.
    pub(crate) contents: Option<u64>,
    /// The path of the image.
    pub(crate) path: String,
    pub(crate) host: String,
    /// The job and the step in which an engine has started it.
    pub(crate) step: Option<String>,
}

/// How a guardian is to start its worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Start {
    /// The term of its lease.
    pub(crate) term: Duration,
    /// The worker's descendants end with it.
    pub(crate) kills_tree: bool,
    /// Changes to the environment.
    pub(crate) environment: Vec<EnvironmentChange>,
}

/// A change to the environment of a worker, with names and values as bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum EnvironmentChange {
    Set(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>),
    Clear,
}

/// How a worker ended at its guardian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WorkerEnd {
    Exited(i32),
    Signalled {
        signal: i32,
        core: bool,
    },
    /// The guardian was told to stop by this signal, and killed it.
    Stopped {
        signal: i32,
    },
    Unknown,
}

impl From<Ended> for WorkerEnd {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Exited(code) => Self::Exited(code),
            Ended::Signalled { signal, core } => Self::Signalled { signal, core },
            Ended::Unknown => Self::Unknown,
        }
    }
}

/// Bytes that are no packet, or a packet against the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MalformedPacket;

/// Packets that are being written, and how much of the data the peer has room for.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// Finished packets, of which the first `written` bytes have been written.
    bytes: Vec<u8>,
    written: usize,
    credit: usize,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            written: 0,
            credit: RELAY_WINDOW,
        }
    }

    /// Returns the bytes to be written next.
    pub(crate) fn unwritten(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// Notes that this number of them has been written.
    pub(crate) fn advance(&mut self, written: usize) {
        self.written += written;
        if self.written == self.bytes.len() || self.written > PACKET_DATA_BYTES {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }

    /// Adds bytes that are no packet.
    pub(crate) fn put_raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn put_control(&mut self, control: &Control) {
        let payload = codec::encode(control)
            .unwrap_or_else(|error| unreachable!("our own messages can be encoded: {error}"));
        self.put(CONTROL, &payload);
    }

    /// Tells the peer that it may send this number of bytes more.
    pub(crate) fn put_credit(&mut self, bytes: usize) {
        self.put(CREDIT, &(bytes as u64).to_le_bytes());
    }

    /// Returns how many bytes of data can be put: none while much is unwritten, so that control
    /// packets do not wait long.
    pub(crate) fn room_for_data(&self) -> usize {
        if self.unwritten().len() >= PACKET_DATA_BYTES {
            return 0;
        }
        self.credit.min(PACKET_DATA_BYTES)
    }

    /// Puts data, no more than there is room for.
    pub(crate) fn put_data(&mut self, data: &[u8]) {
        self.credit -= data.len();
        self.put(DATA, data);
    }

    /// Notes that the peer has room for this number of bytes more.
    pub(crate) fn add_credit(&mut self, bytes: usize) -> Result<(), MalformedPacket> {
        match self.credit.checked_add(bytes) {
            Some(credit) if credit <= RELAY_WINDOW => {
                self.credit = credit;
                Ok(())
            }
            _ => Err(MalformedPacket),
        }
    }

    fn put(&mut self, kind: u8, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("packets are short");
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(payload);
    }
}

/// Cuts arriving bytes into packets.
#[derive(Debug, Default)]
pub(crate) struct PacketReader {
    bytes: Vec<u8>,
    /// How many of them have been taken.
    taken: usize,
}

impl PacketReader {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the first packet out, if all of it has arrived.
    pub(crate) fn take(&mut self) -> Result<Option<Packet>, MalformedPacket> {
        let rest = &self.bytes[self.taken..];
        let Some(([kind, length @ ..], payload)) = rest.split_first_chunk::<HEAD>() else {
            self.discard_taken();
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        let most = match *kind {
            DATA => PACKET_DATA_BYTES,
            CREDIT => 8,
            CONTROL => MAX_CONTROL,
            _ => return Err(MalformedPacket),
        };
        // Data without bytes would cost no credit.
        if length > most || (*kind == DATA && length == 0) {
            return Err(MalformedPacket);
        }
        let Some(payload) = payload.get(..length) else {
            self.discard_taken();
            return Ok(None);
        };
        let packet = match *kind {
            DATA => Packet::Data(payload.to_vec()),
            CREDIT => {
                let bytes = payload.try_into().map_err(|_| MalformedPacket)?;
                let bytes = usize::try_from(u64::from_le_bytes(bytes));
                Packet::Credit(bytes.map_err(|_| MalformedPacket)?)
            }
            _ => Packet::Control(codec::decode(payload).map_err(|_| MalformedPacket)?),
        };
        self.taken += HEAD + length;
        Ok(Some(packet))
    }

    /// Moves what has not been taken to the beginning.
    fn discard_taken(&mut self) {
        self.bytes.drain(..std::mem::take(&mut self.taken));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn control() -> impl Strategy<Value = Control> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..9);
        let change = prop_oneof![
            (bytes(), bytes()).prop_map(|(name, value)| EnvironmentChange::Set(name, value)),
            bytes().prop_map(EnvironmentChange::Remove),
            Just(EnvironmentChange::Clear),
        ];
        let environment = prop::collection::vec(change, 0..4);
        prop_oneof![
            any::<u32>().prop_map(Control::Started),
            ".*".prop_map(Control::NotStarted),
            any::<u64>().prop_map(Control::Renew),
            Just(Control::Kill),
            (any::<i32>(), any::<bool>())
                .prop_map(|(signal, core)| Control::Ended(WorkerEnd::Signalled { signal, core })),
            (any::<u32>(), any::<bool>(), environment).prop_map(
                |(term, kills_tree, environment)| {
                    Control::Start(Start {
                        term: Duration::from_millis(term.into()),
                        kills_tree,
                        environment,
                    })
                }
            ),
        ]
    }

    proptest! {
        #[cfg_attr(miri, ignore = "too many cases")]
        #[test]
        fn packets_arrive_in_any_pieces_as_they_were_put(
            controls in prop::collection::vec((control(), prop::collection::vec(any::<u8>(), 1..50)), 0..6),
            piece in 1..20_usize,
        ) {
            let mut outbox = Outbox::new();
            for (control, data) in &controls {
                outbox.put_control(control);
                outbox.put_data(data);
                outbox.put_credit(data.len());
            }
            let mut reader = PacketReader::default();
            let mut arrived = Vec::new();
            for piece in outbox.unwritten().chunks(piece) {
                reader.push(piece);
                while let Some(packet) = reader.take().unwrap() {
                    arrived.push(packet);
                }
            }
            let sent = controls.into_iter().flat_map(|(control, data)| {
                let credit = data.len();
                [Packet::Control(Box::new(control)), Packet::Data(data), Packet::Credit(credit)]
            });
            prop_assert_eq!(arrived, sent.collect::<Vec<_>>());
        }

        #[cfg_attr(miri, ignore = "too many cases")]
        #[test]
        fn forged_bytes_are_packets_or_an_error_and_never_a_panic(bytes in prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..200)) {
            let mut reader = PacketReader::default();
            reader.push(&bytes);
            while let Ok(Some(_)) = reader.take() {}
        }
    }

    #[test]
    fn data_waits_for_credit_and_for_what_was_put_before_it() {
        let mut outbox = Outbox::new();
        assert_eq!(outbox.room_for_data(), PACKET_DATA_BYTES);
        outbox.put_data(&[0; PACKET_DATA_BYTES]);
        assert_eq!(outbox.room_for_data(), 0, "it has not been written");
        outbox.put_control(&Control::Kill);
        let length = outbox.unwritten().len();
        outbox.advance(length);
        let mut sent = PACKET_DATA_BYTES;
        while outbox.room_for_data() > 0 {
            sent += outbox.room_for_data();
            outbox.put_data(&vec![0; outbox.room_for_data()]);
            let length = outbox.unwritten().len();
            outbox.advance(length);
        }
        assert_eq!(sent, RELAY_WINDOW);
        outbox.add_credit(7).unwrap();
        assert_eq!(outbox.room_for_data(), 7);
        assert_eq!(outbox.add_credit(RELAY_WINDOW), Err(MalformedPacket));
        assert_eq!(outbox.add_credit(usize::MAX), Err(MalformedPacket));
    }

    #[test]
    fn a_packet_that_is_too_long_or_of_no_kind_is_an_error_at_once() {
        for head in [
            [DATA, 1, 128, 0, 0],
            [DATA, 0, 0, 0, 0],
            [CREDIT, 9, 0, 0, 0],
            [CONTROL, 0, 0, 0, 255],
            [7, 0, 0, 0, 0],
        ] {
            let mut reader = PacketReader::default();
            reader.push(&head);
            assert_eq!(reader.take(), Err(MalformedPacket), "{head:?}");
        }
    }
}
