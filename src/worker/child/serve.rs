//! Serves jobs: from the hook to the end of the worker process.
//!
//! `unsafe` is needed to turn an offset that the parent sent into a function; see
//! [`Code::find`](crate::transport::job::code::Code) and the three `find_*` functions here. It is
//! also needed to create the mapping cache, and to end a process without its exit handlers.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use super::forwarder;
use super::limits;
use super::limits::CpuTime;
use super::link::Link;
use super::output;
#[cfg(feature = "stack_size")]
use super::stack;
use super::tuning::{ANSWER_TAKEN_WITHIN, EXIT_FAILED, KEPT_BUFFER_LEN};
use crate::sys::mapping_cache::MappingCache;
use crate::sys::role;
use crate::sys::role::Handshake;
use crate::sys::{descriptors, signal, socket, thread};
use crate::transport::codec;
use crate::transport::codec_error::CodecError;
use crate::transport::frame;
use crate::transport::frame::{Frame, HEADER, Header, Kind};
use crate::transport::job::code::{Code, InitFn, JobFailure, JobFn, Retire, RetireFn};
use crate::transport::job::image::fingerprint;
use crate::transport::job::panic;
use crate::transport::job::panic::catch;
use crate::transport::job::status::WorkerStatus;
use crate::transport::message::{Closure, InitFailed, Prelude, Purpose, Refusal, SetUp};
use crate::transport::out_message::OutMessage;
use crate::transport::receive::RecvError;
use crate::transport::traced::TracingLevel;

/// The standard output of this worker at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stdout {
    /// The parent's standard output.
    Inherited,
    /// `/dev/null` up to the hook, because the code before the hook (libtest) prints.
    Deferred,
}

/// Takes the socket, ties the life of this process to that of its parent, and leaves termination
/// signals to it. Returns the worker, which can serve.
pub(crate) fn take_over(handshake: Handshake) -> UnreadyWorker {
    let started = Instant::now();
    let socket = take_socket(handshake);
    signal::discard_termination_signals_and_unblock();
    // SAFETY: only `run` lends files, which came with a `Job` frame from the parent. The parent
    // gives each arena its own identifier and is its only writer. After sending one, it does not
    // write there until an answer says `NOTHING_KEPT` (see the head of `sys::arena`). `answer` says
    // so only if `end_job` returns `false`, which it calls after each job, before the answer is
    // sent.
    let mappings = unsafe { MappingCache::new() };
    let mut link = Link::new(socket, mappings, handshake.parent);
    link.tie_to_parent();
    let stdout = link.receive_prelude();
    UnreadyWorker {
        link,
        stdout,
        started,
    }
}

/// A worker that has reached the hook and not reported that yet.
pub(crate) struct UnreadyWorker {
    pub(super) link: Link,
    pub(super) started: Instant,
    /// For the workers that this one may start.
    pub(crate) stdout: Stdout,
}

impl UnreadyWorker {
    /// Serves until this process ends, as a worker or as a fork server. In a forked worker, it
    /// continues as the worker.
    pub(crate) fn serve(mut self) -> ! {
        panic::install_hook();
        let (set_up, mut fds) = self.link.receive_set_up();
        if set_up.close_inherited_descriptors {
            self.link.close_inherited_descriptors();
        }
        match set_up.purpose {
            Purpose::Work => {
                call_oneself(kernel_name(&set_up.name).as_deref());
                if !set_up.has_only_jobs {
                    role::forget_handshake();
                }
                self.link.preload(&set_up);
                self.work(&set_up, None)
            }
            Purpose::Fork => {
                // A forked worker would have to close open descriptors, so there are none.
                let table = fds.pop();
                drop(fds);
                role::forget_handshake();
                let (worker, forked) = self.fork_workers(&set_up, table);
                worker.work(&set_up, Some(forked))
            }
        }
    }

