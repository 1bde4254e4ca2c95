//! The traits of arguments and results. They exist for the errors of the compiler: one for each
//! mistake, with its remedy, in place of one for each of serde's traits.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A type whose values can be the argument of a job: owned data that implements serde's traits.
///
/// Every such type implements this trait. Derive `serde::Serialize` and `serde::Deserialize` for
/// your own types. Use a tuple for several arguments, `String` rather than `&str`, and `Vec<T>`
/// rather than `&[T]`.
///
/// # Examples
///
/// ```
/// use seedbed::worker::Argument;
///
/// fn size<A: Argument>(argument: &A) -> usize {
///     serde_json::to_string(argument).unwrap().len()
/// }
///
/// assert_eq!(size(&("two arguments".to_owned(), 7)), 19);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the argument of a job in a worker process",
    label = "values of this type cannot be sent to another process",
    note = "an argument owns its data and implements serde's traits: `#[derive(serde::Serialize, serde::Deserialize)]`",
    note = "send a `String` rather than a `&str`, a `Vec` rather than a slice, and a tuple for several arguments"
)]
pub trait Argument: Serialize + DeserializeOwned + Send + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Send + 'static> Argument for T {}

/// A type whose values can be the result of a job: owned data that implements serde's traits.
///
/// Every such type implements this trait. Derive `serde::Serialize` and `serde::Deserialize` for
/// your own types. A job that fails returns a `Result` whose error implements these traits, too, such
/// as [`RemoteError`](crate::worker::RemoteError).
///
/// # Examples
///
/// ```
/// use seedbed::worker::{JobResult, RemoteError};
///
/// fn check<R: JobResult>(_: fn() -> R) {}
///
/// check::<Result<u64, RemoteError>>(|| Ok("7".parse()?));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the result of a job in a worker process",
    label = "values of this type cannot be sent from another process",
    note = "a result owns its data and implements serde's traits: `#[derive(serde::Serialize, serde::Deserialize)]`",
    note = "for errors that do not, return `Result<_, seedbed::worker::RemoteError>`, which `?` makes of every error",
    note = "a job is a function that blocks: `seedbed::run_async` calls an `async fn`"
)]
pub trait JobResult: Serialize + DeserializeOwned + Send + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Send + 'static> JobResult for T {}
