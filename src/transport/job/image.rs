//! The fingerprint of the executable of this process, for comparison with that of another process.

use std::io;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::sys::image::Image;

/// Identifies an executable image. Processes exchange offsets only if their fingerprints are equal.
///
/// A fingerprint costs one `stat`; everything else is in memory. Reading the whole file would be
/// more certain, but would take longer than starting a worker. The identity of the file, the build
/// identifier and the layout of the segments exclude every accidental mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint {
    pub(crate) version: String,
    pub(crate) pointer_width: u32,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    /// Modification time; used only without a build identifier, because a file may be touched and
    /// stay the same.
    pub(crate) modified: Option<(i64, i64)>,
    pub(crate) build_id: Vec<u8>,
    pub(crate) layout: u64,
}

/// Returns the fingerprint of this process's executable, which is computed once.
///
/// # Errors
///
/// Fails if `/proc/self/exe` cannot be reached, which means that `/proc` is not mounted.
pub(crate) fn fingerprint() -> io::Result<&'static Fingerprint> {
    static FINGERPRINT: OnceLock<Fingerprint> = OnceLock::new();
    match FINGERPRINT.get() {
        Some(known) => Ok(known),
        None => take().map(|taken| FINGERPRINT.get_or_init(|| taken)),
    }
}

fn take() -> io::Result<Fingerprint> {
    let file = rustix::fs::stat("/proc/self/exe")?;
    let image = Image::of_this_process();
    let modified = (file.st_mtime, file.st_mtime_nsec as i64);
    Ok(Fingerprint {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pointer_width: usize::BITS,
        device: file.st_dev,
        inode: file.st_ino,
        size: file.st_size as u64,
        modified: image.build_id().is_empty().then_some(modified),
        build_id: image.build_id().to_vec(),
        layout: image.layout(),
    })
}
