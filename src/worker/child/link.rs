//! The worker's end of the connection, driven by blocking reads, and the end of the worker process.
//!
//! A worker has one thread of this crate, which blocks on the socket. After a job it first spins on
//! the mailbox for some microseconds, because the next job often comes soon. It does not spin if it
//! has no mailbox, or while it backs off after failed spins; see
//! [`Backoff`](crate::transport::backoff::Backoff). While the worker has memory of its parent
//! mapped, it wakes up once to unmap that.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, fcntl_getfd};
use rustix::net::{RecvFlags, SendFlags, Shutdown, shutdown};
use rustix::thread::sched_getcpu;

use super::cancel_request;
use super::cancel_request::RunningJob;
use super::faults;
use super::limits::Group;
use super::parent_tie::ParentTie;
use super::tuning::{EXIT_FAILED, JOB_SPIN_INTERVAL, SHORT_SLEEP, SPIN_FOR_JOB};
use crate::sys::fork_detector;
use crate::sys::fork_detector::ProcessMark;
use crate::sys::mapping::Mapping;
use crate::sys::mapping_cache::MappingCache;
use crate::sys::posix_timer::NewTimers;
use crate::sys::tuning::UNUSED_MAPPING_KEPT_FOR;
use crate::sys::{interval_timer, socket};
use crate::transport::endpoint::{Endpoint, WorkerSide};
use crate::transport::frame;
use crate::transport::frame::{Frame, Kind};
use crate::transport::out_message::OutMessage;
use crate::transport::receive::RecvError;

/// The worker's end of the connection.
pub(super) struct Link {
    endpoint: Endpoint<WorkerSide>,
    /// Distinguishes this process from processes that a job forks: by its mark, or by its process
    /// id if the mark's page could not be mapped.
    mark: Result<ProcessMark, u32>,
    /// The number of the job that was answered last.
    answered: u16,
    /// The number of jobs that this worker has received.
    jobs: u64,
    /// The job follows in the socket: the last frame brought the mailbox, or this worker was just
    /// forked. So the next receive does not spin, and looks into the socket before it waits.
    job_follows: bool,
    /// The mapped memory of large arguments.
    pub(super) mappings: MappingCache,
    /// How long the worker waits for a frame; `None` is forever.
    pub(super) idle_timeout: Option<Duration>,
    /// The process group that the worker leads, which ends with it.
    group: Option<Group>,
    tie: ParentTie,
    /// A job has run since the worker last waited for a job without one at hand.
    a_job_has_run: bool,
    /// The timers that jobs have created. `None` before the first job.
    timers_of_jobs: Option<NewTimers>,
    /// This process was just forked, and has run no code of the program.
    is_new: bool,
}

impl Link {
    pub(super) fn new(socket: OwnedFd, mappings: MappingCache, parent: u32) -> Self {
        Link {
            endpoint: Endpoint::new(socket),
            mark: mark_of_this_process(),
            answered: 0,
            jobs: 0,
            job_follows: false,
            mappings,
            idle_timeout: None,
            group: None,
            tie: ParentTie::new(parent),
            a_job_has_run: false,
            timers_of_jobs: None,
            is_new: false,
        }
    }

    /// Sets the process group that the worker leads.
    pub(super) fn set_group(&mut self, group: Group) {
        self.group = Some(group);
        self.tie.include_group();
    }

    /// Ties the life of this process, and of the group that it leads, to the parent's.
    pub(super) fn tie_to_parent(&self) {
        if let Err(error) = self.tie.set() {
            self.exit_cannot_serve(&format!(
                "it could not tie its life to its parent's: {error}"
            ));
        }
        self.tie.exit_if_orphaned();
    }

    pub(super) fn socket(&self) -> &OwnedFd {
        self.endpoint.socket()
    }

    /// Turns the fork server's link into the link of a forked worker. It is called in the new
    /// process, after the fork. `arrange` puts the worker's socket in place of the fork server's;
    /// `buffer` serves the first frame.
    pub(super) fn into_forked<E>(
        self,
        arrange: impl FnOnce(&mut OwnedFd) -> Result<(), E>,
        buffer: Vec<u8>,
    ) -> (Self, Result<(), E>) {
        let mark = fork_detector::restart();
        let mut socket = self.endpoint.into_socket();
        let arranged = arrange(&mut socket);
        let mut link = Self {
            endpoint: Endpoint::new(socket),
            mark: mark.map_or_else(mark_of_this_process, Ok),
            answered: 0,
            jobs: 0,
            job_follows: true, // the parent sends it together with the request
            mappings: self.mappings,
            idle_timeout: None,
            group: None,
            tie: self.tie,
            a_job_has_run: false,
            timers_of_jobs: None,
            is_new: false,
        };
        link.recycle(buffer);
        (link, arranged)
    }

    /// Returns whether this process is the worker itself, and not one that a job has forked.
    pub(super) fn is_the_worker(&self) -> bool {
        match self.mark {
            Ok(mark) => mark.is_of_this_process(),
            Err(pid) => pid == std::process::id(),
        }
    }

