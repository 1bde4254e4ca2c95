//! Finds the files to survey: every `.rs` entry below the given folders that is not a folder
//! itself.
//!
//! Only folders are opened here. So a FIFO or a device with a Rust name is found like any file, and
//! only the worker that opens it is affected. A link to a file counts. A link to a folder is not
//! followed, so links cannot make the walk endless. The result is sorted by path.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The result of a walk.
#[derive(Debug, Default)]
pub struct Found {
    /// The entries to survey, sorted, each once.
    pub files: Vec<PathBuf>,
    /// The folders below the given ones that could not be read, each with the error.
    pub unread: Vec<(PathBuf, String)>,
}

/// The part of a folder that is walked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Extent {
    /// Everything, for folders that the user named.
    Everything,
    /// Everything except folders with a `CACHEDIR.TAG`. cargo marks its `target` folder so, which
    /// contains generated files.
    SourcesOnly,
}

/// Walks all `roots`. If one is inside another, its files are found once.
///
/// # Errors
///
/// Fails if a root is missing, is not a folder, or cannot be read, since that is a mistake in the
/// command line. A folder further down that cannot be read is part of the result: see
/// [`Found::unread`].
pub fn find(roots: &[PathBuf], extent: Extent) -> Result<Found, String> {
    let mut found = Found::default();
    for root in outermost(roots)? {
        let entries = fs::read_dir(&root).map_err(|error| cannot_read(&root, &error))?;
        walk(&root, entries, extent, &mut found);
    }
    found.files.sort();
    found.unread.sort();
    Ok(found)
}

/// Returns the roots that are not inside another root, each folder once.
fn outermost(roots: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut outermost: Vec<(PathBuf, &PathBuf)> = Vec::new();
    for root in roots {
        let real = root
            .canonicalize()
            .map_err(|error| cannot_read(root, &error))?;
        if outermost.iter().any(|(other, _)| real.starts_with(other)) {
            continue;
        }
        outermost.retain(|(other, _)| !other.starts_with(&real));
        outermost.push((real, root));
    }
    Ok(outermost
        .into_iter()
        .map(|(_, root)| root.clone())
        .collect())
}

fn cannot_read(folder: &Path, error: &io::Error) -> String {
    format!("cannot read folder {}: {error}", folder.display())
}

/// Walks a root with a list of pending folders instead of recursion, so that deep trees cannot
/// overflow the stack.
fn walk(root: &Path, entries: fs::ReadDir, extent: Extent, found: &mut Found) {
    let mut pending = Vec::new();
    sort_out(root, entries, &mut pending, found);
    while let Some(folder) = pending.pop() {
        if extent == Extent::SourcesOnly && folder.join("CACHEDIR.TAG").exists() {
            continue;
        }
        match fs::read_dir(&folder) {
            Ok(entries) => sort_out(&folder, entries, &mut pending, found),
            Err(error) => found.unread.push((folder, error.to_string())),
        }
    }
}

