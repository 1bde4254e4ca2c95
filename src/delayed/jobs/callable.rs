//! The traits of functions and values of jobs. They exist for the call syntax, and for the errors
//! of the compiler.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A function that [`Jobs::call`](crate::delayed::Jobs::call) can call with `Args`: a plain
/// function or a closure that captures nothing, of at most six parameters.
///
/// `Args` is the type of the only parameter, or a tuple of the types of all. `Marker` tells these
/// cases apart, and is found by the compiler.
///
/// # Examples
///
/// ```
/// use seedbed::delayed::Callable;
///
/// fn apply<F: Callable<A, M>, A, M>(f: F, args: A) -> F::Value {
///     f.apply(args)
/// }
///
/// fn add(a: i32, b: i32) -> i32 {
///     a + b
/// }
///
/// assert_eq!(apply(add, (1, 2)), 3);
/// assert_eq!(apply(i32::abs, -1), 1);
/// assert_eq!(apply(|| 5, ()), 5);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no function of `{Args}`",
    note = "a job is a plain function, or a closure that captures nothing; several arguments are a tuple",
    note = "an `async fn` stays in this process: `jobs.spawn(f(x))`"
)]
pub trait Callable<Args, Marker>: Copy + Send + Sync + 'static {
    /// The type that the function returns.
    type Value;

    /// Calls the function.
    fn apply(&self, args: Args) -> Self::Value;
}

impl<F, A, R> Callable<A, fn(A) -> R> for F
where
    F: Fn(A) -> R + Copy + Send + Sync + 'static,
{
    type Value = R;

    fn apply(&self, args: A) -> R {
        self(args)
    }
}

macro_rules! callable {
    ($($type:ident $value:ident),*) => {
        impl<F, R, $($type),*> Callable<($($type,)*), (fn($($type),*) -> R,)> for F
        where
            F: Fn($($type),*) -> R + Copy + Send + Sync + 'static,
        {
            type Value = R;

            fn apply(&self, ($($value,)*): ($($type,)*)) -> R {
                self($($value),*)
            }
        }
    };
}

callable!();
callable!(A a, B b);
callable!(A a, B b, C c);
callable!(A a, B b, C c, D d);
callable!(A a, B b, C c, D d, E e);
callable!(A a, B b, C c, D d, E e, G g);

/// A value that can be the argument of a function of `A`: one of the type `A`, and no other.
///
/// # Examples
///
/// ```
/// use seedbed::delayed::Argument;
///
/// fn take(argument: impl Argument<u8>) -> u8 {
///     argument.into_argument()
/// }
///
/// assert_eq!(take(3), 3);
/// ```
#[diagnostic::on_unimplemented(
    message = "the job takes `{A}`, not `{Self}`",
    label = "this is not `{A}`",
    note = "a `Delayed` is awaited first: `let x = x.await?; jobs.call(f, x)`, or `jobs.then(x, f)`"
)]
pub trait Argument<A> {
    /// Returns the value.
    fn into_argument(self) -> A;
}

impl<A> Argument<A> for A {
    fn into_argument(self) -> A {
        self
    }
}

/// A type whose values can be arguments and results of jobs: owned data that implements serde's
/// traits, and that several threads may read.
///
/// # Examples
///
/// ```
/// use seedbed::delayed::Portable;
///
/// fn size<T: Portable>(value: &T) -> usize {
///     serde_json::to_string(value).unwrap().len()
/// }
///
/// assert_eq!(size(&(1, "two".to_owned())), 9);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel between processes, so it is no argument or result of a job",
    label = "values of this type cannot be sent to another process",
    note = "derive serde's traits: `#[derive(serde::Serialize, serde::Deserialize)]`; send a `String` rather than a `&str`",
    note = "a `Delayed` stays here: `let x = x.await?; jobs.call(f, x)`, or `jobs.then(x, f)`",
    note = "a future stays here, too; an `async fn` is spawned: `jobs.spawn(f(x))`"
)]
pub trait Portable: Serialize + DeserializeOwned + Send + Sync + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Portable for T {}