    /// Returns whether this process was just forked, and has run no code of the program.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Returns whether no part of the next frame has arrived.
    pub(super) fn is_between_frames(&self) -> bool {
        self.endpoint.is_between_frames()
    }

    pub(super) fn recycle(&mut self, buffer: Vec<u8>) {
        self.endpoint.recycle(buffer);
    }

    /// Maps the mailbox that the parent offers. If that fails, the socket carries all frames.
    pub(super) fn map_mailbox(&mut self, mut frame: Frame) {
        let memory = frame.fds.pop();
        let mailbox = memory.and_then(|memory| Mapping::find(memory).ok());
        let mailbox = mailbox.map(|mailbox| &*Box::leak(Box::new(mailbox)));
        self.endpoint.set_mailbox(mailbox);
        if let Some(mailbox) = mailbox {
            cancel_request::read_in(mailbox);
        }
        self.job_follows = true;
    }

    /// Lets the next job see requests to end it, until the end of the returned value.
    pub(super) fn begin_job(&mut self) -> RunningJob {
        self.jobs += 1;
        self.is_new = false;
        let running = cancel_request::begin_job(self.jobs, self.socket().as_fd());
        // A request that came so early that it was read together with the job. The rest of its few
        // bytes is in the socket.
        while !self.is_between_frames() {
            match self.endpoint.receive_from_socket(RecvFlags::empty()) {
                Ok(Some(frame)) => cancel_request::note(&frame.header),
                // The next read for a job meets the same end.
                Ok(None) | Err(_) => break,
            }
        }
        running
    }

    /// Receives the next frame. Returns `None` if the worker has been idle for its idle timeout,
    /// and no part of a frame has arrived.
    pub(super) fn receive(&mut self) -> Result<Option<Frame>, RecvError> {
        let job_follows = std::mem::take(&mut self.job_follows);
        if !job_follows
            && self.is_between_frames()
            && let Some(frame) = self.receive_from_mailbox()
        {
            return Ok(Some(frame));
        }
        if job_follows
            && let Some(frame) = self.endpoint.receive_from_socket(RecvFlags::DONTWAIT)?
        {
            return Ok(Some(frame));
        }
        self.undo_effects_of_jobs();
        let sleep_start = self.endpoint.mailbox().map(|_| Instant::now());
        loop {
            if !self.await_frame() {
                return Ok(None);
            }
            // `None` if a job has made the socket non-blocking.
            if let Some(frame) = self.endpoint.receive_from_socket(RecvFlags::empty())? {
                if sleep_start.is_some_and(|start| start.elapsed() < SHORT_SLEEP) {
                    self.endpoint.spin_would_have_succeeded();
                }
                return Ok(Some(frame));
            }
        }
    }

    /// Treats what is created from now on as the work of jobs. `is_new` says that this process was
    /// just forked and has run no other code of the program.
    pub(super) fn expect_jobs(&mut self, is_new: bool) {
        self.is_new = is_new;
        self.timers_of_jobs = Some(if is_new {
            NewTimers::since_fork()
        } else {
            NewTimers::since_now()
        });
    }

    /// Undoes what jobs may have done that would harm later ones, or this program after its end. It
    /// is called when no job is at hand, because it costs several system calls.
    fn undo_effects_of_jobs(&mut self) {
        if std::mem::take(&mut self.a_job_has_run) {
            // If that fails, a job has forbidden the call. If the parent has ended, the socket is
            // closed.
            let _ = self.tie.set();
            interval_timer::disarm_deadly();
            if let Some(timers) = &mut self.timers_of_jobs {
                timers.disarm_deadly();
            }
        }
    }

    /// Waits for the beginning of a frame, if none has arrived. Returns `false` if the idle timeout
    /// is over. Unmaps memory that has not been used for a while, before this and during the wait.
    ///
    /// A worker that is killed while it sleeps in `recv` still takes the job that comes before it
    /// ends, and the parent could not tell that this job has not begun. So this waits in `poll`,
    /// which leaves the job in the socket.
    fn await_frame(&mut self) -> bool {
        self.mappings.unmap_old();
        if !self.is_between_frames() {
            return true; // what has been read may be the whole frame
        }
        let mut limit = self.idle_timeout;
        let is_longer = |timeout| timeout > UNUSED_MAPPING_KEPT_FOR;
        if !self.mappings.is_empty() && limit.is_none_or(is_longer) {
            if self.is_readable_within(Some(UNUSED_MAPPING_KEPT_FOR)) {
                return true;
            }
            self.mappings.unmap_unused();
            limit = limit.map(|timeout| timeout - UNUSED_MAPPING_KEPT_FOR);
        }
        self.is_readable_within(limit)
    }