    /// Serves under the limits until this process ends.
    fn work(self, set_up: &SetUp, forked: Option<Forked>) -> ! {
        let Self {
            mut link, started, ..
        } = self;
        if set_up.default_signals {
            signal::restore_termination_signals();
        }
        let mut status = WorkerStatus::new(started);
        if set_up.limits.open_files.is_some() {
            status.keep_memory_open(); // later the limit may not allow another file
        }
        // Cheap in a forked worker, which has the handlers from its fork server.
        let pid = forked.as_ref().map(|forked| forked.pid);
        link.report_faults(pid.unwrap_or_else(std::process::id));
        if forked.is_none() && !set_up.has_only_jobs {
            limits::volunteer_for_oom_killer(&set_up.limits);
        }
        let forwarding = set_up
            .forward_tracing
            .map(|level| (level, link.socket_of_events()));
        let submitted = limits::submit_to(&set_up.limits);
        let (group, cpu_time) = submitted.unwrap_or_else(|refusal| link.refuse(refusal));
        if let Some(group) = group {
            link.set_group(group);
            link.tie_to_parent();
        }
        let worker = Worker {
            cpu_time,
            link,
            status,
            set_up,
            forked,
            forwarding,
        };
        #[cfg(feature = "stack_size")]
        if let Some(bytes) = set_up.limits.stack {
            let (worker, refusal) = stack::serve_on_stack(bytes, worker, Worker::serve);
            worker.link.refuse(refusal)
        }
        worker.serve()
    }
}

/// The state of a forked worker that a spawned one does not have.
pub(super) struct Forked {
    pub(super) pid: u32,
    /// Prepared by the fork server.
    pub(super) retire: Vec<Retire>,
}

/// A worker that runs under its limits.
struct Worker<'a> {
    link: Link,
    status: WorkerStatus,
    cpu_time: CpuTime,
    set_up: &'a SetUp,
    forked: Option<Forked>,
    /// The level of the `tracing` events to be forwarded, and the socket for them.
    forwarding: Option<(TracingLevel, OwnedFd)>,
}

impl Worker<'_> {
    /// Serves jobs until this process ends.
    fn serve(self) -> ! {
        let Self {
            mut link,
            mut status,
            cpu_time,
            set_up,
            forked,
            forwarding,
        } = self;
        let is_new = forked.is_some() && !set_up.forked_workers_report;
        let mut retire = match forked {
            Some(forked) => {
                link.call_init_as_a_copy(set_up);
                forked.retire
            }
            None => {
                let retire = link.call_init(set_up);
                if set_up.has_only_jobs {
                    // While the parent wakes up to send the first job.
                    role::forget_handshake();
                    limits::volunteer_for_oom_killer(&set_up.limits);
                }
                retire
            }
        };
        if let Some((level, socket)) = forwarding {
            forwarder::install(level, socket);
        }
        thread::record_baseline();
        link.expect_jobs(is_new);
        loop {
            let job = link.next_job();
            link.answer(job, &cpu_time, &status);
            status.count_job();
            // Threads that run on would use up the CPU time of later jobs.
            if cpu_time.is_limited() && status.threads_left() > 0 {
                link.retire();
            }
            link.consult(&mut retire, &status);
            // The idle timeout starts after the first job. A worker is started for a job, which may
            // come late from a busy parent. If the timeout were shorter than that, the parent would
            // start one worker after another, and none would get the job.
            if status.jobs() == 1 {
                link.idle_timeout = set_up.idle_timeout;
            }
        }
    }
}

/// Returns a name for the kernel, if it has no zero byte.
pub(super) fn kernel_name(name: &str) -> Option<CString> {
    CString::new(name).ok()
}

/// Sets the name that the process list shows, which is that of the main thread; see `worker::name`.
pub(super) fn call_oneself(name: Option<&CStr>) {
    let Some(name) = name else { return };
    // The name is for people only, so an error has no consequences.
    let _ = rustix::thread::set_name(name);
    if !thread::is_main() {
        let _ = std::fs::write("/proc/self/comm", name.to_bytes()); // no consequences, either
    }
}

fn take_socket(handshake: Handshake) -> OwnedFd {
    role::take_socket(handshake).unwrap_or_else(|| {
        role::exit_cannot_serve(&format!(
            "descriptor {}, over which its parent speaks to it, was closed or replaced before the hook. A worker executes \
             `main` again up to the hook: call the hook before anything that closes descriptors which it did not open",
            handshake.socket
        ))
    })
}

