//! The traits of arguments, results and data of closures. They exist for the errors of the
//! compiler: one for each mistake, with its remedy, in place of one for each of serde's traits.

use serde::{Deserialize, Serialize};

/// Data that borrows nothing: a type that can be decoded from a buffer of any lifetime, and may
/// outlive it. A job's argument and its result are such data.
///
/// Every type that implements `serde::Deserialize` for all lifetimes implements this trait. The
/// compiler names it where that is not so: a `&str` can only be decoded from a buffer that outlives
/// it, so it "must implement `OwnedData<'0>`, for any lifetime `'0`". Send a `String` then, a
/// `Vec<T>` rather than a `&[T]`, a `PathBuf` rather than a `&Path`.
///
/// # Examples
///
/// ```
/// use seedbed::worker::OwnedData;
///
/// fn owned<T: for<'buffer> OwnedData<'buffer>>(data: T) -> T {
///     data
/// }
///
/// assert_eq!(owned("a word".to_owned()), "a word");
/// ```
///
/// ```compile_fail
/// # use seedbed::worker::OwnedData;
/// # fn owned<T: for<'buffer> OwnedData<'buffer>>(data: T) -> T { data }
/// assert_eq!(owned("a word"), "a word");
/// ```
pub trait OwnedData<'buffer>: Deserialize<'buffer> {}

#[diagnostic::do_not_recommend]
impl<'buffer, T: Deserialize<'buffer>> OwnedData<'buffer> for T {}

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
pub trait Argument: Serialize + for<'buffer> OwnedData<'buffer> + Send + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + for<'buffer> OwnedData<'buffer> + Send + 'static> Argument for T {}

/// A type whose values can be the result of a job: owned data that implements serde's traits.
///
/// Every such type implements this trait. Derive `serde::Serialize` and `serde::Deserialize` for
/// your own types. A job that fails returns a `Result` whose error implements these traits, too,
/// such as [`RemoteError`](crate::worker::RemoteError).
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
pub trait JobResult: Serialize + for<'buffer> OwnedData<'buffer> + Send + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + for<'buffer> OwnedData<'buffer> + Send + 'static> JobResult for T {}

/// A type whose values can be the data of a closure of a
/// [`WorkerConfig`](crate::WorkerConfig): owned data that implements serde's traits.
///
/// Every such type implements this trait. Derive `serde::Serialize` and `serde::Deserialize` for
/// your own types. The data is the first argument, and the closure the second:
/// `init_with(data, closure)`.
///
/// # Examples
///
/// ```
/// use seedbed::worker::ClosureData;
///
/// fn check<D: ClosureData>(_: D) {}
///
/// check(("a dictionary".to_owned(), 7));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the data of a closure that worker processes call",
    label = "values of this type cannot be sent to another process",
    note = "the data comes first, and then the closure that gets a reference to it: `init_with(data, |data| ..)`",
    note = "the data owns what it contains and implements serde's traits: `#[derive(serde::Serialize, serde::Deserialize)]`"
)]
pub trait ClosureData: Serialize + for<'buffer> OwnedData<'buffer> + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + for<'buffer> OwnedData<'buffer> + 'static> ClosureData for T {}
