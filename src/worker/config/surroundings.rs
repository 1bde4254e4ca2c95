//! Where the workers of a context find themselves: environment, working directory, process group.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;

use super::WorkerConfig;

impl WorkerConfig {
    /// Sets an environment variable in the workers, as [`Command::env`](std::process::Command::env) does: all else they
    /// have from this process, as it is when they are started.
    ///
    /// It is set when the program is executed again, by the kernel, so it is there for the dynamic linker and for what
    /// `main` does before the hook. Of a variable that is set twice the last value counts.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn mode(_: ()) -> Option<String> {
    ///     std::env::var("MODE").ok()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().env("MODE", "careful");
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert_eq!(workers.run_sync(mode, ()).await.unwrap().as_deref(), Some("careful"));
    ///     }));
    ///     assert_eq!(std::env::var_os("MODE"), None, "not here");
    /// }
    /// ```
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        let (key, value) = (key.as_ref(), value.as_ref());
        let words = match (fault_of_key(key), value.as_bytes().contains(&0)) {
            (Some(words), _) => Some(words),
            (None, true) => Some("a value cannot contain a zero byte"),
            (None, false) => None,
        };
        if let Some(words) = words {
            self.refuse(format!("env({key:?}, ..)"), words); // the value may be a secret
        }
        self.environment
            .changes
            .push(Change::Set(key.into(), value.into()));
        self
    }

    /// Removes an environment variable in the workers, as [`Command::env_remove`](std::process::Command::env_remove)
    /// does.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn has_path(_: ()) -> bool {
    ///     std::env::var_os("PATH").is_some()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().env_remove("PATH");
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert!(!workers.run_sync(has_path, ()).await.unwrap());
    ///     }));
    /// }
    /// ```
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        let key = key.as_ref();
        if let Some(words) = fault_of_key(key) {
            self.refuse(format!("env_remove({key:?})"), words);
        }
        self.environment.changes.push(Change::Remove(key.into()));
        self
    }

    /// Lets the workers have none of this process's environment variables, as
    /// [`Command::env_clear`](std::process::Command::env_clear) does; also forgets those set before. One is always
    /// there: it tells a worker that it is one.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn count(_: ()) -> usize {
    ///     std::env::vars_os().count()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().env_clear().env("LANG", "C");
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert_eq!(workers.run_sync(count, ()).await.unwrap(), 2);
    ///     }));
    /// }
    /// ```
    pub fn env_clear(mut self) -> Self {
        self.environment.changes.clear();
        self.environment.changes.push(Change::Clear);
        self
    }

    /// Sets the working directory of the workers. A relative path starts from the directory that this process has when
    /// it starts the worker, or the fork server.
    ///
    /// The change happens at the hook, before [`preload`](Self::preload); what `main` does before that is still in the
    /// old directory, where its relative arguments lead to.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::path::PathBuf;
    /// use seedbed::worker::WorkerErrorKind;
    /// use seedbed::{WorkerConfig, open_worker_context, run_sync};
    ///
    /// fn here(_: ()) -> PathBuf {
    ///     std::env::current_dir().unwrap()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().current_dir("/");
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert_eq!(workers.run_sync(here, ()).await.unwrap(), PathBuf::from("/"));
    ///     }));
    ///     let config = WorkerConfig::new().current_dir("/no/such/place");
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         let error = workers.run_sync(here, ()).await.unwrap_err();
    ///         assert_eq!(error.kind(), WorkerErrorKind::Start);
    ///         assert!(error.to_string().contains(r#"current_dir("/no/such/place")"#));
    ///     }));
    /// }
    /// ```
    pub fn current_dir(mut self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        if path.as_os_str().as_bytes().contains(&0) {
            let words = "a path cannot contain a zero byte";
            self.refuse(format!("current_dir({path:?})"), words);
        }
        self.current_dir = Some(path);
        self
    }

    /// Whether the processes that jobs start end with their worker. If so, each worker leads a process group of its
    /// own. It kills all others of that group when it leaves, be it retired, idle for too long or told to go; this
    /// process kills them when it kills the worker, and otherwise before it reaps it, as after a crash. They are not
    /// waited for.
    ///
    /// What a job starts is in its group unless it leaves it, as shells with job control and daemons do (`setpgid`,
    /// `setsid`): that lives on. A job that is *done* does not end its worker, so what it has started runs on until the
    /// worker goes, which is at once with [`single_use`](Self::single_use). And should this process end without a word,
    /// killed by SIGKILL for one, the kernel kills the workers, but there is nobody left to kill their groups.
    ///
    /// A group of its own also keeps the terminal from the worker. Ctrl-C and Ctrl-Z do not reach what its jobs start,
    /// and a program that is stopped by Ctrl-Z has workers that are not. Where the terminal is set to `tostop`, a
    /// worker that writes to it is stopped. In exchange, a job that signals its process group does not signal this
    /// program.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    /// use std::process::{Command, Stdio};
    ///
    /// fn leave_a_process(_: ()) -> u32 {
    ///     Command::new("sleep").arg("1000").stdout(Stdio::null()).spawn().unwrap().id()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().kill_tree(true).single_use();
    ///     let sleeper = smol::block_on(open_worker_context(config, |workers| async move {
    ///         workers.run_sync(leave_a_process, ()).await.unwrap()
    ///     }));
    ///     let stat = format!("/proc/{sleeper}/stat");
    ///     let lives = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
    ///     while lives() {} // it is killed, which may take a moment
    ///     assert!(!lives());
    /// }
    /// ```
    pub fn kill_tree(mut self, kill: bool) -> Self {
        self.limits.own_group = kill;
        self
    }
}