    /// Waits until the socket is readable or has an error. Returns `false` if `limit` is over
    /// before.
    fn is_readable_within(&self, limit: Option<Duration>) -> bool {
        let limit = limit.map(|limit| (limit, Instant::now()));
        loop {
            let left = limit.map(|(limit, since)| limit.saturating_sub(since.elapsed()));
            // A time that is too long for the kernel (ages) stands for forever.
            let left = left.and_then(|left| left.try_into().ok());
            let mut socket = [PollFd::new(self.socket(), PollFlags::IN)];
            match poll(&mut socket, left.as_ref()) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return true,
            }
        }
    }

    /// Spins on the mailbox for the next job. Returns `None` if the job comes through the socket.
    fn receive_from_mailbox(&mut self) -> Option<Frame> {
        if self.endpoint.next_wait_spins() {
            let processor = sched_getcpu();
            self.endpoint.watch(processor);
            if fcntl_getfd(self.socket()).is_err() {
                // A job has closed the socket. The worker must end before it takes another one.
                self.exit(EXIT_FAILED);
            }
            if self.a_job_has_run && !self.endpoint.spin_briefly(processor) {
                self.undo_effects_of_jobs();
            }
            self.endpoint
                .spin(processor, SPIN_FOR_JOB, JOB_SPIN_INTERVAL);
            if !self.endpoint.stop_watching() {
                match self.endpoint.take_from_mailbox() {
                    Ok(Some(frame)) => return Some(frame),
                    // A thread that a job left behind has overwritten the frame, or has forged one.
                    Ok(None) | Err(_) => self.exit(EXIT_FAILED),
                }
            }
        }
        self.report_unread_answer(Duration::ZERO);
        None
    }

    /// Waits up to `limit` until the parent has taken the answer out of the mailbox. If it has not,
    /// this reports the answer through the socket, because the parent does not spin.
    pub(super) fn report_unread_answer(&self, limit: Duration) {
        if !self.endpoint.wait_until_taken(limit) {
            self.send(&frame::of_bytes(Kind::AnswerInMailbox, 0, b""));
        }
    }

    /// Receives a frame before there is an idle timeout. If the parent cannot be reached, this
    /// process exits.
    pub(super) fn receive_or_exit(&mut self) -> Frame {
        match self.receive() {
            Ok(Some(frame)) => frame,
            Ok(None) | Err(_) => self.exit(EXIT_FAILED),
        }
    }

    /// Sends a frame. If the parent cannot be reached, this process has no more purpose, and exits.
    pub(super) fn send(&self, frame: &[u8]) {
        if faults::while_sending(|| socket::send_all(self.socket(), frame)).is_err() {
            self.exit(EXIT_FAILED);
        }
    }

    /// Sends the answer to the job with this number, through the mailbox if the parent watches
    /// that.
    pub(super) fn send_answer(&mut self, mut answer: OutMessage, job: u16) {
        answer.mark(job);
        self.answered = job;
        self.a_job_has_run = true;
        if !self.endpoint.post(&answer) {
            self.send_message(&answer);
            self.endpoint.signal();
        }
    }

    /// Tells the parent why a signal ends this process, whose id is `pid`, if that is known.
    pub(super) fn report_faults(&self, pid: u32) {
        faults::report_through(self.socket().as_fd(), pid);
    }

    /// Sends a message through the socket.
    fn send_message(&self, message: &OutMessage) {
        faults::while_sending(|| self.send_parts(message));
    }

    fn send_parts(&self, message: &OutMessage) {
        let mut sent = 0;
        while sent < message.bytes().len() {
            match self.endpoint.send_some(message, sent, SendFlags::empty()) {
                Ok(bytes) => sent += bytes,
                Err(Errno::INTR) => {}
                // No byte has been sent, so an error answer can be sent instead. The cause: the job
                // closed descriptors of this crate, or too many descriptors are in flight.
                Err(error) if sent == 0 && !message.fds().is_empty() => {
                    let text = format!(
                        "its shared memory cannot be sent: {}",
                        io::Error::from(error)
                    );
                    let mut answer =
                        frame::of_bytes(Kind::BadResult, message.number(), text.as_bytes());
                    frame::mark(&mut answer, self.answered);
                    return self.send(&answer);
                }
                Err(_) => self.exit(EXIT_FAILED),
            }
        }
    }

    /// Closes the receiving end, so that no further job can come, then sends the last frame and
    /// exits.
    pub(super) fn send_bye(&self, mut bye: Vec<u8>, code: i32) -> ! {
        if shutdown(self.socket(), Shutdown::Read).is_err() {
            self.exit(EXIT_FAILED); // a job may still come, so there must be no bye
        }
        frame::mark(&mut bye, self.answered);
        self.send(&bye);
        self.exit(code)
    }

    /// Reports why this worker cannot serve, and exits.
    pub(super) fn exit_cannot_serve(&self, text: &str) -> ! {
        self.send(&frame::of_bytes(Kind::CannotServe, 0, text.as_bytes()));
        self.exit(EXIT_FAILED)
    }

    /// Ends the process group of this worker, if it leads one, and exits.
    pub(super) fn exit(&self, code: i32) -> ! {
        self.group.as_ref().inspect(|group| group.end());
        std::process::exit(code)
    }
}

fn mark_of_this_process() -> Result<ProcessMark, u32> {
    ProcessMark::of_this_process().map_err(|_| std::process::id())
}
