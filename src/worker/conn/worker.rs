//! One live worker in the parent: its process, its socket, and how it is seen to end.
//!
//! A worker's end is noticed in two ways at once, by its pidfd and by the end of its socket, because neither is enough.
//! A process may live on after its job has closed all descriptors; and what a process wrote before it ended is still to
//! be read after the pidfd has told of the end. So the socket is always read to its end before an end is believed.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_io::{Async, Timer};
use futures_lite::FutureExt;

use super::connection::{Connection, StderrTail};
use super::worker_process::{ForkFailure, WorkerProcess};
use crate::sys::process::{Ended, Pidfd};
use crate::transport::frame::{Frame, Kind};
use crate::transport::out_message::OutMessage;
use crate::transport::receive::RecvError;
use crate::worker::end::{KillReason, RetireReason};
use crate::worker::error::WorkerExit;
use crate::worker::record::{ExpectedWorker, WorkerRecord};
use crate::worker::tuning::EXIT_GRACE;

/// A process that has been started or asked for. It has been sent nothing but the prelude.
#[derive(Debug)]
pub(in crate::worker) struct Launched {
    pub(in crate::worker) process: WorkerProcess,
    pub(in crate::worker) connection: Connection,
    /// The reading end of the worker's standard error, if that is captured.
    pub(in crate::worker) stderr: Option<OwnedFd>,
    /// The worker is or will be forked by a fork server, which has received the set-up for it.
    pub(in crate::worker) forked: bool,
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
            process: WorkerProcess::new(Pidfd::adopt(child).unwrap()),
            connection: Connection::new(Async::new(ours).unwrap()),
            stderr: None,
            forked: false,
        }
    }
}

/// A worker process and the conversation with it. Dropping it kills the process, and counts its end.
///
/// It is always in a box: each call takes it from the cache and through an attempt, and it is large.
#[derive(Debug)]
pub(in crate::worker) struct Worker {
    process: WorkerProcess,
    connection: Connection,
    stderr: Option<StderrTail>,
    /// The worker takes no more bytes: its receiving end is closed.
    deaf: bool,
    /// The number of the job that it was given last.
    call: u16,
    /// How many jobs it will do from now on, unless it leaves earlier. Then it says good-bye.
    jobs_left: u64,
    /// It may say good-bye after any job, and so that is listened to before it is given another one.
    may_retire: bool,
    /// What it left when it ended, or left, read while it was idle. It stays until the worker is forgotten, so that
    /// looking at a worker loses nothing.
    left: Option<Frame>,
    /// It is a copy of a fork server.
    forked: bool,
    /// It has been asked for, and nothing has been seen of it.
    expected: Option<ExpectedWorker>,
    /// Begins when it is ready for jobs; that of a fork server never does.
    record: Option<Box<WorkerRecord>>,
}

/// What is known of a worker that nobody has used for a while.
#[derive(Debug)]
pub(in crate::worker) enum Health<'a> {
    Fit,
    /// It has ended, as workers do, or has said good-bye.
    Gone,
    /// The same, and its last message is more than good-bye.
    Left(&'a Frame),
}

impl Worker {
    pub(in crate::worker) fn new(launched: Launched) -> io::Result<Box<Self>> {
        Ok(Box::new(Self {
            process: launched.process,
            connection: launched.connection,
            stderr: launched.stderr.map(StderrTail::new).transpose()?,
            deaf: false,
            call: 0,
            jobs_left: u64::MAX,
            may_retire: false,
            left: None,
            forked: launched.forked,
            expected: None,
            record: None,
        }))
    }

    /// Lets whatever ends the worker end its process group, too.
    pub(in crate::worker) fn kill_its_tree_too(&mut self) {
        self.process.set_kills_tree();
    }

    /// The worker, which was expected, is ready for jobs.
    pub(in crate::worker) fn came_up(&mut self, expected: ExpectedWorker) {
        let Some(pid) = self.process.known_pid() else {
            self.expected = Some(expected);
            return;
        };
        let record = expected.came_up(pid, self.forked);
        self.record = Some(Box::new(record));
    }

    /// Begins the record of a worker that turns out to have been born.
    fn appear(&mut self) {
        if let Some(expected) = self.expected.take() {
            let record = expected.came_up(self.process.pid(), self.forked);
            record.trace_job();
            self.record = Some(Box::new(record));
        }
    }

    /// The same for one of which nothing has been heard.
    fn appear_if_born(&mut self) {
        if self.expected.is_some() && self.process.known_pid().is_some() {
            self.appear();
        }
    }

    /// Gets hold of the process, before the worker is kept for later: as long as there is only its number, another part
    /// of the program might wait for it, and then the number might be another's one day.
    pub(in crate::worker) fn settle(&mut self) {
        self.process.resolve_fork();
    }

