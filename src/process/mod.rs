//! Other programs: [`run_process`] runs a program to its end and leaves no process behind.
//!
//! [`RunProcess`] has the settings: inputs and outputs, limits of time and of output, and what ends
//! with the process. [`Process`] is a handle on a process that runs.
//!
//! ```
//! use seedbed::process::{Command, run_process};
//!
//! seedbed::run(async {
//!     let output = run_process(Command::new("sort")).input("b\na\n").capture_stdout(true).await.unwrap();
//!     assert_eq!(output.stdout, b"a\nb\n");
//! });
//! ```

// A process is polled for its end, signalled and reaped through its pidfd, never by its bare
// number, which the kernel may have given to another process.
//
// `call`, `limits` and `of_job` are the builder, which fills a `plan`; `future` is the call;
// `supervise` runs the process, `pipes` feeds and reads it, `handle` is what other tasks use,
// `spawner` is the thread that starts some of them. `child` is a child process of any kind, workers
// included; `background` runs what has no caller, `tick` is the shared timer, `notify` wakes all
// that wait for one event.

pub(crate) mod background;
mod call;
pub(crate) mod child;
mod error;
mod future;
mod handle;
mod limits;
pub(crate) mod notify;
mod of_job;
mod pipes;
mod plan;
mod spawner;
mod supervise;
pub(crate) mod tick;
mod tuning;

#[doc(no_inline)]
pub use std::process::{Command, ExitStatus, Output, Stdio};

pub use call::{RunProcess, run_process};
pub use error::{ProcessError, ProcessErrorKind};
pub use future::RunProcessFuture;
pub use handle::Process;
pub use pipes::{ChildStderr, ChildStdin, ChildStdout};
