//! Reads files of `/proc`, whose length the kernel does not tell.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// More than most of these files have.
const FIRST_READ_BYTES: usize = 4096;

/// Reads a whole file that is one record, such as `stat` and `status`, in one system call if it has
/// its usual length. A read of such a file returns less than was asked for only at the end.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut text = vec![0; FIRST_READ_BYTES];
    let mut len = 0;
    loop {
        match file.read(&mut text[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if len < text.len() {
            break;
        }
        text.resize(2 * len, 0);
    }
    text.truncate(len);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_to_its_end() {
        let version = std::fs::read("/proc/version").unwrap();
        assert_eq!(read("/proc/version").unwrap(), version);
        assert_eq!(
            read("/proc/self/task/none").unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn a_file_that_is_longer_than_the_first_read_is_read_to_its_end() {
        let path = std::env::temp_dir().join(format!("seedbed-proc-file-{}", std::process::id()));
        for len in [
            FIRST_READ_BYTES - 1,
            FIRST_READ_BYTES,
            FIRST_READ_BYTES + 1,
            5 * FIRST_READ_BYTES,
        ] {
            let bytes: Vec<u8> = (0..len).map(|index| index as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(read(&path).unwrap(), bytes);
        }
        std::fs::remove_file(&path).unwrap();
    }
}
