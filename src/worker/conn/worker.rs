//! A worker as its parent sees it: its process, its connection, and its record.
//!
//! The end of a worker is noticed by its pidfd and by the end of its socket, because neither is
//! enough. A process may run on after its job has closed all descriptors, and a process may have
//! sent a frame just before it ended. So the socket is read to its end before the worker counts as
//! ended.

use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_io::Async;

use super::connection::Connection;
use super::forwarded::Forwarded;
use super::stderr_tail::StderrTail;
use super::worker_process::{ForkFailure, WorkerProcess};
use crate::process::child::EndWatch;
use crate::sys::process::{Ended, Pidfd};
use crate::transport::codec;
use crate::transport::frame::{Frame, Kind};
use crate::transport::job::image::Fingerprint;
use crate::transport::job::panic_report::PanicReport;
use crate::transport::out_message::OutMessage;
use crate::transport::receive::RecvError;
use crate::worker::end::{KillReason, RetireReason};
use crate::worker::error::{WorkerError, WorkerExit, WorkerPanic};
use crate::worker::record::{ExpectedWorker, WorkerRecord};
use crate::worker::tuning::{DEFAULT_KILL_TIMEOUT, FORWARDED_PER_POLL};

/// A process that has been started or asked for. It has been sent nothing but the prelude.
#[derive(Debug)]
pub(in crate::worker) struct Launched {
    pub(in crate::worker) process: WorkerProcess,
    pub(in crate::worker) connection: Connection,
    /// The reading end of the worker's standard error, if that is captured.
    pub(in crate::worker) stderr: Option<OwnedFd>,
    /// The worker is or will be forked by a fork server, which has received the set-up for it.
    pub(in crate::worker) forked: bool,
    /// The image of a worker that a launcher has started: the same build as this process's, in
    /// another file perhaps. `None` for this process's own.
    pub(in crate::worker) image: Option<Box<Fingerprint>>,
}

#[cfg(test)]
impl Launched {
    /// Executes a command that never reaches the hook.
    pub(in crate::worker) fn instead(command: &mut std::process::Command) -> Self {
        let (ours, theirs) = crate::sys::socket::pair().unwrap();
        let child = command
            .stdin(std::process::Stdio::from(theirs))
            .spawn()
            .unwrap();
        Launched {
            process: WorkerProcess::adopt(child).unwrap(),
            connection: Connection::new(Async::new(ours).unwrap()),
            stderr: None,
            forked: false,
            image: None,
        }
    }
}

/// A worker process and its connection. Dropping it kills the process, and counts its end.
///
/// It is large and moves with each call, so it is always in a box.
#[derive(Debug)]
pub(in crate::worker) struct Worker {
    process: WorkerProcess,
    connection: Connection,
    stderr: Option<StderrTail>,
    /// The worker has closed its receiving end.
    is_send_closed: bool,
    /// The generation of this process's credentials that the worker has inherited.
    credentials: u64,
    /// The number of jobs that the worker has been sent, which is the number of the last one.
    call: u64,
    /// The last job has been asked to end.
    is_cancelled: bool,
    /// The number of jobs after which the worker retires.
    jobs_left: u64,
    /// The worker may retire after any job, so its socket is read before it gets another one.
    may_retire_early: bool,
    /// The last frame of a worker that has exited or announced its exit while it was idle.
    last_frame: Option<Frame>,
    /// The worker was made by a fork server.
    is_forked: bool,
    /// Present while the worker's fork is pending.
    expected: Option<ExpectedWorker>,
    /// Present once the worker is ready for jobs; never for a fork server.
    record: Option<Box<WorkerRecord>>,
    /// A background task waits for the worker's end.
    is_watched: bool,
    /// How long the worker is waited for after it was killed.
    kill_timeout: Duration,
    /// Present if the worker forwards `tracing` events.
    forwarded: Option<Box<Forwarded>>,
}

/// The health of an idle worker.
#[derive(Debug)]
pub(in crate::worker) enum Health {
    /// The worker can be given a job.
    Fit,
    /// The worker has exited, announced its exit, or been killed.
    Exited,
    /// The worker has exited or is about to exit, because a retire closure panicked.
    RetirePanicked(WorkerError),
}

impl Worker {
    pub(in crate::worker) fn new(launched: Launched) -> io::Result<Box<Self>> {
        Ok(Box::new(Self {
            process: launched.process,
            connection: launched.connection,
            stderr: launched.stderr.map(StderrTail::new).transpose()?,
            is_send_closed: false,
            credentials: 0,
            call: 0,
            is_cancelled: false,
            jobs_left: u64::MAX,
            may_retire_early: false,
            last_frame: None,
            is_forked: launched.forked,
            expected: None,
            record: None,
            is_watched: false,
            kill_timeout: DEFAULT_KILL_TIMEOUT,
            forwarded: None,
        }))
    }

