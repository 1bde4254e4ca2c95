//! The limits over shared memory: a mailbox that two processes map, and an arena behind it for
//! large arguments.
//!
//! The caller writes a number and increments a count. The child sees the count, writes its answer
//! and increments its own count. There are no checks and no error handling, so this is the minimum
//! cost of a call. The two kinds of waiting differ: [`Wait::Spin`] never releases its core;
//! [`Wait::Hybrid`] spins briefly, announces that it sleeps, and sleeps on a futex or, inside an
//! executor, on an eventfd.
//!
//! Memory that another process writes to needs `unsafe`. Both processes write only to atomics; the
//! arena has one user at a time, and the counts pass it on.
#![allow(unsafe_code)]

use std::{
    cell::Cell,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::Child,
    ptr,
    sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{Acquire, Relaxed, Release, SeqCst},
        fence,
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{MemfdFlags, Mode, OFlags, ftruncate, memfd_create, open},
    io::Errno,
    mm::{MapFlags, ProtFlags, mmap, munmap},
    process::{Signal, set_parent_process_death_signal},
    thread::futex,
};
use smol::Async;

use crate::{
    child::{self, pin_to_core},
    measure,
};

/// The time that the hybrid spins before it sleeps.
const SPIN_LIMIT: Duration = Duration::from_micros(20);

/// The bytes of the memory that the mailbox takes. The arena starts there.
const HEAD: usize = 4096;

/// The argument that the child answers with the CPU time that it has used, in nanoseconds.
const CPU_TIME: u64 = u64::MAX;

/// The way in which each side waits for the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wait {
    Spin,
    Hybrid,
}

/// The child's answer to an argument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Job {
    /// The successor of the argument.
    Successor,
    /// The sum of the arena's bytes.
    Sum,
    /// Fills a fresh `Vec` of the arena's size with the argument, and copies it to the arena.
    Give,
}

/// A child process that answers over shared memory. It ends when this value is dropped.
pub struct Mailbox {
    memory: Memory,
    wait: Wait,
    /// The child writes to it when the caller sleeps in an executor.
    event: Async<OwnedFd>,
    child: Child,
    asked: Cell<u64>,
}

impl Mailbox {
    /// Starts the child, on `core` if given, with an arena of `arena` bytes.
    pub fn start(wait: Wait, job: Job, arena: usize, core: Option<usize>) -> Mailbox {
        let file = memfd_create("mailbox", MemfdFlags::CLOEXEC).expect("a memory file");
        let memory = Memory::create(&file, HEAD + arena);
        let event = eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd");
        // The child opens the file through this process, which lives at least until the first
        // answer.
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let child = child::this_program(child::MAILBOX)
            .args([
                path,
                memory.length.to_string(),
                (wait == Wait::Spin).to_string(),
            ])
            .arg(format!("{job:?}"))
            .args(core.map(|core| core.to_string()))
            .stdin(event.try_clone().expect("a descriptor"))
            .spawn()
            .expect("this executable starts again");
        let mailbox = Mailbox {
            memory,
            wait,
            event: Async::new(event).expect("an eventfd has readiness"),
            child,
            asked: Cell::new(0),
        };
        mailbox.cpu_time(); // after the answer, the child has opened the file
        mailbox
    }

    /// Calls the child, and blocks this thread.
    pub fn call(&self, argument: u64) -> u64 {
        self.answer(self.post(argument))
    }

    /// Waits for the answer to a call that [`post`](Mailbox::post) began.
    pub fn answer(&self, call: u64) -> u64 {
        let words = self.memory.words();
        let there = || (words.answer.0.count.load(Acquire) == call).then_some(());
        wait_for(there, self.wait, &words.caller_sleeps.0);
        words.answer.0.number.load(Relaxed)
    }

    /// Calls the child inside an executor, which may park its thread.
    pub async fn call_async(&self, argument: u64) -> u64 {
        let call = self.post(argument);
        let words = self.memory.words();
        let answer = &words.answer.0;
        let there = || (answer.count.load(Acquire) == call).then_some(());
        if spin(there, Some(SPIN_LIMIT)).is_none() {
            words.caller_sleeps.0.store(Sleep::OnEvent as u32, SeqCst);
            fence(SeqCst); // see `wait_for`
            while answer.count.load(Acquire) != call {
                self.event.readable().await.expect("our own descriptor");
                match rustix::io::read(&self.event, &mut [0; 8]) {
                    Ok(_) | Err(Errno::AGAIN) => {}
                    Err(error) => panic!("reading our own eventfd: {error}"),
                }
            }
            words.caller_sleeps.0.store(Sleep::No as u32, SeqCst);
        }
        answer.number.load(Relaxed)
    }

