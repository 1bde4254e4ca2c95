//! The connection between a program and the *guardian* of a worker that a launcher has started,
//! which may run on another machine.
//!
//! A launcher (`srun`, `ssh`, `sudo`) executes this program elsewhere and carries its standard
//! input and output. There the program becomes a guardian at the hook: it starts the worker as its
//! child, over a socket as any parent does, and passes the frames on. In the program, a *relay*
//! does the same between the worker's connection and the launcher. So neither the worker nor the
//! code that calls it knows of the way between them.
//!
//! # The protocol
//!
//! The guardian writes a [`greeting`], which the relay finds behind whatever login scripts print.
//! From then on both send [`packet`]s:
//!
//! 1. The guardian sends *hello* with its image and its host.
//! 2. The relay compares the image and sends *start*. Nothing is sent to a guardian that has not
//!    said hello, as a login script might read it.
//! 3. The guardian starts the worker, and sends *started* with its process id, or *not started*.
//! 4. Frames go both ways as *data* ([`bundle`]), each side sending no more than the other has
//!    room for (*credit*), so that data never keeps the other packets from arriving.
//! 5. The guardian asks for a *renewal* of its [`lease`] several times in its term.
//! 6. The worker ends: *ended* says how. The relay may ask for it before: with *kill*, or with
//!    *hung up*, after which the worker gets no more jobs.
//!
//! A guardian that loses its connection, or whose lease is over, kills the worker. A relay that
//! loses it waits until the lease must be over. Only then the worker is known to have ended.

pub(crate) mod bundle;
pub(crate) mod greeting;
pub(crate) mod lease;
pub(crate) mod packet;