    /// Makes the worker's descendants end with it.
    pub(in crate::worker) fn set_kills_tree(&mut self) {
        self.process.set_kills_tree();
    }

    /// Emits the `tracing` events that the worker forwards. The mailbox could overtake them, so the
    /// worker has none.
    pub(in crate::worker) fn set_forwards_tracing(&mut self) {
        self.forwarded = Some(Box::new(Forwarded::new()));
        self.connection.do_without_mailbox();
    }

    /// Lets all frames go through the socket: the worker shares no memory with this process.
    pub(in crate::worker) fn do_without_mailbox(&mut self) {
        self.connection.do_without_mailbox();
    }

    /// Sets how long the worker is waited for after it was killed.
    pub(in crate::worker) fn set_kill_timeout(&mut self, timeout: Duration) {
        self.kill_timeout = timeout;
    }

    pub(in crate::worker) fn kill_timeout(&self) -> Duration {
        self.kill_timeout
    }

    /// Whether the worker has been or is to be killed.
    pub(in crate::worker) fn is_killed(&self) -> bool {
        self.process.is_killed()
    }

    /// Whether the worker was killed because it had asked to be traced.
    pub(super) fn was_trapped(&self) -> bool {
        self.process.was_trapped()
    }

    /// Returns the name of the context of a worker that came up.
    pub(in crate::worker) fn context_name(&self) -> Option<&str> {
        self.record.as_ref()?.context_name()
    }

    /// Begins the record of a worker that is ready for jobs, as soon as its process id is known.
    pub(in crate::worker) fn set_ready(&mut self, expected: ExpectedWorker) {
        let Some(pid) = self.process.known_pid() else {
            self.expected = Some(expected);
            return;
        };
        let record = expected.came_up(pid, self.is_forked);
        self.record = Some(Box::new(record));
    }

    /// Whether the process is known to exist, so that it can run its job.
    pub(in crate::worker) fn is_up(&self) -> bool {
        self.expected.is_none()
    }

    /// Begins the record of a worker whose fork has happened, and which has its first job by then.
    fn begin_record(&mut self) {
        if let Some(expected) = self.expected.take() {
            let record = expected.came_up(self.process.pid(), self.is_forked);
            record.trace_job();
            self.record = Some(Box::new(record));
        }
    }

    /// Begins the record if the fork is known to have happened.
    fn begin_record_if_forked(&mut self) {
        if self.expected.is_some() && self.process.known_pid().is_some() {
            self.begin_record();
        }
    }

    /// Waits until the worker's fork has happened or failed.
    pub(in crate::worker) fn poll_fork(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.process.poll_fork(cx)
    }

    /// Opens the descriptor of a forked process, before the worker becomes idle. See
    /// [`WorkerProcess::resolve_fork`].
    pub(in crate::worker) fn resolve_fork(&mut self) {
        self.process.resolve_fork();
    }

    /// Checks whether an idle worker can be given a job.
    pub(in crate::worker) fn check_health(&mut self) -> Health {
        let has_ended = self.process.try_reap().is_some();
        if self.last_frame.is_none() && (self.may_retire_early || has_ended) {
            // An error counts as no frame: an ended process will send none, and the next call
            // notices a broken socket.
            self.last_frame = self.connection.receive_now().unwrap_or(None);
        }
        match &self.last_frame {
            Some(frame) => match read_retire_panic(frame) {
                Some(panic) => Health::RetirePanicked(WorkerError::retire(panic)),
                None => Health::Exited,
            },
            None if has_ended || self.process.is_killed() => Health::Exited,
            None => Health::Fit,
        }
    }

    /// Whether a background task waits for the worker's end.
    pub(in crate::worker) fn is_watched(&self) -> bool {
        self.is_watched
    }

    /// Returns a wait for the worker's end that does not borrow it, when it is asked for the first
    /// time.
    pub(in crate::worker) fn first_watch(&mut self) -> Option<EndWatch> {
        let is_first = !mem::replace(&mut self.is_watched, true);
        is_first.then(|| self.process.watch())
    }

    /// Sets the generation of this process's credentials that the worker has inherited.
    pub(in crate::worker) fn set_credentials(&mut self, generation: u64) {
        self.credentials = generation;
    }

    pub(in crate::worker) fn credentials(&self) -> u64 {
        self.credentials
    }

    /// Sets the number of jobs after which the worker retires, and whether it may retire earlier.
    pub(in crate::worker) fn set_retirement(&mut self, max_jobs: u64, may_retire_early: bool) {
        self.jobs_left = max_jobs;
        self.may_retire_early = may_retire_early;
    }