/// The steps before the first job.
impl Link {
    /// Receives the prelude. Restores the standard output and changes to the working directory, if
    /// the parent sent them with it.
    fn receive_prelude(&mut self) -> Stdout {
        let mut bytes = [0; HEADER];
        let received = socket::receive_with_fds(self.socket(), &mut bytes);
        let Ok(fds) = received else {
            self.exit(EXIT_FAILED)
        };
        let prelude = match Header::from_bytes(&bytes) {
            Ok(header) if header.kind == Kind::Prelude && header.length == 0 => {
                Prelude::from_number(header.number)
            }
            _ => None,
        };
        let (Some(prelude), mut fds) = (prelude, fds.into_iter()) else {
            self.exit_cannot_serve("its parent speaks another version of seedbed's protocol")
        };
        let mut next = |what| {
            fds.next().unwrap_or_else(|| {
                self.exit_cannot_serve(&format!("its parent could not send it {what}"))
            })
        };
        let stdout = prelude.stdout.then(|| next("its standard output"));
        let directory = prelude.directory.then(|| next("its working directory"));
        if let Some(stdout) = &stdout
            && let Err(error) = rustix::stdio::dup2_stdout(stdout)
        {
            self.exit_cannot_serve(&format!(
                "it could not restore its standard output: {error}"
            ))
        }
        if let Some(directory) = directory
            && let Err(error) = rustix::process::fchdir(directory)
        {
            self.exit_cannot_serve(&format!(
                "it could not change to the present working directory of its parent: {error}"
            ))
        }
        match stdout {
            Some(_) => Stdout::Deferred,
            None => Stdout::Inherited,
        }
    }

    fn receive_set_up(&mut self) -> (SetUp, Vec<OwnedFd>) {
        let mut frame = self.receive_or_exit();
        let fds = std::mem::take(&mut frame.fds);
        let set_up = match frame.header.kind {
            Kind::SetUp => codec::decode::<SetUp>(frame.payload()),
            _ => self.exit_cannot_serve("its parent did not send its set-up first"),
        };
        let image = fingerprint().unwrap_or_else(|error| {
            self.exit_cannot_serve(&format!(
                "`/proc/self/exe` cannot be reached ({error}); mount `/proc`"
            ))
        });
        self.send(&encoded(Kind::Hello, image));
        match set_up {
            Ok(set_up) if set_up.image == *image => (set_up, fds),
            // The parent's image is another one, which it learns from the hello. An undecodable
            // set-up means the same.
            Ok(_) | Err(_) => self.exit(EXIT_FAILED),
        }
    }

    /// Returns a second descriptor of the socket, for the events of jobs. It is opened before the
    /// limits apply.
    fn socket_of_events(&self) -> OwnedFd {
        self.socket().try_clone().unwrap_or_else(|error| {
            self.refuse(Refusal {
                setting: "forward_tracing(..)".into(),
                os_error: error.raw_os_error(),
                words: "it needs a descriptor".into(),
            })
        })
    }

    fn close_inherited_descriptors(&self) {
        if let Err(error) = descriptors::close_inherited(self.socket().as_fd()) {
            self.refuse(Refusal {
                setting: "close_inherited_descriptors(true)".into(),
                os_error: error.raw_os_error(),
                words: "the descriptors are listed in `/proc/self/fd`: mount `/proc`".into(),
            });
        }
    }

    /// Changes to the working directory, and calls the preload closures.
    pub(super) fn preload(&mut self, set_up: &SetUp) {
        let preloaded = limits::enter(set_up.current_dir.as_deref())
            .map_err(InitFailed::Refused)
            .and_then(|()| set_up.preload.iter().try_for_each(init));
        if let Err(failure) = preloaded {
            self.fail(&failure)
        }
    }

    /// Calls the init closures and prepares the retire closures, then reports that the worker is
    /// ready.
    fn call_init(&mut self, set_up: &SetUp) -> Vec<Retire> {
        let closures = &mut set_up.init.iter();
        let prepared = closures
            .try_for_each(init)
            .and_then(|()| set_up.retire.iter().map(retire).collect());
        // A `preload` or `init` closure may have changed the user.
        self.tie_to_parent();
        self.report(prepared)
    }

