//! What a worker process is called where people look: `ps`, `top`, `pstree`.
//!
//! Linux has two names for a process. The short one (`comm`, 15 bytes) is free to choose at any time, so it says whose
//! worker it is and that it is one. The other is the command line. That of a worker is the program's own: argument zero
//! could be chosen when a process is executed, but then `main` runs with it up to the hook, and some programs do
//! different things under different names; and to overwrite it later would change what [`std::env::args`] tells the
//! job. So nothing is done to it.

use std::ffi::OsString;
use std::path::Path;
use std::sync::OnceLock;

use super::config::NewProcess;

/// How many bytes the kernel keeps.
const MOST: usize = 15;

/// Returns the short name of a process of the context with this name, or else of this program.
pub(in crate::worker) fn process_name(context: Option<&str>, role: NewProcess) -> String {
    let suffix = match role {
        NewProcess::Spawned => "-worker",
        NewProcess::ForkServer => "-fork",
    };
    let named = context.filter(|name| !name.is_empty());
    with_suffix(named.unwrap_or_else(|| program()), suffix)
}

/// Appends `suffix`, cutting `name` so that it is seen.
fn with_suffix(name: &str, suffix: &str) -> String {
    // What ends the name for the kernel, or a line for a terminal, has no place in it.
    let clean = name.replace(char::is_control, "_");
    let most = clean.floor_char_boundary(MOST - suffix.len());
    format!("{}{suffix}", &clean[..most])
}

/// The name that this program was called by.
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
    fn a_name_says_whose_process_it_is_and_what_it_is_for() {
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
    fn a_program_is_called_by_the_end_of_its_path() {
        assert_eq!(name_in(Some("/usr/bin/survey".into())), "survey");
        assert_eq!(name_in(Some("survey".into())), "survey");
        assert_eq!(name_in(Some("".into())), "seedbed");
        assert_eq!(name_in(None), "seedbed");
    }
}
