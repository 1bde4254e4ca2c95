//! The public writer that collects a stream of unknown length into shared memory.

use std::fmt;
use std::io::{self, BufWriter, Write};

use super::shared_slice::{SharedBytes, unavailable};
use crate::sys::memory::MemfdWriter;
use crate::transport::tuning::SHARED_WRITE_BUFFER;

/// Collects bytes into shared memory; made by [`SharedBytes::writer`].
///
/// No process can read the bytes before [`finish`](SharedBytesWriter::finish). Dropping the writer
/// frees the memory.
///
/// # Examples
///
/// ```
/// use std::io::Write;
/// use seedbed::worker::SharedBytes;
///
/// let mut writer = SharedBytes::writer()?;
/// for number in 0..3 {
///     writeln!(writer, "line {number}")?;
/// }
/// assert_eq!(&*writer.finish()?, b"line 0\nline 1\nline 2\n");
/// # std::io::Result::Ok(())
/// ```
pub struct SharedBytesWriter(BufWriter<MemfdWriter>);

impl SharedBytes {
    /// Returns a writer that collects bytes whose number is not known in advance.
    ///
    /// # Errors
    ///
    /// Fails if the process may not have more descriptors.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::worker::SharedBytes;
    ///
    /// let mut writer = SharedBytes::writer()?;
    /// std::io::copy(&mut std::fs::File::open("Cargo.toml")?, &mut writer)?;
    /// let bytes = writer.finish()?;
    /// assert_eq!(*bytes, *std::fs::read("Cargo.toml")?);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn writer() -> io::Result<SharedBytesWriter> {
        SharedBytesWriter::new()
    }
}

impl SharedBytesWriter {
    pub(super) fn new() -> io::Result<Self> {
        let memory = MemfdWriter::new().map_err(|error| unavailable(0, error))?;
        Ok(Self(BufWriter::with_capacity(SHARED_WRITE_BUFFER, memory)))
    }

    /// Seals the written bytes, and returns them.
    ///
    /// # Errors
    ///
    /// Fails if there is not enough memory, or if the process may not have files of this size.
    ///
    /// # Examples
    ///
    /// ```
    /// let writer = seedbed::worker::SharedBytes::writer()?;
    /// assert!(writer.finish()?.is_empty());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn finish(mut self) -> io::Result<SharedBytes> {
        self.flush()?;
        let writer = self.0.into_inner()?; // the buffer has been flushed
        match usize::try_from(writer.len()).unwrap_or(usize::MAX) {
            0 => Ok(SharedBytes::default()),
            length => match writer.seal() {
                Ok(memory) => Ok(SharedBytes::from_sealed(memory)),
                Err(error) => Err(unavailable(length, error)),
            },
        }
    }

    fn explain(&self, result: io::Result<()>) -> io::Result<()> {
        let written = self.0.get_ref().len() as usize + self.0.buffer().len();
        result.map_err(|error| unavailable(written, error))
    }
}

impl Write for SharedBytesWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.0.write_all(bytes);
        self.explain(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.0.flush();
        self.explain(flushed)
    }
}

impl fmt::Debug for SharedBytesWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBytesWriter").finish_non_exhaustive()
    }
}

impl Write for MemfdWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
