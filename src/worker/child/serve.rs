//! Serving: from the hook to the end of the worker process.
//!
//! `unsafe` is needed to turn an offset that the parent sent into a function. What must hold for that is argued at
//! [`Code::find`](crate::transport::job::code::Code) and answered in the three `find_*` functions here. It is also needed to
//! promise that the parent's arenas are read as agreed, and to end, without further ado, a process that a job has
//! forked.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use super::limits;
use super::limits::CpuTime;
use super::link::Link;
use super::output;
use super::tuning::{ANSWER_TAKEN_WITHIN, EXIT_FAILED, KEPT_BUFFER_LEN};
use crate::sys::arena::MappingCache;
use crate::sys::role;
use crate::sys::role::Handshake;
use crate::sys::{signal, socket, thread};
use crate::transport::codec;
use crate::transport::codec::CodecError;
use crate::transport::frame;
use crate::transport::frame::{Frame, HEADER, Header, Kind};
use crate::transport::job::code::{Code, InitFn, JobFailure, JobFn, Retire, RetireFn};
use crate::transport::job::image::fingerprint;
use crate::transport::job::panic;
use crate::transport::job::panic::catch;
use crate::transport::job::status::WorkerStatus;
use crate::transport::message::{Closure, InitFailed, Purpose, Refusal, SetUp};
use crate::transport::out_message::OutMessage;
use crate::transport::receive::RecvError;

/// What the standard output of this worker was when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stdout {
    /// The parent's.
    Inherited,
    /// `/dev/null` up to the hook, because the way there prints things of its own.
    Deferred,
}

/// Takes the socket off the standard input, and makes this process one that ends with its parent and does not mind
/// Ctrl-C. What it returns serves.
pub(crate) fn take_over(handshake: Handshake) -> UnreadyWorker {
    let started = Instant::now();
    let socket = take_socket(handshake);
    die_with(handshake.parent);
    signal::ignore_sigint_and_unblock();
    // SAFETY: only `run` has something lent, namely what came with a `Job` frame. Such frames come from our parent, who
    // numbers its arenas, is the only one who can write them, and, having sent one, does not write there before it has
    // an answer that says `NOTHING_KEPT` (see the head of `sys::arena`). `answer` says that only if `settle` does,
    // which it asks after each job, before its answer is sent.
    let mappings = unsafe { MappingCache::new() };
    let mut link = Link::new(socket, mappings);
    let stdout = link.receive_prelude();
    UnreadyWorker {
        link,
        stdout,
        started,
        handshake,
    }
}

/// A worker that has reached the hook and not yet said so.
pub(crate) struct UnreadyWorker {
    pub(super) link: Link,
    pub(super) started: Instant,
    pub(super) handshake: Handshake,
    /// For the workers that this one may start in turn.
    pub(crate) stdout: Stdout,
}

impl UnreadyWorker {
    /// Serves until this process ends: as a worker, or as a fork server, in whose copies this returns a second time.
    pub(crate) fn serve(mut self) -> ! {
        panic::install_hook();
        let (set_up, mut fds) = self.link.receive_set_up();
        match set_up.purpose {
            Purpose::Work => {
                call_oneself(kernel_name(&set_up.name).as_deref());
                self.link.preload(&set_up);
                self.work(&set_up, None)
            }
            Purpose::Fork => {
                // What is at hand when a copy is made, each copy has to let go; so nothing is.
                let table = fds.pop();
                drop(fds);
                let (worker, retire) = self.fork_workers(&set_up, table);
                worker.work(&set_up, Some(retire))
            }
        }
    }

    /// Serves under its limits until this process ends. A copy of a fork server brings its retire closures.
    fn work(self, set_up: &SetUp, retire: Option<Vec<Retire>>) -> ! {
        let Self {
            mut link,
            started,
            handshake,
            ..
        } = self;
        let mut status = WorkerStatus::new(started);
        if set_up.limits.open_files.is_some() {
            status.keep_memory_open(); // later there may be no room for another file
        }
        let submitted = limits::submit_to(&set_up.limits);
        let (group, cpu_time) = submitted.unwrap_or_else(|refusal| link.refuse(refusal));
        link.set_group(group);
        let worker = Worker {
            cpu_time,
            link,
            handshake,
            status,
            set_up,
            retire,
        };
        let (worker, refusal) = limits::serve_on_stack(set_up.limits.stack, worker, Worker::serve);
        worker.link.refuse(refusal)
    }
}

/// A worker under its limits.
struct Worker<'a> {
    link: Link,
    handshake: Handshake,
    status: WorkerStatus,
    cpu_time: CpuTime,
    set_up: &'a SetUp,
    /// In a copy of a fork server, which has prepared them.
    retire: Option<Vec<Retire>>,
}

