//! Recognises, in a worker, why a signal is about to end it: a stack overflow, or an allocation
//! that failed. Otherwise the parent sees the signal only, and both look like any other crash.
//!
//! The handlers report, and then do what would have been done without them: they call the handler
//! that was there (Rust's prints its message about a stack overflow and aborts), or restore the
//! default. They run in the middle of a faulty program, so they use system calls, atomics and the
//! unwinder only. They report nothing that they are not sure of.
//!
//! `unsafe` is needed to install handlers, to read the registers of the faulty thread, and to walk
//! its stack.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::tuning::{FRAMES_SEARCHED, MEMORY_PROBE_BYTES, STACK_FAULT_DISTANCE_BYTES};

/// The reason for which a process is about to end by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    StackOverflow,
    OutOfMemory,
}

/// Reports a fault. It runs in a signal handler.
type Report = fn(Fault);

static REPORT: OnceLock<Report> = OnceLock::new();

/// The process that reports. A process that it forks has the handlers too, and must not.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// The signals that are watched.
const SIGNALS: [c_int; 3] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGABRT];

/// The actions that were there before, in the order of [`SIGNALS`].
static PREVIOUS: [OnceLock<libc::sigaction>; 3] = [const { OnceLock::new() }; 3];

/// Reports the faults of this process, whose id is `pid`, from now on. In a forked process, it
/// replaces the process that reports.
#[inline]
pub(crate) fn watch(report: Report, pid: u32) {
    PROCESS.store(pid, Ordering::Relaxed);
    if REPORT.get().is_none() {
        install(report);
    }
}

/// Installs the handlers, which forked processes inherit.
#[cold]
fn install(report: Report) {
    if REPORT.set(report).is_err() {
        return; // another thread was first
    }
    for (signal, previous) in SIGNALS.into_iter().zip(&PREVIOUS) {
        let Some(before) = action_of(signal) else {
            continue;
        };
        let handler: extern "C" fn(_, _, _) = match signal {
            libc::SIGABRT => on_abort,
            _ => on_segv,
        };
        // The flags and the mask stay those of the handler that is called from this one.
        let mut action = *previous.get_or_init(|| before);
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags |= libc::SA_SIGINFO;
        action.sa_flags &= !libc::SA_RESETHAND;
        if signal != libc::SIGABRT {
            action.sa_flags |= libc::SA_ONSTACK; // there is no room on a stack that has overflowed
        }
        set_action(signal, &action);
    }
}

fn action_of(signal: c_int) -> Option<libc::sigaction> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: with a null pointer for the new action nothing changes, and `action` has room for the
    // old one.
    let result = unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: `sigaction` has succeeded, so it has filled in the structure.
    (result == 0).then(|| unsafe { action.assume_init() })
}

fn set_action(signal: c_int, action: &libc::sigaction) {
    // SAFETY: the action is a valid one: the handlers here have the signature that `SA_SIGINFO`
    // asks for and use only what is safe in a handler; every other action was installed before.
    unsafe { libc::sigaction(signal, action, ptr::null_mut()) };
}

extern "C" fn on_segv(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid `siginfo_t`, and SIGSEGV and SIGBUS have an address if the
    // code is positive, which means that the kernel sent the signal because of an access.
    let address = unsafe { ((*info).si_code > 0).then(|| (*info).si_addr() as usize) };
    // SAFETY: with `SA_SIGINFO`, the third argument is the `ucontext_t` of the interrupted thread.
    let stack = unsafe { stack_pointer(context) };
    if let (Some(address), Some(stack)) = (address, stack)
        && is_beyond_stack(address, stack)
    {
        report(Fault::StackOverflow);
        // Rust's handler aborts, on the small stack of this handler: without another one there.
        restore(libc::SIGABRT);
    } else if address.is_some_and(|address| address < MEMORY_PROBE_BYTES) && is_out_of_memory() {
        report(Fault::OutOfMemory); // C code that has not looked at what `malloc` returned
    }
    call_previous(signal, info, context);
}

extern "C" fn on_abort(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    if has_failed_allocation() || is_out_of_memory() {
        report(Fault::OutOfMemory);
    }
    call_previous(signal, info, context);
}

fn report(fault: Fault) {
    if std::process::id() == PROCESS.load(Ordering::Relaxed)
        && let Some(report) = REPORT.get()
    {
        report(fault);
    }
}

/// Does what would have happened without the handlers here.
fn call_previous(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let Some(previous) = previous(signal) else {
        return;
    };
    let is_default = [libc::SIG_DFL, libc::SIG_IGN].contains(&previous.sa_sigaction);
    if is_default || previous.sa_flags & libc::SA_RESETHAND != 0 {
        set_default(signal);
    }
    if is_default {
        // SAFETY: the kernel passes a valid `siginfo_t`.
        let is_repeated = signal != libc::SIGABRT && unsafe { (*info).si_code } > 0;
        if !is_repeated {
            // SAFETY: the signal is blocked, so it ends the process when this handler returns.
            unsafe { libc::raise(signal) };
        }
        // Otherwise the faulty instruction is executed again, and a core dump shows it.
    } else if previous.sa_flags & libc::SA_SIGINFO != 0 {
        // SAFETY: the address is that of a handler which was installed with `SA_SIGINFO`, so it has
        // this type. It gets the arguments of this signal.
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
            unsafe { std::mem::transmute(previous.sa_sigaction) };
        handler(signal, info, context);
    } else {
        // SAFETY: the address is that of a handler which was installed without `SA_SIGINFO`, so it
        // has this type.
        let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(previous.sa_sigaction) };
        handler(signal);
    }
}

fn previous(signal: c_int) -> Option<&'static libc::sigaction> {
    let index = SIGNALS.iter().position(|&watched| watched == signal)?;
    PREVIOUS[index].get()
}