    /// Returns the CPU time that the child has used.
    pub fn cpu_time(&self) -> Duration {
        Duration::from_nanos(self.call(CPU_TIME))
    }

    /// Copies `bytes`, which are as long as the arena, into the arena.
    pub fn fill(&mut self, bytes: &[u8]) {
        self.memory.arena_mut().copy_from_slice(bytes);
    }

    /// Returns a copy of the arena.
    pub fn copy(&self) -> Vec<u8> {
        self.memory.arena().to_vec()
    }

    /// Begins a call.
    pub fn post(&self, argument: u64) -> u64 {
        let call = self.asked.get() + 1;
        self.asked.set(call);
        let words = self.memory.words();
        words.request.0.number.store(argument, Relaxed);
        words.request.0.count.store(call, Release);
        wake(&words.child_sleeps.0, || {
            unreachable!("a child has no event")
        });
        call
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }
}

/// Answers calls until the process is killed.
pub fn serve(mut arguments: impl Iterator<Item = String>) -> ! {
    set_parent_process_death_signal(Some(Signal::KILL)).expect("prctl");
    let mut next = || arguments.next().expect("an argument");
    let file = open(next(), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let length = next().parse().expect("a length");
    let mut memory = Memory::map(file.expect("the parent has it open"), length);
    let wait = if next().parse().expect("a bool") {
        Wait::Spin
    } else {
        Wait::Hybrid
    };
    let job = next();
    if let Some(core) = arguments.next() {
        pin_to_core(core.parse().expect("a core's number"));
    }
    let mut answered = 0;
    loop {
        let words = memory.words();
        let there = || (words.request.0.count.load(Acquire) != answered).then_some(());
        wait_for(there, wait, &words.child_sleeps.0);
        let argument = words.request.0.number.load(Relaxed);
        let number = match (job.as_str(), argument) {
            (_, CPU_TIME) => measure::process_time().as_nanos() as u64,
            ("Successor", number) => number + 1,
            ("Sum", _) => crate::bytes::sum(memory.arena()),
            ("Give", byte) => {
                let bytes = crate::bytes::make((byte, memory.arena().len()));
                memory.arena_mut().copy_from_slice(&bytes);
                0
            }
            (other, _) => panic!("no job is called {other}"),
        };
        answered += 1;
        let words = memory.words();
        words.answer.0.number.store(number, Relaxed);
        words.answer.0.count.store(answered, Release);
        wake(&words.caller_sleeps.0, || {
            rustix::io::write(std::io::stdin(), &1u64.to_ne_bytes()).expect("the event");
        });
    }
}

/// Whether a side sleeps, and on what.
#[repr(u32)]
enum Sleep {
    No,
    OnFutex,
    OnEvent,
}

/// Waits until `there` returns a value.
fn wait_for<T>(there: impl Fn() -> Option<T>, wait: Wait, sleeps: &AtomicU32) -> T {
    let limit = (wait == Wait::Hybrid).then_some(SPIN_LIMIT);
    if let Some(found) = spin(&there, limit) {
        return found;
    }
    loop {
        sleeps.store(Sleep::OnFutex as u32, SeqCst);
        // The fence orders the announcement before the next load: either this load sees the other
        // side's write, or the other side sees that this side sleeps.
        fence(SeqCst);
        if let Some(found) = there() {
            sleeps.store(Sleep::No as u32, Relaxed);
            return found;
        }
        match futex::wait(sleeps, futex::Flags::empty(), Sleep::OnFutex as u32, None) {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => panic!("futex: {error}"),
        }
    }
}

/// Calls `there` until it returns a value, or until `limit` has passed, if there is one.
fn spin<T>(there: impl Fn() -> Option<T>, limit: Option<Duration>) -> Option<T> {
    const LOOKS: u32 = 64;
    let began = Instant::now();
    loop {
        for _ in 0..LOOKS {
            if let Some(found) = there() {
                return Some(found);
            }
            std::hint::spin_loop();
        }
        if limit.is_some_and(|limit| began.elapsed() > limit) {
            return None;
        }
    }
}

/// Wakes the side that has announced that it sleeps, if it does.
fn wake(sleeps: &AtomicU32, event: impl FnOnce()) {
    fence(SeqCst);
    if sleeps.load(Relaxed) == Sleep::No as u32 {
        return;
    }
    let slept = sleeps.swap(Sleep::No as u32, SeqCst);
    if slept == Sleep::OnFutex as u32 {
        futex::wake(sleeps, futex::Flags::empty(), 1).expect("futex");
    } else if slept == Sleep::OnEvent as u32 {
        event();
    }
}

/// The start of the memory. Each word has its own cache lines: two, because the processor
/// prefetches the neighbouring line. The memory is zero at first, which is a valid value of each
/// word.
#[repr(C)]
struct Words {
    request: Line<Numbered>,
    answer: Line<Numbered>,
    child_sleeps: Line<AtomicU32>,
    caller_sleeps: Line<AtomicU32>,
}

#[repr(C, align(128))]
struct Line<T>(T);

#[repr(C)]
struct Numbered {
    count: AtomicU64,
    number: AtomicU64,
}

/// Memory that this process shares with another one.
struct Memory {
    start: ptr::NonNull<u8>,
    length: usize,
}

impl Memory {
    fn create(file: impl AsFd, length: usize) -> Memory {
        ftruncate(&file, length as u64).expect("room in memory");
        Memory::map(file, length)
    }

    fn map(file: impl AsFd, length: usize) -> Memory {
        const { assert!(size_of::<Words>() <= HEAD) }
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: with a null address, the kernel chooses unused addresses.
        let start = unsafe { mmap(ptr::null_mut(), length, protection, flags, file, 0) };
        let start = ptr::NonNull::new(start.expect("room for a mapping").cast());
        Memory {
            start: start.expect("a mapping is nowhere near null"),
            length,
        }
    }

    fn words(&self) -> &Words {
        // SAFETY: the mapping begins at a page, is at least one page long and lives as long as
        // `self`. No process truncates the file. `Words` consists of atomics, which other processes
        // may write to, and for which all bits are valid. References to the arena begin behind
        // them.
        unsafe { self.start.cast().as_ref() }
    }

    fn arena(&self) -> &[u8] {
        // SAFETY: the range is in bounds, and the bytes of a file are initialised. The child writes
        // to the arena only between a request and its answer, and the caller only outside of that
        // time; each side reads only in its own time.
        unsafe { std::slice::from_raw_parts(self.start.add(HEAD).as_ptr(), self.length - HEAD) }
    }

    fn arena_mut(&mut self) -> &mut [u8] {
        // SAFETY: the argument of `arena` holds, and `&mut self` excludes other references of this
        // process.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(HEAD).as_ptr(), self.length - HEAD) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: `self` owns the mapping, and no reference outlives `self`.
        unsafe { munmap(self.start.as_ptr().cast(), self.length) }.expect("our own mapping");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_spins_finds_what_is_there_and_gives_up_otherwise() {
        assert_eq!(spin(|| Some(7), Some(Duration::ZERO)), Some(7));
        assert_eq!(spin(|| None::<()>, Some(Duration::ZERO)), None);
    }

    #[test]
    fn a_sleeper_is_woken_by_what_it_sleeps_on_and_once() {
        let (sleeps, events) = (AtomicU32::new(Sleep::OnEvent as u32), Cell::new(0));
        let event = || events.set(events.get() + 1);
        wake(&sleeps, event);
        wake(&sleeps, event);
        assert_eq!((events.get(), sleeps.load(SeqCst)), (1, Sleep::No as u32));

        let sleeps = AtomicU32::new(Sleep::No as u32);
        let there = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while sleeps.load(SeqCst) == Sleep::No as u32 {
                    std::hint::spin_loop();
                }
                there.store(1, SeqCst);
                wake(&sleeps, || unreachable!("it sleeps on the futex"));
            });
            let look = || (there.load(SeqCst) == 1).then_some(());
            wait_for(look, Wait::Hybrid, &sleeps);
        });
    }

    #[test]
    fn two_mappings_of_one_file_are_the_same_memory() {
        let file = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        let mut ours = Memory::create(&file, HEAD + 3);
        let theirs = Memory::map(&file, HEAD + 3);
        ours.arena_mut().copy_from_slice(&[1, 2, 3]);
        ours.words().request.0.number.store(9, SeqCst);
        assert_eq!(theirs.arena(), [1, 2, 3]);
        assert_eq!(theirs.words().request.0.number.load(SeqCst), 9);
    }
}
