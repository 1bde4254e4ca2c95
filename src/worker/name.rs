//! The names of worker processes in `ps`, `top` and `/proc`.
//!
//! Only the short name (`comm`) tells a worker from the program. The arguments stay the program's
//! own. Argument zero could be chosen when a process is executed, but `main` runs with it up to the
//! hook, and some programs act on it; and overwriting it later would change the value of
//! [`std::env::args`] for the job.

use std::ffi::OsString;
use std::path::Path;
use std::sync::OnceLock;

/// The role of a new process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum NewProcess {
    /// A worker that is executed.
    Spawned,
    /// A fork server, which passes its set-up on to the workers that it forks.
    ForkServer,
}

/// The length in bytes to which the kernel cuts a process name.
const COMM_BYTES: usize = 15;

/// Returns the short name of a process of the context with this name, or else of this program.
pub(in crate::worker) fn process_name(context: Option<&str>, role: NewProcess) -> String {
    let suffix = match role {
        NewProcess::Spawned => "-worker",
        NewProcess::ForkServer => "-fork",
    };
    let named = context.filter(|name| !name.is_empty());
    with_suffix(named.unwrap_or_else(|| program()), suffix)
}

/// Appends `suffix`, and cuts `name` so that both fit.
fn with_suffix(name: &str, suffix: &str) -> String {
    // A zero byte would end the name, and a line break would garble the output of `ps`.
    let clean = name.replace(char::is_control, "_");
    let mut end = clean.len().min(COMM_BYTES - suffix.len());
    while !clean.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &clean[..end])
}

/// Returns the name by which this program was started.
fn program() -> &'static str {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| name_in(std::env::args_os().next()))
}

fn name_in(argument_zero: Option<OsString>) -> String {
    let path = argument_zero.unwrap_or_default();
    let name = Path::new(&path).file_name().unwrap_or("seedbed".as_ref());
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_consists_of_the_context_or_program_and_the_role() {
        for (role, expected) in [
            (NewProcess::Spawned, "parser-worker"),
            (NewProcess::ForkServer, "parser-fork"),
        ] {
            assert_eq!(process_name(Some("parser"), role), expected);
        }
        let mine = process_name(None, NewProcess::Spawned);
        assert!(
            mine.starts_with("seedbed-") && mine.ends_with("-worker"),
            "{mine}"
        );
    }

    #[test]
    fn a_long_name_is_cut_and_the_suffix_stays() {
        assert_eq!(with_suffix("thumbnailer", "-worker"), "thumbnai-worker");
        assert_eq!(with_suffix("thumbnailer", "-fork"), "thumbnaile-fork");
        assert_eq!(with_suffix("größenwahn", "-worker"), "größen-worker");
        assert_eq!(with_suffix("aaaaaaaö", "-worker"), "aaaaaaa-worker");
        assert_eq!(with_suffix("a\0b\nc", "-worker"), "a_b_c-worker");
        assert_eq!(with_suffix("", "-worker"), "-worker");
    }

    #[test]
    fn a_program_name_is_the_last_component_of_its_path() {
        assert_eq!(name_in(Some("/usr/bin/survey".into())), "survey");
        assert_eq!(name_in(Some("survey".into())), "survey");
        assert_eq!(name_in(Some("".into())), "seedbed");
        assert_eq!(name_in(None), "seedbed");
    }
}
