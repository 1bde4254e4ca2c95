//! A run of several root functions in one block of jobs.

use std::future::Future;

use super::jobs::Jobs;
use super::run::run;
use super::setup::{Setup, SetupError};
use crate::task::{LocalNursery, Task, open_local_nursery};

/// Enters a [run](crate::run()) and opens a block of jobs in it, in which several async functions
/// run side by side.
///
/// `roots` is a tuple of up to six functions, an array, or a `Vec`; each gets a handle on the same
/// block. Returns their values, in the same form, when all have ended. ([`run`] takes one
/// function.)
///
/// # Errors
///
/// If the file that the setup names cannot be read, or is wrong. No job has run then.
///
/// # Panics
///
/// With the panic of a root or of a spawned future. The other roots and all jobs are cancelled.
///
/// # Examples
///
/// ```
/// use seedbed::delayed::{Jobs, Setup, run_all};
///
/// async fn negative(jobs: Jobs<'_>) -> i32 {
///     jobs.call(i32::abs, -1).await.unwrap()
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let positive = async |jobs: Jobs<'_>| jobs.call(i32::abs, 2).await;
///     let (one, two) = run_all(Setup::from_env(), (negative, positive))?;
///     assert_eq!((one, two?), (1, 2));
///     Ok(())
/// }
/// ```
#[doc(alias = "run")]
pub fn run_all<'env, R: Roots<'env>>(
    setup: impl Into<Setup>,
    roots: R,
) -> Result<R::Values, SetupError> {
    run(setup, |jobs: Jobs<'env>| {
        open_local_nursery(move |n: LocalNursery<'env, R::Values>| roots.start(jobs, n))
    })
}

/// Root functions, for [`run_all`]: a tuple, an array or a `Vec` of async functions that take
/// [`Jobs`]. It cannot be implemented elsewhere.
///
/// ```
/// use seedbed::delayed::{Jobs, Resources, Roots, run_all};
///
/// fn first<'env, R: Roots<'env, Values = Vec<u32>>>(roots: R) -> u32 {
///     run_all(Resources::local(), roots).unwrap()[0]
/// }
///
/// fn main() {
///     assert_eq!(first(vec![async |_: Jobs<'_>| 7]), 7);
/// }
/// ```
pub trait Roots<'env>: sealed::Start<'env> {}

impl<'env, R: sealed::Start<'env>> Roots<'env> for R {}

mod sealed {
    use super::{Future, Jobs, LocalNursery};

    // Sealed: only the types of this crate implement it.
    #[allow(unnameable_types)]
    pub trait Start<'env> {
        /// The values of all roots.
        type Values: 'env;

        /// Starts each root as a child of the nursery.
        #[doc(hidden)]
        fn start(
            self,
            jobs: Jobs<'env>,
            n: LocalNursery<'env, Self::Values>,
        ) -> impl Future<Output = Self::Values>;
    }
}

/// Implements [`Roots`] for tuples of one size.
macro_rules! tuple {
    ($($root:ident $type:ident $future:ident),+) => {
        impl<'env, $($type, $future),+> sealed::Start<'env> for ($($type,)+)
        where
            $(
                $type: FnOnce(Jobs<'env>) -> $future,
                $future: Future<Output: 'env> + 'env,
            )+
        {
            type Values = ($($future::Output,)+);

            fn start(
                self,
                jobs: Jobs<'env>,
                n: LocalNursery<'env, Self::Values>,
            ) -> impl Future<Output = Self::Values> {
                let ($($root,)+) = self;
                $(let $root = n.spawn($root(jobs.clone()));)+
                async move { ($($root.await,)+) }
            }
        }
    };
}

tuple!(a A FutureA, b B FutureB);
tuple!(a A FutureA, b B FutureB, c C FutureC);
tuple!(a A FutureA, b B FutureB, c C FutureC, d D FutureD);
tuple!(a A FutureA, b B FutureB, c C FutureC, d D FutureD, e E FutureE);
tuple!(a A FutureA, b B FutureB, c C FutureC, d D FutureD, e E FutureE, f F FutureF);

impl<'env, F, Fut> sealed::Start<'env> for Vec<F>
where
    F: FnOnce(Jobs<'env>) -> Fut,
    Fut: Future<Output: 'env> + 'env,
{
    type Values = Vec<Fut::Output>;

    fn start(
        self,
        jobs: Jobs<'env>,
        n: LocalNursery<'env, Self::Values>,
    ) -> impl Future<Output = Self::Values> {
        let start = |root: F| n.spawn(root(jobs.clone()));
        let tasks: Vec<Task<Fut::Output>> = self.into_iter().map(start).collect();
        async move {
            let mut values = Vec::with_capacity(tasks.len());
            for task in tasks {
                values.push(task.await);
            }
            values
        }
    }
}

impl<'env, F, Fut, const N: usize> sealed::Start<'env> for [F; N]
where
    F: FnOnce(Jobs<'env>) -> Fut,
    Fut: Future<Output: 'env> + 'env,
{
    type Values = [Fut::Output; N];

    fn start(
        self,
        jobs: Jobs<'env>,
        n: LocalNursery<'env, Self::Values>,
    ) -> impl Future<Output = Self::Values> {
        let tasks = self.map(|root| n.spawn(root(jobs.clone())));
        async move {
            let mut values = Vec::with_capacity(N);
            for task in tasks {
                values.push(task.await);
            }
            match <[Fut::Output; N]>::try_from(values) {
                Ok(values) => values,
                Err(_) => unreachable!("each of N roots has a value"),
            }
        }
    }
}
