//! How this program is started elsewhere: on another machine, or as another user.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::sys::role::{GUARDIAN_VALUE, GUARDIAN_VARIABLE};
use crate::worker::tuning::{DEFAULT_LEASE, SHORTEST_LEASE};

/// Starts workers through another program, such as `ssh`, `srun` or `sudo`, so that they may run on
/// another machine or as another user.
///
/// The command is this launcher's words, followed by those that execute this program. It must pass
/// its standard input and output on to that. There, this program becomes the worker's *guardian*:
/// it starts the worker as its child, passes arguments and results on, and kills the worker if it
/// loses the connection.
///
/// The program must be there, under the same path or under the one that [`executable`] sets: the
/// same build, or each call fails with
/// [`ImageMismatch`](crate::worker::WorkerErrorKind::ImageMismatch), and the error names both.
///
/// # What is promised
///
/// As everywhere, a job runs once or its call returns an error, and when the context's block ends,
/// nothing of it runs any more, on any machine. If the connection to a worker is lost, it is known
/// to have ended when its [`lease`] is over, and its call returns then. So at most one copy of a
/// job runs at any time, also while the network is partitioned. A call with `kill_on_cancel(true)`
/// that is cancelled returns when the guardian has reported the end of the worker, or after the
/// lease.
///
/// The worker gets changes to the [environment](crate::WorkerConfig::env), and applies the limits
/// of its context. The rest of its environment, its user, and its directory unless [`directory`]
/// sets it, are those that the launching program gives.
///
/// [`SharedBytes`](crate::worker::SharedBytes) and [`SharedSlice`](crate::worker::SharedSlice) are
/// copied. A value that holds a [`Descriptor`](crate::worker::Descriptor) or a side of a
/// [channel](crate::worker::channel()) is refused with an error. Each item of a
/// [map](crate::map_sync) is a call of its own.
///
/// [`executable`]: Self::executable
/// [`lease`]: Self::lease
/// [`directory`]: Self::directory
///
/// # Examples
///
/// `env` starts a worker here, and `sudo`, `nice` or `docker exec -i` are used in the same way:
///
/// ```
/// use seedbed::worker::Launcher;
/// use seedbed::{WorkerConfig, open_worker_context};
///
/// fn main() {
///     seedbed::init();
///     let config = WorkerConfig::new().launcher(Launcher::command(["env"]));
///     smol::block_on(open_worker_context(config, |workers| async move {
///         assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
///     }));
/// }
/// ```
#[derive(Clone, PartialEq, Eq)]
#[must_use = "a launcher does nothing until a configuration has it"]
pub struct Launcher {
    prefix: Vec<OsString>,
    is_for_shell: bool,
    has_queue: bool,
    directory: Directory,
    executable: Option<PathBuf>,
    lease: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Directory {
    /// The one that the launching program gives.
    Given,
    /// The one of this program.
    Present,
    At(PathBuf),
}

impl Launcher {
    /// A launcher whose words are followed by those that execute this program, such as
    /// `Launcher::command(["sudo", "-n", "-u", "sandbox"])`.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::worker::Launcher;
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn niceness(_: ()) -> String {
    ///     let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    ///     stat.split_whitespace().nth(18).unwrap().to_owned()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().launcher(Launcher::command(["nice", "-n", "19"]));
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert_eq!(workers.run_sync(niceness, ()).await.unwrap(), "19");
    ///     }));
    /// }
    /// ```
    pub fn command<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>) -> Self {
        Self {
            prefix: words
                .into_iter()
                .map(|word| word.as_ref().to_owned())
                .collect(),
            is_for_shell: false,
            has_queue: false,
            directory: Directory::Given,
            executable: None,
            lease: DEFAULT_LEASE,
        }
    }

    /// A launcher that runs `ssh` with this destination, such as `node7` or `user@node7`. Ports,
    /// keys and jumps belong into ssh's configuration file.
    ///
    /// It asks for no password (`BatchMode`), and gives up a connection that does not answer for
    /// 15 seconds. The worker runs in the directory in which this program is, which must exist
    /// there, unless [`directory`](Self::directory) sets another.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::WorkerConfig;
    /// use seedbed::worker::Launcher;
    ///
    /// let launcher = Launcher::ssh("node7");
    /// assert!(launcher.to_string().ends_with(" node7"));
    /// let config = WorkerConfig::new().launcher(launcher);
    /// # drop(config);
    /// ```
    pub fn ssh(destination: impl AsRef<OsStr>) -> Self {
        let options = [
            "ssh",
            "-T",
            "-o",
            "BatchMode=yes",
            "-o",
            "ServerAliveInterval=5",
            "--",
        ];
        let words = options
            .map(OsStr::new)
            .into_iter()
            .chain([destination.as_ref()]);
        let mut this = Self::command(words).for_shell();
        this.directory = Directory::Present;
        this
    }

