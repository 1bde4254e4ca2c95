//! The file of a job's result.

use std::any::type_name;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::entry;
use super::identity::Identity;
use crate::transport::codec;
use crate::transport::codec_error::CodecError;

/// A job's result in a folder, whether it is there or not. The methods block, and take long for a
/// large argument or result, so they are called in threads.
pub(in crate::delayed) struct KeptResult {
    identity: Identity,
    path: PathBuf,
}

impl KeptResult {
    /// Finds the place of the result of a job.
    ///
    /// # Errors
    ///
    /// If the job's argument cannot be part of an identity.
    pub(in crate::delayed) fn new<A: Serialize>(
        folder: &Path,
        key: &Arc<str>,
        function: &str,
        argument: &A,
    ) -> Result<Self, CodecError> {
        let identity = Identity::new(key.clone(), function, argument)?;
        Ok(Self {
            path: folder.join(identity.file_name()),
            identity,
        })
    }

    pub(in crate::delayed) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the result. `None` if there is none.
    ///
    /// # Errors
    ///
    /// The reason why there is a file that cannot be used.
    pub(in crate::delayed) fn read<T: Serialize + DeserializeOwned>(
        &self,
    ) -> Result<Option<T>, String> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("it cannot be read: {error}")),
        };
        let value = entry::read(&bytes, &self.identity, type_name::<T>())?;
        let decoded = codec::decode(value);
        decoded.map(Some).map_err(|error| error.to_string())
    }

    /// Writes the result.
    ///
    /// # Errors
    ///
    /// The reason why the result cannot be kept.
    pub(in crate::delayed) fn write<T: Serialize>(&self, value: &T) -> Result<(), String> {
        let value = codec::encode(value).map_err(|error| error.to_string())?;
        let bytes = entry::write(&self.identity, type_name::<T>(), &value);
        write_atomically(&self.path, &bytes).map_err(|error| error.to_string())
    }
}

/// Writes a file that readers see whole or not at all, also after a crash of the machine.
fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let (mut file, new) = create_beside(path)?;
    let written = file
        .write_all(bytes)
        // Without this, the name could reach the disk before the content.
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new); // the first error says more
    }
    written?;
    // Makes the name last.
    let _ = File::open(folder).and_then(|folder| folder.sync_all()); // not allowed by all file systems
    Ok(())
}

/// Creates a file in the same folder, under a name that no other program has, on any machine.
fn create_beside(path: &Path) -> io::Result<(File, PathBuf)> {
    loop {
        let new = path.with_extension(format!("{:016x}.new", fastrand::u64(..)));
        match OpenOptions::new().write(true).create_new(true).open(&new) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return Ok((opened?, new)),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use serde::Deserialize;

    fn kept(folder: &Path) -> KeptResult {
        KeptResult::new(folder, &"key".into(), "f", &1_u32).unwrap()
    }

    #[test]
    fn a_result_is_there_after_it_was_written_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("not/yet/there");
        let kept = kept(&below);
        assert_eq!(kept.read::<String>(), Ok(None));
        kept.write(&"first".to_owned()).unwrap();
        kept.write(&"second".to_owned()).unwrap();
        assert_eq!(kept.read::<String>().unwrap().unwrap(), "second");
        assert_eq!(fs::read_dir(below).unwrap().count(), 1);
    }

    #[test]
    fn a_value_of_another_type_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let kept = kept(folder.path());
        kept.write(&7_u32).unwrap();
        let error = kept.read::<f32>().unwrap_err();
        assert!(error.contains("`u32`, and not `f32`"), "{error}");
        assert_eq!(kept.read::<u32>(), Ok(Some(7)));
    }

    /// The versions of a type have the same name, as in two versions of a program.
    #[test]
    fn a_value_whose_type_has_other_fields_than_before_is_not_used() {
        #[derive(Serialize, Deserialize, Debug)]
        struct Before {
            low: u32,
            high: u32,
        }
        #[derive(Serialize, Deserialize, Debug)]
        struct Renamed {
            low: u32,
            top: u32,
        }
        #[derive(Serialize, Deserialize, Debug)]
        struct Swapped {
            high: u32,
            low: u32,
        }
        let folder = tempfile::tempdir().unwrap();
        let kept = kept(folder.path());
        let value = codec::encode(&Before { low: 1, high: 2 }).unwrap();
        let write_as = |name| {
            let bytes = entry::write(&kept.identity, name, &value);
            fs::write(&kept.path, bytes).unwrap();
        };
        write_as(type_name::<Before>());
        let Before { low, high } = kept.read().unwrap().unwrap();
        assert_eq!((low, high), (1, 2));
        write_as(type_name::<Renamed>());
        assert!(kept.read::<Renamed>().is_err());
        write_as(type_name::<Swapped>());
        assert!(kept.read::<Swapped>().is_err());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let kept = kept(file.path());
        assert!(kept.write(&7_u32).is_err());
        assert!(kept.read::<u32>().is_err());
    }
}