    /// Looks whether the worker can be given a job.
    pub(in crate::worker) fn health(&mut self) -> Health<'_> {
        // One that looks for a job is past the last one, retire closures and all. Should it have been killed since,
        // then its job will be known not to have begun.
        match self.connection.is_awake() {
            true => Health::Fit,
            false => self.certain_health(),
        }
    }

    /// The same, for those who do not want to be told of one that is dead.
    pub(in crate::worker) fn certain_health(&mut self) -> Health<'_> {
        if self.left.is_none() && (self.may_retire || self.process.try_reap().is_some()) {
            // A dead process that has left nothing whole has no more to say, whatever the reason; a live one that cannot be
            // heard is found out by the call that wants it.
            self.left = self.connection.receive_now().unwrap_or(None);
        }
        match &self.left {
            Some(frame) if frame.header.kind != Kind::Bye => Health::Left(frame),
            Some(_) => Health::Gone,
            None if self.process.try_reap().is_some() => Health::Gone,
            None => Health::Fit,
        }
    }

    /// Says when the worker will leave: after so many jobs, and perhaps before.
    pub(in crate::worker) fn retires(&mut self, most_jobs: u64, perhaps_before: bool) {
        self.jobs_left = most_jobs;
        self.may_retire = perhaps_before;
    }

    /// The job has been answered. Tells whether the worker does another one.
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

    /// Whether the process lives, for one that is not asked for jobs.
    pub(in crate::worker) fn is_fit(&mut self) -> bool {
        self.process.try_reap().is_none()
    }

    pub(in crate::worker) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The process's descriptor, if it is not known to have ended.
    pub(in crate::worker) fn descriptor(&self) -> Option<Arc<Pidfd>> {
        self.process.descriptor()
    }

    /// Tells why a worker that is gone was never there.
    pub(in crate::worker) fn take_fork_failure(&mut self) -> Option<ForkFailure> {
        let why = self.process.take_fork_failure();
        match why {
            Some(_) => self.expected = None,
            None => self.appear(),
        }
        why
    }

    /// The parent's end of the conversation, for messages that are more than frames.
    pub(in crate::worker) fn socket(&self) -> &Async<OwnedFd> {
        self.connection.socket()
    }

    /// Hands a frame to the worker, to be sent by the polls that follow.
    pub(in crate::worker) fn put(&mut self, frame: OutMessage) {
        self.connection.put(frame);
    }

    /// Posts a job to a worker that spins on its mailbox, and takes it out of `job` if so.
    ///
    /// Such a worker has finished the job before, its retire closures included. If it has been killed since, the job will be
    /// known not to have begun.
    pub(in crate::worker) fn post_job(&mut self, job: &mut OutMessage) -> bool {
        let call = self.call.wrapping_add(1);
        job.mark(call);
        if !self.connection.post_job(job) {
            return false;
        }
        self.call = call;
        if let Some(record) = &self.record {
            record.trace_job();
        }
        true
    }

    /// The same, for a job.
    pub(in crate::worker) fn put_job(&mut self, mut job: OutMessage) {
        self.call = self.call.wrapping_add(1);
        job.mark(self.call);
        if let Some(record) = &self.record {
            record.trace_job();
        }
        self.connection.put_job(job);
    }

    /// Whether a frame is one that a call can get from a worker that knows which job it has.
    pub(in crate::worker) fn may_answer(&self, frame: &Frame) -> bool {
        frame.header.is_for(self.call)
    }

    /// Takes back the frame that was handed over, for another worker.
    pub(in crate::worker) fn take_back(&mut self) -> OutMessage {
        self.connection.take_back()
    }

    /// Tells whether the worker, which has ended, had got the whole frame.
    fn had_it_all(&self) -> bool {
        self.connection.had_it_all()
    }

    pub(in crate::worker) fn recycle(&mut self, frame: Frame) {
        self.connection.recycle(frame);
    }

    /// Sends what was handed over, and waits for a frame in return.
    pub(in crate::worker) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Frame, RecvError>> {
        if !self.deaf {
            match self.connection.poll_send(cx) {
                // A worker whose receiving end is closed may have said why, so its words are still listened to.
                Poll::Ready(Err(error)) if means_closed(&error) => self.deaf = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(RecvError::Failed(error))),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        self.drain(cx);
        if let Poll::Ready(received) = self.connection.poll_receive(cx) {
            return Poll::Ready(self.heeded(received));
        }
        match self.process.poll_end_slowly(cx) {
            Poll::Pending => {
                self.appear_if_born();
                Poll::Pending
            }
            // It may have answered between those two looks.
            Poll::Ready(_) => match self.connection.receive_now() {
                Ok(Some(frame)) => Poll::Ready(self.heeded(Ok(frame))),
                Ok(None) | Err(_) => Poll::Ready(Err(RecvError::Closed)), // what it left is not whole and never will be
            },
        }
    }

    /// Notes a good-bye.
    fn heeded(&mut self, received: Result<Frame, RecvError>) -> Result<Frame, RecvError> {
        if received.is_ok() {
            self.appear();
        }
        if let (Ok(frame), Some(record)) = (&received, &mut self.record)
            && let Some(bye) = bye_of(frame)
        {
            record.hints.announced = Some(bye);
        }
        received
    }

    /// Sends SIGKILL. Should the kernel not allow that, the worker leaves when it is done with its job, as nobody is there
    /// any more to answer.
    pub(in crate::worker) fn kill(&mut self, why: KillReason) {
        self.appear_if_born();
        if let Some(record) = &mut self.record {
            record.hints.killed.get_or_insert(why);
        }
        self.process.kill();
        self.connection.hang_up();
    }

    /// Tells the worker that there will be no more jobs, upon which it exits.
    pub(in crate::worker) fn dismiss(&mut self) {
        if let Some(record) = &mut self.record {
            record.hints.dismissed = true;
        }
        self.connection.close();
    }

    /// Waits until the process has been reaped.
    pub(in crate::worker) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.drain(cx); // a full pipe could keep it from exiting
        self.process.poll_end(cx)
    }

    /// Whether its standard error is read here.
    pub(in crate::worker) fn is_captured(&self) -> bool {
        self.stderr.is_some()
    }

    /// Reads its standard error, and registers for more of it.
    pub(in crate::worker) fn drain(&mut self, cx: &mut Context<'_>) {
        if let Some(stderr) = &mut self.stderr {
            stderr.drain(cx);
        }
    }

    /// Tells how the process ended, which it has.
    fn exit(&mut self, ended: Ended) -> WorkerExit {
        let stderr = self.stderr.as_mut().map(|stderr| {
            stderr.drain_now();
            stderr.text()
        });
        WorkerExit::new(self.process.pid(), ended, stderr)
    }
}

