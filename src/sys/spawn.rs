//! Executes a program in a new process, which inherits chosen descriptors under chosen numbers.
//!
//! The standard library gives a child no descriptors but the standard ones. Descriptors that are
//! made inheritable in this process would leak into whatever another thread of the program starts
//! at the same time. `posix_spawn` duplicates them in the child only; its cost does not grow with
//! the memory of this process.
//!
//! `unsafe` is needed to call `posix_spawn` and the functions that describe its work; see
//! [`spawn`].
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use rustix::process::Pid;

/// What a new process executes, and what it inherits.
pub(crate) struct Program<'a> {
    pub(crate) path: &'a CStr,
    /// The arguments, the name of the program included.
    pub(crate) arguments: &'a [CString],
    /// The environment variables: `NAME=value`.
    pub(crate) environment: &'a [CString],
    /// The working directory, if it is not that of the calling thread. A C library without
    /// `posix_spawn_file_actions_addfchdir_np` (glibc before 2.29) ignores it.
    pub(crate) directory: Option<BorrowedFd<'a>>,
    /// The descriptors that the process gets, each with its number there, which differs from the
    /// number of every descriptor here.
    pub(crate) descriptors: &'a [(BorrowedFd<'a>, RawFd)],
}

/// Starts a process, which has the signal mask of this thread. SIGPIPE, which Rust programs ignore,
/// has its default action there.
///
/// # Errors
///
/// Fails if the kernel has no process, or does not execute the program; then no process is left.
pub(crate) fn spawn(program: &Program<'_>) -> io::Result<Pid> {
    let mut actions = FileActions::new()?;
    if let Some(directory) = program.directory {
        actions.change_directory(directory)?;
    }
    for &(fd, number) in program.descriptors {
        debug_assert_ne!(fd.as_raw_fd(), number, "it would stay close-on-exec");
        actions.duplicate(fd, number)?;
    }
    let attributes = Attributes::with_default_sigpipe()?;
    let arguments = pointers(program.arguments);
    let environment = pointers(program.environment);
    let mut pid = 0;
    // SAFETY: the path and the strings are C strings, the two lists end with null pointers, and all
    // of these, the actions and the attributes live until the call returns, which is after the new
    // process has executed the program. The call writes nothing but `pid`.
    check(unsafe {
        libc::posix_spawn(
            &raw mut pid,
            program.path.as_ptr(),
            &raw const actions.0,
            &raw const attributes.0,
            arguments.as_ptr(),
            environment.as_ptr(),
        )
    })?;
    Ok(Pid::from_raw(pid).expect("a new process has a number"))
}

/// Returns pointers to the strings, which live as long as these, and a null pointer at the end.
fn pointers(strings: &[CString]) -> Vec<*mut libc::c_char> {
    let pointers = strings.iter().map(|string| string.as_ptr().cast_mut());
    pointers.chain([ptr::null_mut()]).collect()
}

/// These functions return their error.
fn check(error: libc::c_int) -> io::Result<()> {
    match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// What the new process does with its descriptors before it executes the program.
struct FileActions(libc::posix_spawn_file_actions_t);

impl FileActions {
    fn new() -> io::Result<Self> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: the call initialises the structure, for which there is room.
        check(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: the call has succeeded.
        Ok(Self(unsafe { actions.assume_init() }))
    }

    fn duplicate(&mut self, fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
        // SAFETY: the structure is initialised; the call stores two numbers in it.
        check(unsafe {
            libc::posix_spawn_file_actions_adddup2(&raw mut self.0, fd.as_raw_fd(), number)
        })
    }

    fn change_directory(&mut self, directory: BorrowedFd<'_>) -> io::Result<()> {
        match add_fchdir() {
            // SAFETY: the structure is initialised; the call stores a number in it.
            Some(add) => check(unsafe { add(&raw mut self.0, directory.as_raw_fd()) }),
            None => Ok(()),
        }
    }
}

impl Drop for FileActions {
    fn drop(&mut self) {
        // SAFETY: the structure is initialised, and not used again.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

type AddFchdir =
    unsafe extern "C" fn(*mut libc::posix_spawn_file_actions_t, libc::c_int) -> libc::c_int;

/// Returns the function that adds a change of directory, if the C library has one.
#[cfg(target_env = "gnu")]
fn add_fchdir() -> Option<AddFchdir> {
    static FOUND: std::sync::OnceLock<Option<AddFchdir>> = std::sync::OnceLock::new();
    *FOUND.get_or_init(|| {
        let name = c"posix_spawn_file_actions_addfchdir_np";
        // SAFETY: the name is a C string, and the handle stands for all loaded objects.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        // SAFETY: a pointer that is not null is the C library's function of this name, whose
        // documented type this is. A null pointer is `None`.
        unsafe { std::mem::transmute::<*mut libc::c_void, Option<AddFchdir>>(found) }
    })
}

#[cfg(not(target_env = "gnu"))]
#[expect(clippy::unnecessary_wraps, reason = "glibc may not have it")]
fn add_fchdir() -> Option<AddFchdir> {
    Some(libc::posix_spawn_file_actions_addfchdir_np)
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn with_default_sigpipe() -> io::Result<Self> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: the call initialises the structure, for which there is room.
        check(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: the call has succeeded.
        let mut attributes = Self(unsafe { attributes.assume_init() });
        let defaults = super::signal::set_of(&[libc::SIGPIPE]);
        let flags = libc::POSIX_SPAWN_SETSIGDEF as libc::c_short;
        // SAFETY: the structure and the set are initialised; the calls store values in the former.
        unsafe {
            check(libc::posix_spawnattr_setsigdefault(
                &raw mut attributes.0,
                &defaults,
            ))?;
            check(libc::posix_spawnattr_setflags(&raw mut attributes.0, flags))?;
        }
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: the structure is initialised, and not used again.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{PipeReader, Read, pipe};
    use std::os::fd::AsFd;

    use rustix::process::{WaitOptions, waitpid};

    use super::*;

    /// Runs a shell script whose descriptor 777 is a pipe, and returns what it writes there.
    fn said(script: &str, environment: &[CString], directory: Option<BorrowedFd<'_>>) -> String {
        let (mut reader, writer): (PipeReader, _) = pipe().unwrap();
        let arguments = ["sh", "-c", script].map(|argument| CString::new(argument).unwrap());
        let pid = spawn(&Program {
            path: c"/bin/sh",
            arguments: &arguments,
            environment,
            directory,
            descriptors: &[(writer.as_fd(), 777), (writer.as_fd(), 1)],
        })
        .unwrap();
        drop(writer);
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        waitpid(Some(pid), WaitOptions::empty()).unwrap();
        said
    }

    #[test]
    fn a_process_has_the_descriptors_the_environment_and_the_directory_that_it_is_given() {
        let script = "readlink /proc/$$/fd/1 /proc/$$/fd/777 | uniq | wc -l; echo $COLOUR; pwd -P";
        let root = File::open("/").unwrap();
        let environment = [c"COLOUR=green".to_owned(), c"PATH=/usr/bin:/bin".to_owned()];
        let said = said(script, &environment, Some(root.as_fd()));
        assert_eq!(
            said.split_whitespace().collect::<Vec<_>>(),
            ["1", "green", "/"]
        );
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_and_no_process() {
        let program = Program {
            path: c"/no/such/program",
            arguments: &[],
            environment: &[],
            directory: None,
            descriptors: &[],
        };
        let error = spawn(&program).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