    /// Counts an answered job. Returns whether the worker can be given another one.
    pub(in crate::worker) fn count_job(&mut self) -> bool {
        self.jobs_left = self.jobs_left.saturating_sub(1);
        let stays = self.jobs_left > 0;
        if let Some(record) = &mut self.record {
            record.count_job();
            if !stays {
                record.hints.announced = Some(RetireReason::Retired);
            }
        }
        stays
    }

    /// Reaps the process if it has ended, and returns how it ended.
    pub(in crate::worker) fn try_reap(&mut self) -> Option<Ended> {
        self.process.try_reap()
    }

    pub(in crate::worker) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Returns the descriptor of a process that is not known to have ended.
    pub(in crate::worker) fn descriptor(&self) -> Option<Arc<Pidfd>> {
        self.process.descriptor()
    }

    /// Returns why the fork of a worker failed whose connection is closed. `None` if the worker
    /// existed.
    pub(in crate::worker) fn take_fork_failure(&mut self) -> Option<ForkFailure> {
        let why = self.process.take_fork_failure();
        match why {
            Some(_) => self.expected = None,
            None => self.begin_record(),
        }
        why
    }

    /// Returns the parent's end of the socket.
    pub(in crate::worker) fn socket(&self) -> &Async<OwnedFd> {
        self.connection.socket()
    }

    /// Takes a message, which the next polls send.
    pub(in crate::worker) fn put(&mut self, frame: OutMessage) {
        self.connection.put(frame);
    }

    /// Posts a job to a worker that spins on its mailbox, and takes it out of `job` if so.
    ///
    /// Such a worker has finished the job before, and its retire closures. If it has been killed
    /// since, the job is still in the mailbox, so it is known not to have begun.
    pub(in crate::worker) fn post_job(&mut self, job: &mut OutMessage) -> bool {
        let call = self.call + 1;
        job.mark(call as u16);
        if !self.connection.post_job(job) {
            return false;
        }
        self.call = call;
        self.is_cancelled = false;
        if let Some(record) = &self.record {
            record.trace_job();
        }
        true
    }

    /// Takes a job, which the next polls send.
    pub(in crate::worker) fn put_job(&mut self, mut job: OutMessage) {
        self.call += 1;
        self.is_cancelled = false;
        job.mark(self.call as u16);
        if let Some(forwarded) = &mut self.forwarded {
            forwarded.begin_job();
        }
        if let Some(record) = &self.record {
            record.trace_job();
        }
        self.connection.put_job(job);
    }

    /// Prepares for a job that may be asked to end.
    pub(in crate::worker) fn hasten_mailbox(&mut self) {
        self.connection.hasten_mailbox();
    }

    /// Asks the job that was taken last to end, once. Returns whether it was not asked before; the
    /// next polls send the request.
    pub(in crate::worker) fn cancel_job(&mut self) -> bool {
        let is_first = !mem::replace(&mut self.is_cancelled, true);
        if is_first {
            self.connection.cancel(self.call);
        }
        is_first
    }

    /// Whether a frame belongs to the current call, and not to an earlier one.
    pub(in crate::worker) fn may_answer(&self, frame: &Frame) -> bool {
        frame.header.is_for(self.call as u16)
    }

    /// Returns the message that was taken last, sent or not.
    pub(in crate::worker) fn take_back(&mut self) -> OutMessage {
        if let Some(forwarded) = &mut self.forwarded {
            forwarded.end_job();
        }
        self.connection.take_back()
    }

    /// Whether a worker that has ended had received the whole of the last message.
    pub(super) fn has_received_all(&self) -> bool {
        self.connection.has_received_all()
    }

    pub(in crate::worker) fn recycle(&mut self, frame: Frame) {
        self.connection.recycle(frame);
    }

