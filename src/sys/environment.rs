//! The environment variables of this process in memory.
//!
//! `unsafe` is needed to remove a variable from the C library's list; see [`erase`].
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::{proc_file, thread};

/// Removes a variable that this process was executed with, so that neither `/proc/self/environ` nor
/// a process that this one starts has it.
///
/// The string itself is overwritten with zeros, which readers on other threads take for the end of
/// a variable. The C library's list is changed only if there is no other thread that might read it;
/// otherwise it keeps an empty entry.
pub(crate) fn erase(name: &str) {
    if thread::is_alone() == Some(true) {
        // SAFETY: no other thread exists, so none reads or writes the environment.
        unsafe { std::env::remove_var(name) };
    }
    // Where that fails, `/proc/self/mem` is forbidden; then a lone process has at least forgotten
    // the variable for the programs that it starts.
    let _ = overwrite(name);
}

/// Overwrites a variable in the memory where the kernel put the environment at `exec`.
fn overwrite(name: &str) -> io::Result<()> {
    let Some(place) = place(&proc_file::read("/proc/self/stat")?) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let memory = File::options()
        .read(true)
        .write(true)
        .open("/proc/self/mem")?;
    let mut block = vec![0; usize::try_from(place.end - place.start).unwrap_or(0)];
    memory.read_exact_at(&mut block, place.start)?;
    for found in entries_of(&block, name) {
        let zeros = vec![0; found.len()];
        memory.write_all_at(&zeros, place.start + found.start as u64)?;
    }
    Ok(())
}

/// Returns the addresses of the environment from `/proc/PID/stat`: a number, a name in parentheses,
/// which may hold anything, and then words.
fn place(stat: &[u8]) -> Option<Range<u64>> {
    const ENV_START: usize = 47; // index among the words behind the name
    let after_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let words = std::str::from_utf8(&stat[after_name..]).ok()?;
    let mut words = words.split_ascii_whitespace().skip(ENV_START);
    let (start, end) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (start != 0 && start <= end).then_some(start..end)
}

/// Returns where the variable stands in a block of strings that end with zeros.
fn entries_of(block: &[u8], name: &str) -> Vec<Range<usize>> {
    let mut start = 0;
    let entries = block.split(|&byte| byte == 0).filter_map(|entry| {
        let range = start..start + entry.len();
        start = range.end + 1;
        let value = entry.strip_prefix(name.as_bytes())?;
        value.starts_with(b"=").then_some(range)
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_found_by_its_whole_name_wherever_it_stands() {
        let block = b"A=NAME=1\0NAME=2\0NAMES=3\0\0NAME=\0NAME";
        assert_eq!(entries_of(block, "NAME"), [9..15, 25..30]);
        assert!(entries_of(b"", "NAME").is_empty());
    }

    #[test]
    fn the_environment_of_this_process_is_found() {
        let stat = std::fs::read("/proc/self/stat").unwrap();
        let place = place(&stat).unwrap();
        let length = std::fs::read("/proc/self/environ").unwrap().len();
        assert_eq!(place.end - place.start, length as u64);
    }

    #[test]
    fn a_variable_that_is_not_there_changes_nothing() {
        let before = std::fs::read("/proc/self/environ").unwrap();
        overwrite("SEEDBED_NO_SUCH_VARIABLE").unwrap();
        assert_eq!(std::fs::read("/proc/self/environ").unwrap(), before);
    }
}
