//! An error of any type, as a value that a job can return.

use std::any::type_name;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The error of a job, of any type, in a form that can be sent: its message, the messages of its
/// sources, its `Debug` text, and a backtrace.
///
/// Within a job that returns `Result<T, RemoteError>`, `?` converts every [`Error`], `Box<dyn
/// Error>` (without `Send`), `anyhow::Error`, `&str` and `String`. The type itself does not
/// implement `Error`, because it could not be converted from all of them then: as with
/// `anyhow::Error`. [`into_error`](Self::into_error) gives a value that does, for `?` in the
/// caller.
///
/// `{}` prints the message and those of its sources, separated by colons. `{:?}` prints the
/// backtrace, too.
///
/// # Examples
///
/// ```
/// use seedbed::run_sync;
/// use seedbed::worker::RemoteError;
///
/// fn parse(text: String) -> Result<u8, RemoteError> {
///     let number: u8 = text.parse()?;
///     if number == 0 {
///         return Err("zero is not allowed".into());
///     }
///     Ok(number)
/// }
///
/// async fn sum() -> Result<u8, Box<dyn std::error::Error>> {
///     let one = run_sync(parse, "1".to_owned()).flatten().await.map_err(RemoteError::into_error)?;
///     let two = run_sync(parse, "two".to_owned()).flatten().await.map_err(RemoteError::into_error)?;
///     Ok(one + two)
/// }
///
/// fn main() {
///     seedbed::init();
///     let error = smol::block_on(sum()).unwrap_err();
///     assert_eq!(error.to_string(), "invalid digit found in string");
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteError {
    type_name: String,
    message: String,
    sources: Vec<String>,
    debug: String,
    backtrace: Option<String>,
}

/// Bounds the sources of an error whose chain has no end.
const MAX_SOURCES: usize = 64;

impl<E: Into<Box<dyn Error>>> From<E> for RemoteError {
    /// Describes an error. Captures a backtrace if `RUST_BACKTRACE` is set, as
    /// [`Backtrace::capture`] documents.
    fn from(error: E) -> Self {
        let error = error.into();
        let mut described = Self::new(&*error);
        described.type_name = type_name::<E>().to_owned();
        described
    }
}

impl RemoteError {
    /// Describes an error that is kept, or that `?` does not convert, such as
    /// `Box<dyn Error + Send + Sync>`.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::worker::RemoteError;
    ///
    /// let boxed: Box<dyn std::error::Error + Send + Sync> = "it is full".into();
    /// assert_eq!(RemoteError::new(&*boxed).message(), "it is full");
    /// ```
    pub fn new(error: &(dyn Error + 'static)) -> Self {
        let mut sources = Vec::new();
        let mut source = error.source();
        while let Some(error) = source
            && sources.len() < MAX_SOURCES
        {
            sources.push(error.to_string());
            source = error.source();
        }
        let backtrace = Backtrace::capture();
        Self {
            type_name: "dyn core::error::Error".to_owned(),
            message: error.to_string(),
            sources,
            debug: format!("{error:?}"),
            backtrace: (backtrace.status() == BacktraceStatus::Captured)
                .then(|| backtrace.to_string()),
        }
    }

    /// Returns the message of the error, without those of its sources.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = seedbed::worker::RemoteError::from("it is full");
    /// assert_eq!(error.message(), "it is full");
    /// ```
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the messages of the sources of the error, the nearest first.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = seedbed::worker::RemoteError::from("it is full");
    /// assert_eq!(error.sources().count(), 0);
    /// ```
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(String::as_str)
    }

    /// Returns the name of the type from which `?` made this error, as
    /// [`type_name`] writes it.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::worker::RemoteError;
    ///
    /// let error = RemoteError::from("x".parse::<u8>().unwrap_err());
    /// assert!(error.type_name().ends_with("ParseIntError"));
    /// ```
    pub fn type_name(&self) -> &str {
        &self.type_name
    }

    /// Returns what the error prints with `{:?}`. For `anyhow::Error`, this has the backtrace of
    /// the place where it was made.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::worker::RemoteError;
    ///
    /// let error = RemoteError::from("x".parse::<u8>().unwrap_err());
    /// assert_eq!(error.debug_text(), "ParseIntError { kind: InvalidDigit }");
    /// ```
    pub fn debug_text(&self) -> &str {
        &self.debug
    }

