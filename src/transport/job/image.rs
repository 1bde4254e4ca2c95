//! The fingerprint of the executable of this process, for comparison with that of another process.

use std::fmt;
use std::fs::File;
use std::io;
use std::io::Read;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::sys::fnv::Fnv;
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

impl Fingerprint {
    /// Returns whether this is the fingerprint of the same build, perhaps in another file on
    /// another machine. Without build identifiers, the hashes of the contents are compared.
    pub(crate) fn is_same_build_as(&self, other: &Self, contents: Option<(u64, u64)>) -> bool {
        let is_alike = self.version == other.version
            && self.pointer_width == other.pointer_width
            && self.size == other.size
            && self.layout == other.layout
            && self.build_id == other.build_id;
        is_alike && (!self.build_id.is_empty() || contents.is_some_and(|(one, two)| one == two))
    }

    /// Returns a hash of the contents of this process's executable, if it has no build identifier.
    pub(crate) fn contents(&self) -> io::Result<Option<u64>> {
        static CONTENTS: OnceLock<u64> = OnceLock::new();
        if !self.build_id.is_empty() {
            return Ok(None);
        }
        if let Some(known) = CONTENTS.get() {
            return Ok(Some(*known));
        }
        let mut file = File::open("/proc/self/exe")?;
        let (mut hash, mut bytes) = (Fnv::new(), vec![0; 1 << 16]);
        loop {
            match file.read(&mut bytes)? {
                0 => return Ok(Some(*CONTENTS.get_or_init(|| hash.finish()))),
                length => hash.add(&bytes[..length]),
            }
        }
    }
}

/// Names the build for a person: its version, its size, and its identifier if it has one.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seedbed {}, {} bytes, ", self.version, self.size)?;
        if self.build_id.is_empty() {
            return write!(f, "layout {:016x}", self.layout);
        }
        f.write_str("build ")?;
        self.build_id
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_program_on_another_machine_is_the_same_build_and_a_rebuilt_one_is_not() {
        let mut ours = fingerprint().unwrap().clone();
        ours.build_id = vec![1, 2];
        let copy = Fingerprint {
            device: ours.device + 1,
            inode: ours.inode + 1,
            modified: None,
            ..ours.clone()
        };
        assert!(ours.is_same_build_as(&copy, None));
        let other_build = Fingerprint {
            build_id: vec![1, 3],
            ..copy.clone()
        };
        let other_size = Fingerprint {
            size: ours.size + 1,
            ..copy.clone()
        };
        for other in [other_build, other_size] {
            assert!(!ours.is_same_build_as(&other, None));
        }
        let unnamed = |mut of: Fingerprint| {
            of.build_id.clear();
            of
        };
        let (ours, copy) = (unnamed(ours), unnamed(copy));
        assert!(ours.is_same_build_as(&copy, Some((7, 7))));
        assert!(!ours.is_same_build_as(&copy, Some((7, 8))));
        assert!(
            !ours.is_same_build_as(&copy, None),
            "nothing tells them apart"
        );
        let contents = |image: &Fingerprint| image.contents().unwrap();
        assert!(contents(&ours).is_some());
        assert_eq!(contents(&ours), contents(&copy));
    }
}
