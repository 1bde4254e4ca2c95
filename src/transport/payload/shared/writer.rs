//! Shared memory out of a stream, of which nobody knows how long it will be.

use std::fmt;
use std::io::{self, BufWriter, Write};

use super::slice::{SharedBytes, unavailable};
use crate::sys::memory::Draft;

/// What is collected before it is written: a system call for this much costs next to nothing.
const BUFFER: usize = 64 * 1024;

/// Collects bytes into shared memory; made by [`SharedBytes::writer`].
///
/// What has been written can be read by nobody before [`finish`](SharedBytesWriter::finish). Dropping it gives the memory
/// back.
///
/// # Examples
///
/// ```
/// use std::io::Write;
/// use seedbed::SharedBytes;
///
/// let mut writer = SharedBytes::writer()?;
/// for number in 0..3 {
///     writeln!(writer, "line {number}")?;
/// }
/// assert_eq!(&*writer.finish()?, b"line 0\nline 1\nline 2\n");
/// # std::io::Result::Ok(())
/// ```
pub struct SharedBytesWriter(BufWriter<Draft>);

impl SharedBytesWriter {
    pub(super) fn new() -> io::Result<Self> {
        let draft = Draft::new().map_err(|error| unavailable(0, error))?;
        Ok(Self(BufWriter::with_capacity(BUFFER, draft)))
    }

    /// Seals what has been written.
    ///
    /// # Errors
    ///
    /// If there is not enough memory, or if the process may not have files as large.
    ///
    /// # Examples
    ///
    /// ```
    /// let writer = seedbed::SharedBytes::writer()?;
    /// assert!(writer.finish()?.is_empty());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn finish(mut self) -> io::Result<SharedBytes> {
        self.flush()?;
        let draft = self.0.into_inner()?; // has been flushed
        match usize::try_from(draft.len()).unwrap_or(usize::MAX) {
            0 => Ok(SharedBytes::default()),
            length => match draft.seal() {
                Ok(memory) => Ok(SharedBytes::of(memory)),
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

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