fn restore(signal: c_int) {
    if let Some(previous) = previous(signal) {
        set_action(signal, previous);
    }
}

fn set_default(signal: c_int) {
    if let Some(mut action) = action_of(signal) {
        action.sa_sigaction = libc::SIG_DFL;
        action.sa_flags = 0;
        set_action(signal, &action);
    }
}

/// Returns the stack pointer of the interrupted thread.
///
/// # Safety
///
/// `context` must lead to the `ucontext_t` of a signal handler.
unsafe fn stack_pointer(context: *mut c_void) -> Option<usize> {
    // SAFETY: the caller vouches for it.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    #[cfg(target_arch = "x86_64")]
    let pointer = Some(context.uc_mcontext.gregs[libc::REG_RSP as usize] as usize);
    #[cfg(target_arch = "aarch64")]
    let pointer = Some(context.uc_mcontext.sp as usize);
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let pointer = {
        let _ = context; // unused on processors whose registers have no known layout
        None
    };
    pointer
}

/// Returns whether an access to `address` failed because the stack ends there.
///
/// Nothing else has a reason to access memory below the stack pointer. Above it, a frame has begun
/// beyond the end of the stack: then the stack pointer itself leads to memory that cannot be read.
fn is_beyond_stack(address: usize, stack: usize) -> bool {
    let below = stack.saturating_sub(STACK_FAULT_DISTANCE_BYTES)..stack;
    let above = stack..stack.saturating_add(STACK_FAULT_DISTANCE_BYTES);
    below.contains(&address)
        || above.contains(&address) && !is_readable(stack.saturating_sub(8) & !7)
}

/// Returns whether eight bytes at this address can be read. The kernel reads a signal mask before
/// it refuses the request, which is an invalid one.
fn is_readable(address: usize) -> bool {
    // SAFETY: the kernel reads eight bytes at the address, or refuses to; it changes nothing,
    // because there is no way `-1` to change a mask.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            -1,
            address,
            ptr::null_mut::<c_void>(),
            8_usize,
        )
    };
    result == 0 || errno() != libc::EFAULT
}

fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Returns whether this process can have no more memory, not even a little.
fn is_out_of_memory() -> bool {
    let (access, kind) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: a new mapping at an address that the kernel chooses affects no other memory.
    let memory = unsafe { libc::mmap(ptr::null_mut(), MEMORY_PROBE_BYTES, access, kind, -1, 0) };
    if memory == libc::MAP_FAILED {
        return errno() == libc::ENOMEM;
    }
    // SAFETY: the mapping was made here, and is used nowhere.
    unsafe { libc::munmap(memory, MEMORY_PROBE_BYTES) };
    false
}

unsafe extern "C" {
    fn _Unwind_Backtrace(visit: Visit, found: *mut c_void) -> c_int;
    fn _Unwind_GetIP(frame: *mut c_void) -> usize;
    fn _Unwind_FindEnclosingFunction(address: *mut c_void) -> *mut c_void;
}

type Visit = extern "C" fn(frame: *mut c_void, search: *mut c_void) -> c_int;

struct Search {
    frames_left: usize,
    is_found: bool,
}

/// Returns whether this thread is inside `handle_alloc_error`, which Rust calls if an allocation
/// has failed, and which aborts.
fn has_failed_allocation() -> bool {
    let mut search = Search {
        frames_left: FRAMES_SEARCHED,
        is_found: false,
    };
    // SAFETY: the unwinder of Rust's runtime passes the pointer on to `visit`, which gives it its
    // type back, and nothing else uses `search` in the meantime.
    unsafe { _Unwind_Backtrace(visit, (&raw mut search).cast()) };
    search.is_found
}

extern "C" fn visit(frame: *mut c_void, search: *mut c_void) -> c_int {
    const GO_ON: c_int = 0;
    const STOP: c_int = 4;
    // SAFETY: `has_failed_allocation` passes the address of its `Search`.
    let search = unsafe { &mut *search.cast::<Search>() };
    // SAFETY: the unwinder passes a frame of its own. A return address may be the end of the
    // function, so the byte before it is looked up.
    let function = unsafe {
        let address = _Unwind_GetIP(frame).saturating_sub(1);
        _Unwind_FindEnclosingFunction(address as *mut c_void)
    };
    search.is_found = ptr::eq(function, std::alloc::handle_alloc_error as *const c_void);
    search.frames_left = search.frames_left.saturating_sub(1);
    if search.is_found || search.frames_left == 0 {
        STOP
    } else {
        GO_ON
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_next_to_the_stack_pointer_is_an_overflow_only_where_the_stack_ends() {
        let local = 0_u64;
        let here = (&raw const local) as usize;
        // A wild access above, in a thread whose stack has room.
        assert!(!is_beyond_stack(here + 4096, here));
        assert!(!is_beyond_stack(0, here));
        assert!(is_beyond_stack(here - 64, here)); // the caller says that it has failed
        // A stack pointer that leads to memory without access.
        // SAFETY: a new mapping at an address that the kernel chooses affects no other memory.
        let guard = unsafe {
            let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            libc::mmap(ptr::null_mut(), 8192, libc::PROT_NONE, kind, -1, 0)
        } as usize;
        assert!(is_beyond_stack(guard + 4096, guard + 2048));
        assert!(!is_readable(guard + 8) && is_readable(here & !7));
        // SAFETY: the mapping was made here, and is used nowhere.
        unsafe { libc::munmap(guard as *mut c_void, 8192) };
    }

    #[test]
    fn a_thread_that_allocates_nothing_is_not_in_a_failed_allocation() {
        assert!(!has_failed_allocation());
        assert!(!is_out_of_memory());
    }
}