    /// Sends the message that was taken last, and waits for a frame in return.
    pub(in crate::worker) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Frame, RecvError>> {
        if !self.is_send_closed {
            match self.connection.poll_send(cx) {
                // A worker that has closed its receiving end may have sent the reason.
                Poll::Ready(Err(error)) if means_closed(&error) => self.is_send_closed = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(RecvError::Failed(error))),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        self.read_stderr(cx);
        let mut emitted = 0;
        while let Poll::Ready(received) = self.connection.poll_receive(cx) {
            let received = self.note_frame(received);
            if !self.emit(&received) {
                return Poll::Ready(received);
            }
            emitted += 1;
            if emitted == FORWARDED_PER_POLL {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        match self.process.poll_end_slowly(cx) {
            Poll::Pending => {
                self.begin_record_if_forked();
                Poll::Pending
            }
            // Frames may have arrived since the socket was read.
            Poll::Ready(_) => loop {
                match self.connection.receive_now() {
                    Ok(Some(frame)) => {
                        let received = self.note_frame(Ok(frame));
                        if !self.emit(&received) {
                            return Poll::Ready(received);
                        }
                    }
                    // The rest of a frame will never come.
                    Ok(None) | Err(_) => return Poll::Ready(Err(RecvError::Closed)),
                }
            },
        }
    }

    /// Emits the event that a frame holds. Returns whether it is such a frame.
    fn emit(&mut self, received: &Result<Frame, RecvError>) -> bool {
        match (received, &self.forwarded) {
            (Ok(frame), Some(forwarded)) if frame.header.kind == Kind::Traced => {
                forwarded.emit(frame);
                true
            }
            _ => false,
        }
    }

    /// Begins the record if that is due, and notes in it that the worker has announced its exit.
    fn note_frame(&mut self, received: Result<Frame, RecvError>) -> Result<Frame, RecvError> {
        if received.is_ok() {
            self.begin_record();
        }
        if let (Ok(frame), Some(record)) = (&received, &mut self.record)
            && let Some(reason) = announced_exit(frame)
        {
            record.hints.announced = Some(reason);
        }
        received
    }

    /// Sends SIGKILL. If the kernel does not permit that, the worker exits after its job, because
    /// its connection is closed.
    pub(in crate::worker) fn kill(&mut self, why: KillReason) {
        self.begin_record_if_forked();
        if let Some(record) = &mut self.record {
            record.hints.killed.get_or_insert(why);
        }
        self.process.kill();
        self.connection.hang_up();
    }

    /// Asks the worker to exit: it will get no more jobs.
    pub(in crate::worker) fn dismiss(&mut self) {
        if let Some(record) = &mut self.record {
            record.hints.dismissed = true;
        }
        self.connection.close();
    }

    /// Waits until the process has been reaped.
    pub(in crate::worker) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.read_stderr(cx); // a full pipe could block its exit
        self.process.poll_end(cx)
    }

    /// Whether the worker's standard error is captured.
    pub(in crate::worker) fn is_captured(&self) -> bool {
        self.stderr.is_some()
    }

    /// Reads the captured standard error, and registers for more of it.
    pub(in crate::worker) fn read_stderr(&mut self, cx: &mut Context<'_>) {
        if let Some(stderr) = &mut self.stderr {
            stderr.read_available(cx);
        }
    }

    /// Returns the report of a process that has ended.
    pub(super) fn exit(&mut self, ended: Ended) -> WorkerExit {
        let stderr = self.stderr.as_mut().map(|stderr| {
            stderr.read_rest();
            stderr.text()
        });
        let is_killed = self
            .record
            .as_ref()
            .is_some_and(|record| record.hints.killed.is_some());
        WorkerExit::new(self.process.pid(), ended, stderr)
            .with_fault(self.connection.fault())
            .killed_by_parent(is_killed)
            .elsewhere(self.process.elsewhere())
    }
}

/// Whether sending failed because the worker has closed its receiving end.
fn means_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}

impl Worker {
    /// Counts the end of a worker that has been reaped. The drop, which may run foreign code,
    /// reports it later.
    pub(in crate::worker) fn count_end(&mut self) {
        if let Some(ended) = self.process.try_reap() {
            self.read_announcement();
            if let Some(record) = &mut self.record {
                record.count_end(Some(ended));
            }
        }
    }

    /// Looks whether a worker that has ended announced its exit in a frame that has not been read.
    fn read_announcement(&mut self) {
        let Some(record) = &mut self.record else {
            return;
        };
        let read = |connection: &mut Connection| connection.receive_now().unwrap_or(None);
        let mut next = self
            .last_frame
            .take()
            .or_else(|| read(&mut self.connection));
        while let Some(frame) = next {
            record.hints.announced = record.hints.announced.or(announced_exit(&frame));
            next = read(&mut self.connection);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.begin_record_if_forked();
        if self.record.is_none() {
            return;
        }
        let ended = self.process.try_reap();
        if ended.is_some() {
            self.read_announcement();
        }
        if let Some(record) = self.record.take() {
            record.end(ended);
        }
    }
}

/// Reads the panic of a retire closure, if a frame reports one.
fn read_retire_panic(frame: &Frame) -> Option<WorkerPanic> {
    if frame.header.kind != Kind::RetirePanicked {
        return None;
    }
    codec::decode::<PanicReport>(frame.payload())
        .ok()
        .map(WorkerPanic::from)
}

/// Returns the reason if a frame announces the exit of a worker.
fn announced_exit(frame: &Frame) -> Option<RetireReason> {
    match (frame.header.kind, frame.header.number) {
        (Kind::Bye, 0) => Some(RetireReason::TimedOut),
        (Kind::Bye, 2) => Some(RetireReason::TimersDeleted),
        (Kind::Bye, _) => Some(RetireReason::Retired),
        _ => None,
    }
}
