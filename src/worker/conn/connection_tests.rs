//! Both ends of a mailbox in one process: the parent's [`Connection`] with a worker that is moved
//! by hand, in any order of events.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use async_io::Async;
use futures_lite::future::{block_on, poll_fn};
use proptest::prelude::*;
use rustix::io::{ioctl_fionread, write};
use rustix::net::RecvFlags;
use rustix::pipe::{fcntl_setpipe_size, pipe};

use super::connection::Connection;
use super::spin_poller;
use super::stderr_tail::StderrTail;
use crate::sys::mapping::Mapping;
use crate::sys::socket::{pair, send_all};
use crate::transport::endpoint::{Endpoint, WorkerSide};
use crate::transport::frame;
use crate::transport::frame::{Frame, Kind};
use crate::transport::mailbox::Mailbox;
use crate::transport::out_message::OutMessage;
use crate::transport::receive::RecvError;

/// Larger than a slot.
const LARGE: usize = 40_000;

fn ends() -> (Connection, Worker) {
    let (parent, worker) = pair().unwrap();
    (
        Connection::new(Async::new(parent).unwrap()),
        Worker::new(worker),
    )
}

fn job(number: u64, length: usize) -> OutMessage {
    frame::of_bytes(Kind::Job, number, &vec![number as u8; length]).into()
}

/// A worker's endpoint, driven like `child::link` but one step at a time.
struct Worker {
    endpoint: Endpoint<WorkerSide>,
    state: State,
    /// The numbers of all jobs that the worker has begun.
    begun: Vec<u64>,
}

#[derive(Debug)]
enum State {
    /// About to wait for a job.
    BetweenJobs,
    /// Watches the mailbox.
    Spinning,
    /// About to sleep.
    FallingAsleep,
    /// In the socket's `recv`.
    Asleep,
    Working(Frame),
    /// An answer has been sent through the socket, and the parent not signalled yet.
    Signalling,
}

impl Worker {
    fn new(socket: OwnedFd) -> Self {
        Worker {
            endpoint: Endpoint::new(socket),
            state: State::Asleep,
            begun: Vec::new(),
        }
    }

    fn begin(&mut self, job: Frame) {
        assert_eq!(job.header.kind, Kind::Job);
        self.begun.push(job.header.number);
        self.state = State::Working(job);
    }

    fn send(&self, frame: &[u8]) {
        send_all(self.endpoint.socket(), frame).unwrap();
    }

    /// Makes one step. `spins` decides whether the worker spins on where it may.
    fn step(&mut self, spins: bool) {
        match std::mem::replace(&mut self.state, State::FallingAsleep) {
            State::BetweenJobs if spins && self.endpoint.mailbox().is_some() => {
                self.endpoint.watch(0);
                self.state = State::Spinning;
            }
            State::BetweenJobs => {}
            State::Spinning if spins && self.endpoint.is_waiting() => {
                self.state = State::Spinning;
            }
            State::Spinning => {
                if !self.endpoint.stop_watching() {
                    let job = self.endpoint.take_from_mailbox().unwrap();
                    self.begin(job.expect("the slot is full"));
                }
            }
            State::FallingAsleep => {
                if self.endpoint.is_posted_message_unread() {
                    self.send(&frame::of_bytes(Kind::AnswerInMailbox, 0, b""));
                }
                self.state = State::Asleep;
            }
            State::Asleep => {
                self.state = State::Asleep;
                self.wake_up();
            }
            State::Working(job) => {
                let answer = frame::of_bytes(Kind::Done, job.header.number, job.payload());
                let answer = OutMessage::from(answer);
                if self.endpoint.post(&answer) {
                    self.state = State::BetweenJobs;
                } else {
                    self.send(answer.bytes());
                    self.state = State::Signalling;
                }
            }
            State::Signalling => {
                self.endpoint.signal();
                self.state = State::BetweenJobs;
            }
        }
    }

    /// Receives what has arrived, if that is a frame.
    fn wake_up(&mut self) {
        match self.endpoint.receive_from_socket(RecvFlags::DONTWAIT) {
            Ok(Some(mut frame)) if frame.header.kind == Kind::Mailbox => {
                let memory = frame.fds.pop().expect("the mailbox comes with its memory");
                let mailbox = Mapping::find(memory).unwrap();
                self.endpoint
                    .set_mailbox(Some(Box::leak(Box::new(mailbox))));
                self.state = State::BetweenJobs;
            }
            Ok(Some(frame)) => self.begin(frame),
            Ok(None) | Err(_) => {}
        }
    }