    /// A launcher that runs Slurm's `srun` with these options, such as `["-c4", "--mem=8G"]`: a
    /// step within an allocation, or an allocation of its own for each worker.
    ///
    /// Slurm may let a worker wait until there is room for it, so this launcher is one
    /// [with a queue](Self::with_queue).
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::WorkerConfig;
    /// use seedbed::worker::Launcher;
    ///
    /// let launcher = Launcher::srun(["--cpus-per-task=4", "--mem=8G"]);
    /// assert!(launcher.to_string().contains(" --cpus-per-task=4 --mem=8G "));
    /// let config = WorkerConfig::new().launcher(launcher);
    /// # drop(config);
    /// ```
    pub fn srun<W: AsRef<OsStr>>(options: impl IntoIterator<Item = W>) -> Self {
        // Unbuffered: srun holds output back that ends in no line break.
        let mut words: Vec<OsString> = vec!["srun".into(), "--unbuffered".into()];
        // Within an allocation, a step takes all of it unless it is told to take its share only.
        if std::env::var_os("SLURM_JOB_ID").is_some() {
            words.push("--exact".into());
        }
        words.extend(options.into_iter().map(|option| option.as_ref().to_owned()));
        words.push("--ntasks=1".into()); // the last one counts
        let mut this = Self::command(words);
        // Where that directory is missing, srun would take another one without an error.
        this.directory = Directory::Present;
        this.has_queue = true;
        this
    }

    /// Passes the words that execute this program as one word, quoted for a POSIX shell, as `ssh`
    /// needs it.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::worker::Launcher;
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let launcher = Launcher::command(["sh", "-c"]).for_shell();
    ///     let config = WorkerConfig::new().launcher(launcher);
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
    ///     }));
    /// }
    /// ```
    pub fn for_shell(mut self) -> Self {
        self.is_for_shell = true;
        self
    }

    /// Says that the launcher may let a worker wait for room. Then its start has no time limit
    /// until it has reached the hook. A call leaves the queue when it is cancelled only with
    /// [`kill_on_cancel(true)`](crate::worker::RunSync::kill_on_cancel): by default, a call that
    /// has begun to start its worker runs to its end.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::worker::Launcher;
    ///
    /// let launcher = Launcher::command(["flock", "/tmp/one-at-a-time"]).with_queue();
    /// assert_ne!(launcher, Launcher::command(["flock", "/tmp/one-at-a-time"]));
    /// ```
    pub fn with_queue(mut self) -> Self {
        self.has_queue = true;
        self
    }

    /// Sets the directory in which this program is executed there.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::worker::Launcher;
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn directory(_: ()) -> String {
    ///     std::env::current_dir().unwrap().display().to_string()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let launcher = Launcher::command(["env"]).directory("/");
    ///     let config = WorkerConfig::new().launcher(launcher);
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert_eq!(workers.run_sync(directory, ()).await.unwrap(), "/");
    ///     }));
    /// }
    /// ```
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.directory = Directory::At(path.into());
        self
    }

    /// Sets the path of this program there. Without it, the path is the one from which this process
    /// was executed.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::worker::Launcher;
    ///
    /// let launcher = Launcher::ssh("node7");
    /// let elsewhere = launcher.clone().executable("/opt/study/bin/study");
    /// assert_ne!(launcher, elsewhere);
    /// ```
    pub fn executable(mut self, path: impl Into<PathBuf>) -> Self {
        self.executable = Some(path.into());
        self
    }

    /// Sets for how long a worker lives that has lost its connection, at least one second. The
    /// default is 10 seconds.
    ///
    /// A worker that is alive renews its lease several times in that time. If the connection is
    /// lost, or the guardian is stopped, its worker is killed when the lease is over. The call
    /// returns a little later, as clocks run at different rates. A short lease lets calls know
    /// sooner; a long one outlives longer failures of the network.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::worker::Launcher;
    ///
    /// let patient = Launcher::command(["env"]).lease(Duration::from_secs(60));
    /// assert_ne!(patient, Launcher::command(["env"]));
    /// ```
    pub fn lease(mut self, term: Duration) -> Self {
        self.lease = term.clamp(SHORTEST_LEASE, Duration::from_secs(1 << 30));
        self
    }
}

/// The view of a launcher that the rest of `worker` uses.
impl Launcher {
    /// Whether there is no word, so that nothing would be executed.
    pub(super) fn is_empty(&self) -> bool {
        self.prefix.is_empty()
    }