    /// Calls the init closures in a forked worker, and reports that it is ready. Without init
    /// closures there is nothing to report.
    fn call_init_as_a_copy(&mut self, set_up: &SetUp) {
        if set_up.forked_workers_report {
            let prepared = set_up.init.iter().try_for_each(init);
            self.tie_to_parent();
            self.report(prepared);
        }
    }

    /// Reports that the worker is ready. If it is not, reports why and exits.
    fn report<T>(&self, prepared: Result<T, InitFailed>) -> T {
        match prepared {
            Ok(value) => {
                self.send(&frame::of_bytes(Kind::Ready, 0, b""));
                value
            }
            Err(failure) => self.fail(&failure),
        }
    }

    fn refuse(&self, refusal: Refusal) -> ! {
        self.fail(&InitFailed::Refused(refusal))
    }

    pub(super) fn fail(&self, failure: &InitFailed) -> ! {
        self.send(&encoded(Kind::InitFailed, failure));
        self.exit(EXIT_FAILED)
    }
}

fn init(closure: &Closure) -> Result<(), InitFailed> {
    let init = find_init(closure.code).ok_or(InitFailed::NotOurCode)?;
    catch(|| init(&closure.data))
        .map_err(InitFailed::Panicked)?
        .map_err(bad_data)
}

pub(super) fn retire(closure: &Closure) -> Result<Retire, InitFailed> {
    let make = find_retire(closure.code).ok_or(InitFailed::NotOurCode)?;
    catch(|| make(&closure.data))
        .map_err(InitFailed::Panicked)?
        .map_err(bad_data)
}

fn bad_data(error: CodecError) -> InitFailed {
    InitFailed::BadData(error.to_string())
}

/// Jobs.
impl Link {
    /// Waits for a job. Exits if there will be none.
    fn next_job(&mut self) -> Frame {
        loop {
            match self.receive() {
                Ok(Some(frame)) if frame.header.kind == Kind::Job => return frame,
                Ok(Some(frame)) if frame.header.kind == Kind::Mailbox => self.map_mailbox(frame),
                // The job that it concerns has ended in the meantime.
                Ok(Some(frame)) if frame.header.kind == Kind::Cancel => {}
                Ok(Some(_)) => self.exit(EXIT_FAILED),
                // Idle for too long.
                Ok(None) => self.send_bye(frame::of_bytes(Kind::Bye, 0, b""), 0),
                Err(RecvError::Closed) if self.is_between_frames() => {
                    if self.is_new() {
                        leave_without_exit_handlers(0);
                    }
                    self.exit(0)
                }
                Err(_) => self.exit(EXIT_FAILED),
            }
        }
    }

    fn answer(&mut self, mut job: Frame, cpu_time: &CpuTime, status: &WorkerStatus) {
        let fds = std::mem::take(&mut job.fds);
        let running = self.begin_job();
        let mappings = &mut self.mappings;
        let run = |trampoline| {
            forwarder::open();
            run(trampoline, job.payload(), fds, mappings)
        };
        let mut answer = match find_job(job.header.number) {
            Some(trampoline) => match cpu_time.limit(|| run(trampoline)) {
                Ok(answer) => answer,
                // Every other worker would fail in the same way.
                Err(error) if status.jobs() == 0 => self.refuse(cpu_time.refusal(&error)),
                // An earlier job has deleted the timers. This job has not begun, so another worker
                // can run it.
                Err(_) => self.send_bye(frame::of_bytes(Kind::Bye, 2, b""), 0),
            },
            None => frame::of_bytes(Kind::NotOurCode, 0, b"").into(),
        };
        drop(running);
        if !self.is_the_worker() {
            leave_without_exit_handlers(EXIT_FAILED);
        }
        forwarder::close();
        if !self.mappings.is_empty() && self.mappings.end_job() {
            answer.set_number(frame::KEPT);
        }
        // An unfinished line of output must appear before the result does.
        output::flush();
        // And drops it: an idle worker must not keep shared memory.
        self.send_answer(answer, job.header.call);
        self.mappings.unmap_old(); // needed here because small jobs may come without a pause
        let buffer = job.into_buffer();
        if buffer.capacity() <= KEPT_BUFFER_LEN {
            self.recycle(buffer);
        }
    }