fn fault_of_key(key: &OsStr) -> Option<&'static str> {
    match key.as_bytes() {
        [] => Some("a variable needs a name"),
        name if name.contains(&b'=') || name.contains(&0) => {
            Some("the name of a variable cannot contain `=` or a zero byte")
        }
        _ => None,
    }
}

/// What becomes of the environment on the way to a new process.
#[derive(Clone, Default)]
pub(in crate::worker) struct Environment {
    /// In the order in which they were asked for.
    changes: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Set(OsString, OsString),
    Remove(OsString),
    Clear,
}

impl Environment {
    pub(in crate::worker) fn apply_to(&self, command: &mut Command) {
        for change in &self.changes {
            match change {
                Change::Set(key, value) => command.env(key, value),
                Change::Remove(key) => command.env_remove(key),
                Change::Clear => command.env_clear(),
            };
        }
    }
}

/// Shows names and no values.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for change in &self.changes {
            match change {
                Change::Set(key, _) => list.entry(&format_args!("{key:?} = ..")),
                Change::Remove(key) => list.entry(&format_args!("no {key:?}")),
                Change::Clear => list.entry(&format_args!("nothing inherited")),
            };
        }
        list.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::error::WorkerErrorKind;

    #[test]
    fn what_no_environment_or_path_can_hold_is_refused() {
        let refused = |config: WorkerConfig, setting: &str| {
            let error = config.check().unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Config);
            assert!(error.to_string().contains(setting), "{error}");
        };
        refused(WorkerConfig::new().env("", "x"), r#"env("", ..)"#);
        refused(WorkerConfig::new().env("A=B", "x"), r#"env("A=B", ..)"#);
        refused(WorkerConfig::new().env("A", "x\0"), "zero byte");
        refused(
            WorkerConfig::new().env_remove("A\0"),
            r#"env_remove("A\0")"#,
        );
        refused(
            WorkerConfig::new().current_dir("a\0b"),
            r#"current_dir("a\0b")"#,
        );
        assert!(
            WorkerConfig::new()
                .env("A", "")
                .env_remove("B")
                .env_clear()
                .check()
                .is_ok()
        );
    }

    #[test]
    fn debug_output_shows_names_and_no_values() {
        let config = WorkerConfig::new()
            .env_clear()
            .env("TOKEN", "swordfish")
            .env_remove("HOME");
        let shown = format!("{config:?}");
        assert!(
            shown.contains(r#"[nothing inherited, "TOKEN" = .., no "HOME"]"#),
            "{shown}"
        );
        assert!(!shown.contains("swordfish"));
    }
}