impl Worker<'_> {
    /// Serves jobs until this process ends.
    fn serve(self) -> ! {
        let Self {
            mut link,
            handshake,
            mut status,
            cpu_time,
            set_up,
            retire,
        } = self;
        let mut retire = match retire {
            Some(retire) => {
                link.call_init_as_a_copy(set_up);
                retire
            }
            None => link.call_init(set_up),
        };
        if !set_up.init.is_empty() {
            // The kernel forgets this tie when a process changes its user, as an init closure may have done.
            die_with(handshake.parent);
        }
        output::no_job_has_run();
        loop {
            let job = link.next_job();
            link.answer(job, &cpu_time, &status);
            status.count_job();
            link.consult(&mut retire, &status);
            // A worker is started for a job, which comes as soon as its parent gets round to it. If it did not wait for
            // that, a parent that is busy for longer than the idle timeout would start one worker after the other and
            // have the job run by none.
            if status.jobs() == 1 {
                link.set_idle_timeout(set_up.idle_timeout);
            }
        }
    }
}

/// A name as the kernel takes it, if it does.
pub(super) fn kernel_name(name: &str) -> Option<CString> {
    CString::new(name).ok()
}

/// The name is for people who look at the process list, which shows that of the main thread; see `worker::name`.
pub(super) fn call_oneself(name: Option<&CStr>) {
    let Some(name) = name else { return };
    let _ = rustix::thread::set_name(name); // a kernel that refuses it changes nothing
    if !thread::is_main() {
        let _ = std::fs::write("/proc/self/comm", name.to_bytes()); // as above
    }
}

fn take_socket(handshake: Handshake) -> OwnedFd {
    let stdin = rustix::stdio::stdin();
    if socket::socket_inode(stdin) != Some(handshake.inode) {
        role::exit_cannot_serve(
            "its standard input, over which its parent speaks to it, was replaced before the hook. A worker executes \
             `main` again up to the hook: call the hook before anything that redirects or reads standard input",
        );
    }
    let moved = socket::move_out_of_the_way(stdin).and_then(|moved| {
        rustix::stdio::dup2_stdin(socket::dev_null()?)?;
        Ok(moved)
    });
    moved.unwrap_or_else(|error| {
        role::exit_cannot_serve(&format!("it could not move its socket away: {error}"))
    })
}

/// Asks the kernel to kill this process when the thread that started it ends, and sees whether that was too late.
pub(super) fn die_with(parent: u32) {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        role::exit_cannot_serve(&format!(
            "it could not tie its life to its parent's: {error}"
        ));
    }
    let now = getppid().map_or(0, |now| now.as_raw_nonzero().get().cast_unsigned());
    // 0 stands for a parent outside this process's namespace, and the dead are replaced by others.
    if now != parent && now != 0 {
        std::process::exit(EXIT_FAILED);
    }
}

/// Before the first job.
impl Link {
    fn receive_prelude(&mut self) -> Stdout {
        let mut bytes = [0; HEADER];
        let received = socket::receive_with_fds(self.socket(), &mut bytes);
        let Ok(mut stdout) = received else {
            self.exit(EXIT_FAILED)
        };
        match (Header::from_bytes(&bytes), stdout.pop()) {
            (
                Ok(Header {
                    kind: Kind::Prelude,
                    number: 0,
                    length: 0,
                    ..
                }),
                None,
            ) => Stdout::Inherited,
            (
                Ok(Header {
                    kind: Kind::Prelude,
                    number: 1,
                    length: 0,
                    ..
                }),
                Some(stdout),
            ) => match rustix::stdio::dup2_stdout(stdout) {
                Ok(()) => Stdout::Deferred,
                Err(error) => self.exit_cannot_serve(&format!(
                    "it could not restore its standard output: {error}"
                )),
            },
            _ => self.exit_cannot_serve("its parent speaks another version of seedbed's protocol"),
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
            // Not our parent's image: it learns that from our hello. A set-up that does not decode comes from one, too.
            Ok(_) | Err(_) => self.exit(EXIT_FAILED),
        }
    }

    /// Goes to where the preload closures are to be called, and calls them.
    pub(super) fn preload(&mut self, set_up: &SetUp) {
        let preloaded = limits::enter(set_up.current_dir.as_deref())
            .map_err(InitFailed::Refused)
            .and_then(|()| set_up.preload.iter().try_for_each(init));
        if let Err(failure) = preloaded {
            self.fail(&failure)
        }
    }

    /// Calls the init closures and prepares the retire closures, then says that the worker is ready.
    fn call_init(&mut self, set_up: &SetUp) -> Vec<Retire> {
        let closures = &mut set_up.init.iter();
        let prepared = closures
            .try_for_each(init)
            .and_then(|()| set_up.retire.iter().map(retire).collect());
        self.report(prepared)
    }

    /// The same in a process that has been forked, which has got all else behind it. If its job is on its way, there is
    /// nothing to say.
    fn call_init_as_a_copy(&mut self, set_up: &SetUp) {
        if set_up.copies_report {
            self.report(set_up.init.iter().try_for_each(init));
        }
    }