    /// Returns the backtrace of the place where `?` made this error, if `RUST_BACKTRACE` was set in
    /// the worker.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::worker::RemoteError;
    ///
    /// let is_set = |name| std::env::var_os(name).is_some_and(|value| value != "0");
    /// if !is_set("RUST_BACKTRACE") && !is_set("RUST_LIB_BACKTRACE") {
    ///     assert!(RemoteError::from("it is full").backtrace().is_none());
    /// }
    /// ```
    pub fn backtrace(&self) -> Option<&str> {
        self.backtrace.as_deref()
    }

    /// Converts this description into an error whose [`source`](Error::source) leads to the others
    /// of the chain.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::worker::RemoteError;
    /// use std::error::Error;
    ///
    /// let error = RemoteError::from("it is full").into_error();
    /// assert_eq!(error.to_string(), "it is full");
    /// assert!(error.source().is_none());
    /// ```
    pub fn into_error(self) -> RemoteErrorSource {
        let nested = self
            .sources
            .into_iter()
            .rev()
            .fold(None, |source, message| {
                Some(Box::new(RemoteErrorSource {
                    debug: message.clone(),
                    message,
                    source,
                }))
            });
        RemoteErrorSource {
            message: self.message,
            debug: self.debug,
            source: nested,
        }
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.sources
            .iter()
            .try_for_each(|source| write!(f, ": {source}"))
    }
}

impl fmt::Debug for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({})", self.debug)?;
        match &self.backtrace {
            Some(backtrace) => write!(f, "\n\nin the worker:\n{backtrace}"),
            None => Ok(()),
        }
    }
}

/// An error that a job has returned, or one of its sources; made by [`RemoteError::into_error`].
///
/// # Examples
///
/// ```
/// use seedbed::worker::RemoteError;
///
/// let error: Box<dyn std::error::Error> = RemoteError::from("it is full").into_error().into();
/// assert_eq!(error.to_string(), "it is full");
/// ```
pub struct RemoteErrorSource {
    message: String,
    debug: String,
    source: Option<Box<RemoteErrorSource>>,
}

impl fmt::Display for RemoteErrorSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for RemoteErrorSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.debug)
    }
}

impl Error for RemoteErrorSource {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.source.as_deref()?;
        Some(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::codec;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            let source = self.1.as_deref()?;
            Some(source)
        }
    }

    fn layered() -> Layer {
        let inner = Layer("no such file", None);
        Layer(
            "cannot start",
            Some(Box::new(Layer("no settings", Some(Box::new(inner))))),
        )
    }

    fn fails() -> Result<(), RemoteError> {
        Err(layered())?
    }

    fn fails_boxed() -> Result<(), RemoteError> {
        let boxed: Result<(), Box<dyn Error>> = Err(layered().into());
        Ok(boxed?)
    }

    fn fails_with_anyhow() -> Result<(), RemoteError> {
        let result: anyhow::Result<()> = Err(anyhow::Error::from(layered()).context("in the job"));
        Ok(result?)
    }

    #[test]
    fn an_error_keeps_its_messages_on_its_way() {
        let error = fails().unwrap_err();
        let sent: RemoteError = codec::decode(&codec::encode(&error).unwrap()).unwrap();
        assert_eq!(sent, error);
        assert_eq!(sent.to_string(), "cannot start: no settings: no such file");
        assert!(sent.type_name().ends_with("Layer"));
        assert!(format!("{sent:?}").contains("Layer(\"cannot start\""));
        assert_eq!(fails_boxed().unwrap_err().to_string(), sent.to_string());
        let error = fails_with_anyhow().unwrap_err();
        assert_eq!(error.to_string(), format!("in the job: {sent}"));
    }

    #[test]
    fn the_error_for_the_caller_has_the_chain_of_the_original() {
        let error = fails().unwrap_err().into_error();
        let mut messages = vec![error.to_string()];
        let mut source = error.source();
        while let Some(error) = source {
            messages.push(error.to_string());
            source = error.source();
        }
        assert_eq!(messages, ["cannot start", "no settings", "no such file"]);
        // anyhow takes it, and keeps the chain.
        let error = anyhow::Error::from(fails().unwrap_err().into_error());
        assert_eq!(
            format!("{error:#}"),
            "cannot start: no settings: no such file"
        );
    }

    #[test]
    fn a_chain_without_end_is_cut() {
        #[derive(Debug)]
        struct Endless;
        impl fmt::Display for Endless {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("again")
            }
        }
        impl Error for Endless {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(self)
            }
        }
        assert_eq!(RemoteError::from(Endless).sources().count(), MAX_SOURCES);
    }
}