/// Adds each entry of a folder: folders to `pending`, `.rs` entries to the files found.
fn sort_out(folder: &Path, entries: fs::ReadDir, pending: &mut Vec<PathBuf>, found: &mut Found) {
    for entry in entries {
        let (path, kind) = match entry.and_then(|entry| Ok((entry.path(), entry.file_type()?))) {
            Ok(entry) => entry,
            // The disk failed in the middle of the folder.
            Err(error) => {
                found.unread.push((folder.to_owned(), error.to_string()));
                continue;
            }
        };
        if kind.is_dir() {
            pending.push(path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            // `is_dir` follows links, and is false for a dangling link. That is an entry that
            // cannot be read, and the report includes it.
            if !(kind.is_symlink() && path.is_dir()) {
                found.files.push(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Makes a tree of empty files, and the folders that they need.
    fn tree(files: &[&str]) -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        for file in files {
            let path = tree.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        tree
    }

    /// Returns the files found below `root`, as paths relative to it.
    fn found_in(root: &Path, extent: Extent) -> Vec<String> {
        let found = find(&[root.to_owned()], extent).unwrap();
        assert!(found.unread.is_empty(), "{:?}", found.unread);
        found
            .files
            .iter()
            .map(|path| path.strip_prefix(root).unwrap().display().to_string())
            .collect()
    }

    #[test]
    fn files_are_found_at_every_depth_in_the_order_of_their_paths() {
        let tree = tree(&["z.rs", "a/b/c/d.rs", "a/x.rs", "m.rs", "notes.txt", "rs"]);
        assert_eq!(
            found_in(tree.path(), Extent::Everything),
            ["a/b/c/d.rs", "a/x.rs", "m.rs", "z.rs"]
        );
    }

    #[test]
    fn a_folder_with_a_rust_name_is_entered_and_not_surveyed() {
        let tree = tree(&["looks_like.rs/inner.rs"]);
        assert_eq!(
            found_in(tree.path(), Extent::Everything),
            ["looks_like.rs/inner.rs"]
        );
    }

    #[test]
    fn links_to_files_and_to_nothing_count_and_links_to_folders_do_not() {
        let tree = tree(&["sub/real.rs"]);
        let at = |name: &str| tree.path().join(name);
        symlink("sub/real.rs", at("to_file.rs")).unwrap();
        symlink("nowhere", at("to_nothing.rs")).unwrap();
        symlink("to_itself.rs", at("to_itself.rs")).unwrap();
        symlink("sub", at("to_folder.rs")).unwrap();
        symlink("..", at("sub/loop")).unwrap();
        assert_eq!(
            found_in(tree.path(), Extent::Everything),
            ["sub/real.rs", "to_file.rs", "to_itself.rs", "to_nothing.rs"]
        );
    }

    #[test]
    fn fifos_and_sockets_with_rust_names_are_found_without_being_opened() {
        let tree = tree(&[]);
        let status = std::process::Command::new("mkfifo")
            .arg(tree.path().join("fifo.rs"))
            .status();
        assert!(status.unwrap().success());
        let _listener = UnixListener::bind(tree.path().join("socket.rs")).unwrap();
        assert_eq!(
            found_in(tree.path(), Extent::Everything),
            ["fifo.rs", "socket.rs"]
        );
    }

    #[test]
    fn a_name_that_is_not_utf8_is_a_name() {
        let tree = tree(&[]);
        let path = tree.path().join(OsStr::from_bytes(b"\xff.rs"));
        fs::write(&path, "").unwrap();
        let found = find(&[tree.path().to_owned()], Extent::Everything).unwrap();
        assert_eq!(found.files, [path]);
    }

    #[test]
    fn build_output_is_skipped_only_where_sources_are_asked_for() {
        let tree = tree(&["lib.rs", "target/CACHEDIR.TAG", "target/debug/out.rs"]);
        assert_eq!(found_in(tree.path(), Extent::SourcesOnly), ["lib.rs"]);
        assert_eq!(
            found_in(tree.path(), Extent::Everything),
            ["lib.rs", "target/debug/out.rs"]
        );
        // A folder that the user named is walked, even with a tag.
        assert_eq!(
            found_in(&tree.path().join("target"), Extent::SourcesOnly),
            ["debug/out.rs"]
        );
    }

    #[test]
    fn folders_that_overlap_are_walked_once() {
        let tree = tree(&["a/one.rs", "a/sub/two.rs", "b/three.rs"]);
        let at = |name: &str| tree.path().join(name);
        symlink("a", at("alias")).unwrap();
        let found = find(
            &[at("a/sub"), at("b"), at("a"), at("a/../a"), at("alias")],
            Extent::Everything,
        );
        let names: Vec<_> = found
            .unwrap()
            .files
            .iter()
            .map(|path| path.file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["one.rs", "two.rs", "three.rs"]);
    }

    #[test]
    fn a_root_that_is_no_folder_is_an_error_that_names_it() {
        let tree = tree(&["file.rs"]);
        for (name, reason) in [
            ("missing", "No such file or directory"),
            ("file.rs", "Not a directory"),
        ] {
            let root = tree.path().join(name);
            let error = find(&[root], Extent::Everything).unwrap_err();
            assert!(error.contains(name) && error.contains(reason), "{error}");
        }
    }
}