    /// Says that the worker is ready, or else why it is not, and then it leaves.
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

    fn set_idle_timeout(&mut self, timeout: Option<Duration>) {
        // Zero would mean "for ever" to the kernel. What it finds too long (ages) may as well be for ever.
        let timeout = timeout.map(|timeout| timeout.max(Duration::from_millis(1)));
        self.idle_timeout = timeout;
        if set_socket_timeout(self.socket(), Timeout::Recv, timeout).is_err() {
            debug_assert!(timeout.is_some_and(|timeout| timeout > Duration::from_secs(1 << 32)));
        }
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
    /// Waits for a job; leaves when there will be none.
    fn next_job(&mut self) -> Frame {
        loop {
            match self.receive() {
                Ok(Some(frame)) if frame.header.kind == Kind::Job => return frame,
                Ok(Some(frame)) if frame.header.kind == Kind::Mailbox => self.map_mailbox(frame),
                Ok(Some(_)) => self.exit(EXIT_FAILED),
                // Idle for too long.
                Ok(None) => self.send_bye(frame::of_bytes(Kind::Bye, 0, b""), 0),
                Err(RecvError::Closed) if self.is_between_frames() => self.exit(0),
                Err(_) => self.exit(EXIT_FAILED),
            }
        }
    }

    fn answer(&mut self, mut job: Frame, cpu_time: &CpuTime, status: &WorkerStatus) {
        let fds = std::mem::take(&mut job.fds);
        let mappings = &mut self.mappings;
        let run = |trampoline| run(trampoline, job.payload(), fds, mappings);
        let mut answer = match find_job(job.header.number) {
            Some(trampoline) => match cpu_time.limit(|| run(trampoline)) {
                Ok(answer) => answer,
                // Another worker would come to the same, and so would the one after that.
                Err(error) if status.jobs() == 0 => self.refuse(cpu_time.refusal(&error)),
                // An earlier job has deleted our timers. This one has not begun.
                Err(_) => self.send_bye(frame::of_bytes(Kind::Bye, 0, b""), 0),
            },
            None => frame::of_bytes(Kind::NotOurCode, 0, b"").into(),
        };
        if !self.is_the_worker() {
            leave_as_a_copy();
        }
        if self.mappings.end_job() {
            answer.set_number(frame::KEPT);
        }
        // What the job printed without a line's end is to be seen before its result is.
        output::flush();
        self.send_answer(answer, job.header.call); // and drops it: an idle worker must not hold on to shared memory
        self.mappings.unmap_old(); // also if small jobs come without a pause
        let buffer = job.into_buffer();
        if buffer.capacity() <= KEPT_BUFFER_LEN {
            self.recycle(buffer);
        }
    }

    /// Asks the retire closures, and leaves if one says so.
    fn consult(&mut self, retire: &mut [Retire], status: &WorkerStatus) {
        if !retire.is_empty() {
            // They may take long.
            self.report_unread_answer(ANSWER_TAKEN_WITHIN);
        }
        let verdict = catch(|| retire.iter().any(|wants_to| wants_to(status)));
        if !retire.is_empty() && !self.is_the_worker() {
            leave_as_a_copy();
        }
        match verdict {
            Ok(false) => {}
            Ok(true) => self.send_bye(frame::of_bytes(Kind::Bye, 1, b""), 0),
            Err(report) => self.send_bye(encoded(Kind::RetirePanicked, &report), EXIT_FAILED),
        }
    }
}

/// Ends a process that a job, or a retire closure, forked and that came back from it like the worker itself. Both have
/// the socket, and nobody waits for a second answer.
fn leave_as_a_copy() -> ! {
    // SAFETY: `_exit` may be called by any process at any moment. What a full exit would do besides, such as writing
    // out buffers, is the original's to do.
    unsafe { libc::_exit(EXIT_FAILED) }
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
    // SAFETY: called with the number of a `Job` frame only. The parent makes such frames of a `Code<JobFn>` alone, and
    // `receive_set_up`, which comes before any job, has compared its image's fingerprint with ours.
    unsafe { Code::<JobFn>::find(offset) }
}

fn find_init(offset: u64) -> Option<InitFn> {
    // SAFETY: called with the code of `SetUp::init` only, which the parent fills from `Code<InitFn>` alone;
    // `receive_set_up` has compared the fingerprints before it gave that set-up out.
    unsafe { Code::<InitFn>::find(offset) }
}

fn find_retire(offset: u64) -> Option<RetireFn> {
    // SAFETY: as in `find_init`, with `SetUp::retire` and `Code<RetireFn>`.
    unsafe { Code::<RetireFn>::find(offset) }
}

fn encoded<T: serde::Serialize>(kind: Kind, message: &T) -> Vec<u8> {
    let built = frame::build(kind, 0, |out| codec::encode_onto(message, out));
    built.unwrap_or_else(|error| unreachable!("our own messages can be encoded: {error}"))
}