/// Whether sending failed because the other end takes no more.
fn means_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.appear_if_born();
        let Some(mut record) = self.record.take() else {
            return;
        };
        let ended = self.process.try_reap();
        if ended.is_some() {
            // A worker that was not looked at since it said good-bye has said so all the same.
            let read = |connection: &mut Connection| connection.receive_now().unwrap_or(None);
            let mut next = self.left.take().or_else(|| read(&mut self.connection));
            while let Some(frame) = next {
                record.hints.announced = record.hints.announced.or(bye_of(&frame));
                next = read(&mut self.connection);
            }
        }
        record.end(ended);
    }
}

fn bye_of(frame: &Frame) -> Option<RetireReason> {
    match (frame.header.kind, frame.header.number) {
        (Kind::Bye, 0) => Some(RetireReason::TimedOut),
        (Kind::Bye, _) => Some(RetireReason::Retired),
        _ => None,
    }
}

/// A worker on its way out: waited for, and killed if it takes too long.
#[derive(Debug)]
pub(in crate::worker) struct Dying {
    worker: Box<Worker>,
    /// When the process will have lived on for too long; `None` once it has been killed.
    patience: Option<Timer>,
    outlived: bool,
}

impl Dying {
    /// Waits for a process that is about to exit by itself.
    pub(in crate::worker) fn naturally(worker: Box<Worker>) -> Self {
        Self {
            worker,
            patience: Some(Timer::after(EXIT_GRACE)),
            outlived: false,
        }
    }

    /// Kills the process, and waits until it is reaped.
    pub(in crate::worker) fn killed(mut worker: Box<Worker>, why: KillReason) -> Self {
        worker.kill(why);
        Self {
            worker,
            patience: None,
            outlived: false,
        }
    }

    /// Does not wait any longer. Whoever was killed is not killed again, as often as this may be asked.
    pub(in crate::worker) fn kill(&mut self, why: KillReason) {
        if self.patience.take().is_some() {
            self.worker.kill(why);
        }
    }

    pub(in crate::worker) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Death> {
        if let Poll::Ready(ended) = self.worker.poll_end(cx) {
            let exit = self.worker.exit(ended);
            return Poll::Ready(Death {
                exit,
                outlived: self.outlived,
            });
        }
        let is_over = |patience: &mut Timer| patience.poll(cx).is_ready();
        if self.patience.as_mut().is_some_and(is_over) {
            self.outlived = true;
            self.kill(KillReason::NoExit);
        }
        Poll::Pending
    }

    /// Tells whether the worker, which has ended, had got the whole frame.
    pub(in crate::worker) fn had_it_all(&self) -> bool {
        self.worker.had_it_all()
    }

    /// Takes back the frame that was handed to the worker.
    pub(in crate::worker) fn take_back(&mut self) -> OutMessage {
        self.worker.take_back()
    }
}

/// How a worker ended.
#[derive(Debug)]
pub(in crate::worker) struct Death {
    pub(in crate::worker) exit: WorkerExit,
    /// It had closed its socket, lived on, and was killed for that.
    pub(in crate::worker) outlived: bool,
}