    /// Exits after a job, as if a retire closure had returned true.
    fn retire(&self) -> ! {
        self.report_unread_answer(ANSWER_TAKEN_WITHIN);
        self.send_bye(frame::of_bytes(Kind::Bye, 1, b""), 0)
    }

    /// Calls the retire closures, and exits if one returns true.
    fn consult(&mut self, retire: &mut [Retire], status: &WorkerStatus) {
        if !retire.is_empty() {
            // The closures may take long.
            self.report_unread_answer(ANSWER_TAKEN_WITHIN);
        }
        let verdict = catch(|| retire.iter().any(|wants_to| wants_to(status)));
        if !retire.is_empty() && !self.is_the_worker() {
            leave_without_exit_handlers(EXIT_FAILED);
        }
        match verdict {
            Ok(false) => {}
            Ok(true) => self.send_bye(frame::of_bytes(Kind::Bye, 1, b""), 0),
            Err(report) => self.send_bye(encoded(Kind::RetirePanicked, &report), EXIT_FAILED),
        }
    }
}

/// Ends one of two processes:
///
/// * one that a job or a retire closure has forked, and that returned from it like the worker. It
///   shares the socket, and its parent waits for one answer only. The worker itself does what a
///   full exit would do, such as flushing buffers;
/// * a worker that was forked early, and is not wanted because it has inherited other things than
///   it should. Exit handlers are code of the program, which must not run there.
fn leave_without_exit_handlers(code: i32) -> ! {
    // SAFETY: any process may call `_exit` at any moment.
    unsafe { libc::_exit(code) }
}

pub(super) fn run(
    trampoline: JobFn,
    argument: &[u8],
    fds: Vec<OwnedFd>,
    mappings: &mut MappingCache,
) -> OutMessage {
    let answered = OutMessage::build(Kind::Done, frame::NOTHING_KEPT, |answer| {
        let argument = codec::locate_argument(argument, fds, mappings)
            .map_err(|error| failed(&JobFailure::BadArgument(error)))?;
        match catch(|| trampoline(argument, answer)) {
            Ok(result) => result.map_err(|failure| failed(&failure)),
            Err(report) => Err(encoded(Kind::Panicked, &report)),
        }
    });
    answered.unwrap_or_else(OutMessage::from)
}

fn failed(failure: &JobFailure) -> Vec<u8> {
    let (kind, error) = match failure {
        JobFailure::BadArgument(error) => (Kind::BadArgument, error),
        JobFailure::BadResult(error) => (Kind::BadResult, error),
    };
    frame::of_bytes(kind, 0, error.to_string().as_bytes())
}

pub(super) fn find_job(offset: u64) -> Option<JobFn> {
    // SAFETY: the offset is the number of a `Job` frame. The parent makes such frames of a
    // `Code<JobFn>` only, and `receive_set_up`, which runs before any job, has compared the
    // fingerprints of the two images.
    unsafe { Code::<JobFn>::find(offset) }
}

fn find_init(offset: u64) -> Option<InitFn> {
    // SAFETY: the offset is the code of an entry of `SetUp::init`, which the parent fills from
    // `Code<InitFn>` only. `receive_set_up` has compared the fingerprints before it returned that
    // set-up.
    unsafe { Code::<InitFn>::find(offset) }
}

fn find_retire(offset: u64) -> Option<RetireFn> {
    // SAFETY: the offset is the code of an entry of `SetUp::retire`, which the parent fills from
    // `Code<RetireFn>` only. `receive_set_up` has compared the fingerprints before it returned that
    // set-up.
    unsafe { Code::<RetireFn>::find(offset) }
}

fn encoded<T: serde::Serialize>(kind: Kind, message: &T) -> Vec<u8> {
    let built = frame::build(kind, 0, |out| codec::encode_onto(message, out));
    built.unwrap_or_else(|error| unreachable!("our own messages can be encoded: {error}"))
}
