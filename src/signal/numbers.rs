//! The numbers of the signals that programs usually receive.

/// A timer of `alarm` has expired.
pub const SIGALRM: i32 = libc::SIGALRM;

/// A child process has ended or stopped.
pub const SIGCHLD: i32 = libc::SIGCHLD;

/// The process continues after a stop.
pub const SIGCONT: i32 = libc::SIGCONT;

/// The terminal is gone; by convention, a daemon reads its configuration again.
pub const SIGHUP: i32 = libc::SIGHUP;

/// Ctrl-C in the terminal.
pub const SIGINT: i32 = libc::SIGINT;

/// Ctrl-\\ in the terminal.
pub const SIGQUIT: i32 = libc::SIGQUIT;

/// A request to end.
pub const SIGTERM: i32 = libc::SIGTERM;

/// Ctrl-Z in the terminal.
pub const SIGTSTP: i32 = libc::SIGTSTP;

/// For the program's own purposes.
pub const SIGUSR1: i32 = libc::SIGUSR1;

/// For the program's own purposes.
pub const SIGUSR2: i32 = libc::SIGUSR2;

/// The terminal's window has another size.
pub const SIGWINCH: i32 = libc::SIGWINCH;