    pub(in crate::worker) fn term(&self) -> Duration {
        self.lease
    }

    pub(in crate::worker) fn has_a_queue(&self) -> bool {
        self.has_queue
    }

    /// Returns the command that executes the program at `path` with these arguments. `present` is
    /// the working directory of this program.
    pub(in crate::worker) fn command_line(
        &self,
        path: &Path,
        arguments: &[OsString],
        present: Option<&Path>,
    ) -> Vec<OsString> {
        let path = self.executable.as_deref().unwrap_or(path);
        let mut words: Vec<OsString> = Vec::new();
        let directory = match &self.directory {
            Directory::Given => None,
            Directory::Present => present,
            Directory::At(path) => Some(&**path),
        };
        if let Some(directory) = directory {
            let script = r#"cd -- "$0" && exec "$@""#;
            words.extend(["/bin/sh", "-c", script].map(OsString::from));
            words.push(directory.into());
        }
        // An environment that srun or sudo has cleared names no folders of programs.
        words.push("/usr/bin/env".into());
        words.push(format!("{GUARDIAN_VARIABLE}={GUARDIAN_VALUE}").into());
        words.push(path.into());
        words.extend_from_slice(arguments);
        let mut command = self.prefix.clone();
        if self.is_for_shell {
            command.push(quoted(&words));
        } else {
            command.append(&mut words);
        }
        command
    }
}

/// Joins words into one that a POSIX shell splits into these again.
fn quoted(words: &[OsString]) -> OsString {
    let words: Vec<Vec<u8>> = words
        .iter()
        .map(|word| quoted_word(word.as_bytes()))
        .collect();
    OsString::from_vec(words.join(&b' '))
}

fn quoted_word(word: &[u8]) -> Vec<u8> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./=:,@%+".contains(byte);
    if !word.is_empty() && word.iter().all(is_plain) {
        return word.to_vec();
    }
    let mut quoted = b"'".to_vec();
    for &byte in word {
        match byte {
            b'\'' => quoted.extend_from_slice(br"'\''"),
            _ => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

/// Shows the words of the launcher: `ssh node7`.
impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.prefix.iter().map(|word| word.to_string_lossy());
        f.write_str(&words.collect::<Vec<_>>().join(" "))
    }
}

impl fmt::Debug for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launcher")
            .field("command", &self.prefix)
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::process::Command;

    use proptest::prelude::*;

    fn line(launcher: &Launcher, argument: &str) -> Vec<String> {
        let words = launcher.command_line(
            Path::new("/bin/study"),
            &[argument.into()],
            Some(Path::new("/da ta")),
        );
        words
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect()
    }

    #[test]
    fn the_words_of_a_command_are_passed_as_they_are() {
        let launcher = Launcher::command(["sudo", "-u", "sandbox"]);
        assert_eq!(
            line(&launcher, "a b"),
            [
                "sudo",
                "-u",
                "sandbox",
                "/usr/bin/env",
                "SEEDBED_GUARDIAN=1",
                "/bin/study",
                "a b"
            ]
        );
        let elsewhere = launcher.executable("/opt/study").directory("/tmp");
        assert_eq!(
            line(&elsewhere, "")[3..],
            [
                "/bin/sh",
                "-c",
                r#"cd -- "$0" && exec "$@""#,
                "/tmp",
                "/usr/bin/env",
                "SEEDBED_GUARDIAN=1",
                "/opt/study",
                ""
            ]
        );
    }

    #[test]
    fn ssh_gets_one_word_that_its_shell_splits_and_the_present_directory() {
        let words = line(&Launcher::ssh("node7"), "it's");
        assert_eq!(words[words.len() - 2], "node7");
        assert_eq!(
            words[words.len() - 1],
            r#"/bin/sh -c 'cd -- "$0" && exec "$@"' '/da ta' /usr/bin/env SEEDBED_GUARDIAN=1 /bin/study 'it'\''s'"#
        );
    }

    #[test]
    fn a_lease_has_a_shortest_term() {
        assert_eq!(
            Launcher::command(["env"]).lease(Duration::ZERO).term(),
            SHORTEST_LEASE
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[cfg_attr(miri, ignore = "starts processes")]
        #[test]
        fn a_shell_splits_quoted_words_into_what_they_were(words in prop::collection::vec("[^\u{0}]{0,12}", 1..5)) {
            let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
            let mut script = OsString::from("printf '%s\\0' ");
            script.push(quoted(&words));
            let said = Command::new("sh").arg("-c").arg(script).output().unwrap().stdout;
            let expected: Vec<u8> = words.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
            prop_assert_eq!(said, expected);
        }
    }
}