    fn sleeps_on(&mut self) -> bool {
        let is_asleep = |worker: &Self| matches!(worker.state, State::Asleep);
        is_asleep(self) && {
            self.step(false);
            is_asleep(self)
        }
    }

    /// Makes steps until the worker sleeps and nothing has arrived.
    fn run_until_asleep(&mut self) {
        while !self.sleeps_on() {
            self.step(false);
        }
    }
}

/// Wakes a thread that waits for it.
#[derive(Default)]
struct Alarm {
    rung: std::sync::Mutex<bool>,
    rings: std::sync::Condvar,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().unwrap() = true;
        self.rings.notify_all();
    }
}

impl Alarm {
    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.rings.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// The parent's end, with at most one call.
struct Parent {
    connection: Connection,
    alarm: Arc<Alarm>,
    calls: u64,
    length: Option<usize>,
}

impl Parent {
    fn call(&mut self, length: usize) {
        if self.length.is_none() {
            self.calls += 1;
            self.connection.put_job(job(self.calls, length));
            self.length = Some(length);
            *self.alarm.rung.lock().unwrap() = true;
        }
    }

    fn poll(&mut self) {
        let Some(length) = self.length else { return };
        *self.alarm.rung.lock().unwrap() = false;
        let waker = Waker::from(self.alarm.clone());
        let cx = &mut Context::from_waker(&waker);
        if let Poll::Ready(sent) = self.connection.poll_send(cx) {
            sent.unwrap();
        }
        if let Poll::Ready(received) = self.connection.poll_receive(cx) {
            let frame = received.unwrap();
            assert_eq!(frame.header.number, self.calls);
            assert!(frame.payload() == vec![self.calls as u8; length]);
            self.length = None;
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Call { large: bool },
    Poll { in_a_run: bool },
    Look,
    Glance,
    Forget,
    Worker { patient: bool },
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => prop::bool::weighted(0.2).prop_map(|large| Event::Call { large }),
        4 => any::<bool>().prop_map(|in_a_run| Event::Poll { in_a_run }),
        2 => Just(Event::Look),
        1 => Just(Event::Glance),
        1 => Just(Event::Forget),
        8 => any::<bool>().prop_map(|patient| Event::Worker { patient }),
    ]
}

proptest! {
    #[test]
    fn each_job_begins_once_and_each_call_has_its_answer_in_any_order_of_events(
        events in prop::collection::vec(any_event(), 0..200),
    ) {
        let (connection, mut worker) = ends();
        let mut parent = Parent { connection, alarm: Arc::default(), calls: 0, length: None };
        for event in events {
            match event {
                Event::Call { large } => parent.call(if large { LARGE } else { 10 }),
                Event::Poll { in_a_run: true } => {
                    let _turn = spin_poller::turn();
                    parent.poll();
                }
                Event::Poll { in_a_run: false } => parent.poll(),
                Event::Look => drop(spin_poller::look(Duration::ZERO, || false)),
                Event::Glance => drop(spin_poller::glance()),
                Event::Forget => spin_poller::forget(),
                Event::Worker { patient } => worker.step(patient),
            }
            let begun = parent.calls > 0 && worker.begun.last() == Some(&parent.calls);
            prop_assert!(parent.connection.has_received_all() || !begun || parent.length.is_none());
        }
        // From now on the parent does nothing unless it is woken, and hears of everything even so.
        while parent.length.is_some() {
            worker.run_until_asleep();
            parent.alarm.wait();
            parent.poll();
        }
        let all: Vec<u64> = (1..=parent.calls).collect();
        prop_assert_eq!(worker.begun, all);
    }
}

/// Makes one call by the socket, after which there is a mailbox, and a worker that looks.
fn acquainted() -> (Connection, Worker) {
    let (mut parent, mut worker) = ends();
    for number in 1..=2 {
        parent.put_job(job(number, 10));
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(parent.poll_send(cx).is_ready());
        worker.run_until_asleep();
        let answer = block_on(poll_fn(|cx| parent.poll_receive(cx)));
        assert_eq!(answer.unwrap().header.number, number);
    }
    worker.state = State::BetweenJobs;
    worker.step(true);
    (parent, worker)
}

fn send(parent: &mut Connection, number: u64) {
    parent.put_job(job(number, 10));
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(parent.poll_send(cx).is_ready());
}

#[test]
fn the_last_answer_of_a_worker_is_received_however_soon_it_ends() {
    for _ in 0..1_000 {
        let (mut parent, mut worker) = acquainted();
        send(&mut parent, 3);
        let worker = std::thread::spawn(move || {
            worker.step(false);
            worker.step(false);
        });
        let turn = spin_poller::turn();
        let cx = &mut Context::from_waker(Waker::noop());
        let answer = loop {
            if let Poll::Ready(answer) = parent.poll_receive(cx) {
                break answer;
            }
        };
        assert_eq!(answer.unwrap().header.number, 3);
        worker.join().unwrap();
        drop(turn);
        spin_poller::forget();
    }
}

#[test]
fn a_job_has_not_begun_before_its_worker_takes_it() {
    let (mut parent, mut worker) = acquainted();
    send(&mut parent, 3);
    assert!(!parent.has_received_all());
    worker.step(false);
    assert!(matches!(worker.state, State::Working(_)));
    assert!(parent.has_received_all());
}

#[test]
fn an_overwritten_mailbox_holds_an_answer_or_a_malformed_frame_or_nothing() {
    for state in [0, 1, 2, 3, 4, usize::MAX] {
        for length in [0, 1, frame::HEADER, LARGE, usize::MAX] {
            let (mut parent, worker) = acquainted();
            send(&mut parent, 3);
            let mailbox = worker.endpoint.mailbox().unwrap();
            let cx = &mut Context::from_waker(Waker::noop());
            for in_a_run in [true, false] {
                mailbox.answer.overwrite(state, length);
                let turn = in_a_run.then(spin_poller::turn);
                let mut received = parent.poll_receive(cx);
                if received.is_pending() {
                    // It may have ended early, for the sake of others.
                    received = parent.poll_receive(cx);
                }
                match received {
                    Poll::Pending => assert_ne!(state, 2),
                    Poll::Ready(Err(RecvError::Malformed)) => assert_eq!(state, 2),
                    Poll::Ready(other) => panic!("{other:?} of {state} and {length}"),
                }
                drop(turn);
                spin_poller::look(Duration::ZERO, || false);
            }
        }
    }
}

#[test]
fn an_answer_is_not_received_twice_even_if_a_faulty_job_sets_its_state_again() {
    let (mut parent, mut worker) = acquainted();
    send(&mut parent, 3);
    worker.step(false);
    worker.step(false);
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(parent.poll_receive(cx).is_ready());
    worker.step(true);
    send(&mut parent, 4);
    let answer = &worker.endpoint.mailbox().unwrap().answer;
    answer.overwrite(2, answer.length());
    assert!(matches!(
        parent.poll_receive(cx),
        Poll::Ready(Err(RecvError::Malformed))
    ));
}

/// A waker whose clone, drop and wake look at mailboxes themselves.
struct Meddler;

impl Wake for Meddler {
    fn wake(self: Arc<Self>) {
        spin_poller::look(Duration::ZERO, || false);
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        spin_poller::look(Duration::ZERO, || false);
    }
}

#[test]
fn a_waker_may_do_anything_when_it_is_dropped_or_woken() {
    let (mut parent, mut worker) = acquainted();
    let turn = spin_poller::turn();
    for number in 3..10 {
        send(&mut parent, number);
        for _ in 0..3 {
            let meddler = Waker::from(Arc::new(Meddler));
            let cx = &mut Context::from_waker(&meddler);
            assert!(parent.poll_receive(cx).is_pending());
        }
        worker.run_until_asleep();
        spin_poller::look(Duration::ZERO, || false);
        let cx = &mut Context::from_waker(Waker::noop());
        while parent.poll_receive(cx).is_pending() {}
    }
    drop(parent);
    drop(turn);
    spin_poller::forget();
}

/// The parent once read until a worker's standard error was empty, which that of a worker that
/// prints without end need never be.
#[test]
fn others_have_a_turn_while_a_worker_prints_more_than_can_be_read() {
    #[derive(Default)]
    struct Woken(AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (ours, theirs) = pipe().unwrap();
    let printed = fcntl_setpipe_size(&theirs, 1 << 20).unwrap();
    assert_eq!(write(&theirs, &vec![b'x'; printed]).unwrap(), printed);
    let left = ours.try_clone().unwrap();
    let left = || ioctl_fionread(&left).unwrap();
    let mut tail = StderrTail::new(ours).unwrap();
    let mut turns = 0;
    while left() > 0 {
        let woken = Arc::new(Woken::default());
        tail.read_available(&mut Context::from_waker(&Waker::from(woken.clone())));
        turns += 1;
        assert!(left() == 0 || woken.0.load(Ordering::Relaxed), "it goes on");
    }
    assert!(turns > 1);
    write(&theirs, b"last words").unwrap();
    tail.read_rest();
    assert!(tail.text().ends_with("xlast words"));
}

#[test]
fn a_job_whose_request_was_not_read_counts_as_received() {
    let (mut parent, mut worker) = ends();
    block_on(async {
        parent.put_job(job(1, 10));
        poll_fn(|cx| parent.poll_send(cx)).await.unwrap();
        worker.step(false);
        assert_eq!(worker.begun, [1]);
        parent.cancel(1);
        poll_fn(|cx| parent.poll_send(cx)).await.unwrap();
        drop(worker); // with the request in its socket, so the connection is reset
        let end = poll_fn(|cx| parent.poll_receive(cx)).await;
        assert!(matches!(end, Err(RecvError::Reset)), "{end:?}");
        assert!(parent.has_received_all());
    });
}

#[test]
fn a_request_follows_the_whole_of_a_job_that_fills_the_socket() {
    let (mut parent, worker) = ends();
    let mut endpoint = worker.endpoint;
    let mut cx = Context::from_waker(Waker::noop());
    parent.put_job(job(1, 4 << 20));
    assert!(parent.poll_send(&mut cx).is_pending());
    parent.cancel(1);
    let mut kinds = Vec::new();
    while kinds.len() < 2 {
        assert!(!matches!(parent.poll_send(&mut cx), Poll::Ready(Err(_))));
        if let Some(frame) = endpoint.receive_from_socket(RecvFlags::DONTWAIT).unwrap() {
            kinds.push((frame.header.kind, frame.header.number));
        }
    }
    assert_eq!(kinds, [(Kind::Job, 1), (Kind::Cancel, 1)]);
}

/// A job that has a mailbox looks for requests there only.
#[cfg_attr(seedbed_socket_only, ignore = "there is no mailbox")]
#[test]
fn a_request_made_before_the_mailbox_is_sent_is_in_the_mailbox() {
    let (mut parent, worker) = ends();
    let mut endpoint = worker.endpoint;
    let mut cx = Context::from_waker(Waker::noop());
    parent.hasten_mailbox();
    parent.put_job(job(1, 10));
    parent.cancel(1);
    assert!(matches!(parent.poll_send(&mut cx), Poll::Ready(Ok(()))));
    let frame = endpoint.receive_from_socket(RecvFlags::DONTWAIT).unwrap();
    let mut frame = frame.expect("the mailbox comes first");
    assert_eq!(frame.header.kind, Kind::Mailbox);
    let memory = frame.fds.pop().expect("the mailbox comes with its memory");
    let mailbox = Mapping::<Mailbox>::find(memory).unwrap();
    assert!(mailbox.job.is_cancelled(1));
}

#[test]
fn a_request_that_was_not_sent_is_forgotten_with_its_job() {
    let (mut parent, worker) = ends();
    let mut endpoint = worker.endpoint;
    let mut cx = Context::from_waker(Waker::noop());
    parent.put_job(job(1, 10));
    parent.cancel(1);
    drop(parent.take_back());
    parent.put_job(job(2, 10));
    assert!(matches!(parent.poll_send(&mut cx), Poll::Ready(Ok(()))));
    let mut next = || endpoint.receive_from_socket(RecvFlags::DONTWAIT).unwrap();
    while let Some(frame) = next() {
        assert_ne!(frame.header.kind, Kind::Cancel);
    }
}
