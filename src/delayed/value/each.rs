//! Many delayed values as one, and one as many.

use std::sync::Arc;

use super::handle::Delayed;
use super::node::Graph;
use super::operation::Work;
use super::work::{Many, Read};
use crate::delayed::error::JobError;

/// Delayed values that [`each`] makes one delayed value of: a `Vec`, an array, or a tuple.
///
/// # Examples
///
/// ```
/// use seedbed::delayed::{Delayed, Each, delayed_val, each};
///
/// /// A struct of delayed values.
/// struct Point {
///     x: Delayed<f64>,
///     y: Delayed<f64>,
/// }
///
/// impl Each for Point {
///     type Values = (f64, f64);
///
///     fn into_delayed(self) -> Delayed<(f64, f64)> {
///         each((self.x, self.y))
///     }
/// }
///
/// let point = each(Point { x: delayed_val(1.0), y: delayed_val(2.0) });
/// assert_eq!(smol::block_on(async { point.await }).unwrap(), (1.0, 2.0));
/// ```
pub trait Each {
    /// The values: a `Vec`, an array, or a tuple.
    type Values: 'static;

    /// Makes one delayed value of all.
    fn into_delayed(self) -> Delayed<Self::Values>;
}

/// Makes one delayed value of many. It is there when all of them are.
///
/// # Examples
///
/// ```
/// use seedbed::delayed::{delayed_val, each};
///
/// smol::block_on(async {
///     let list = each(vec![delayed_val(1), delayed_val(2) + 3]);
///     assert_eq!(list.await.unwrap(), [1, 5]);
///     let tuple = each((delayed_val(1), delayed_val("two"), delayed_val(3.0)));
///     assert_eq!(tuple.await.unwrap(), (1, "two", 3.0));
/// });
/// ```
#[doc(alias = "gather")]
pub fn each<E: Each>(all: E) -> Delayed<E::Values> {
    all.into_delayed()
}

impl<T: Clone + Send + Sync + 'static> Each for Vec<Delayed<T>> {
    type Values = Vec<T>;

    fn into_delayed(self) -> Delayed<Vec<T>> {
        Delayed::operation(Many(self, |values: &mut dyn Iterator<Item = T>| {
            values.collect()
        }))
    }
}

/// Collects delayed values into a delayed `Vec`, as [`each`] does.
impl<T: Clone + Send + Sync + 'static> FromIterator<Delayed<T>> for Delayed<Vec<T>> {
    fn from_iter<I: IntoIterator<Item = Delayed<T>>>(values: I) -> Self {
        each(Vec::from_iter(values))
    }
}

impl<T: Clone + Send + Sync + 'static, const N: usize> Each for [Delayed<T>; N] {
    type Values = [T; N];

    fn into_delayed(self) -> Delayed<[T; N]> {
        let values = Vec::from(self);
        Delayed::operation(Many(values, |values: &mut dyn Iterator<Item = T>| {
            std::array::from_fn(|_| match values.next() {
                Some(value) => value,
                None => unreachable!("all values of an array are there"),
            })
        }))
    }
}

/// Implements [`Each`] and `unzip` for tuples of one size.
macro_rules! tuple {
    ($($value:ident $type:ident $index:tt),+) => {
        impl<$($type: Clone + Send + Sync + 'static),+> Work for ($(Delayed<$type>,)+) {
            type Output = ($($type,)+);

            fn missing(&self, missing: &mut Vec<Arc<dyn Graph>>) -> Result<(), JobError> {
                $(self.$index.missing(missing)?;)+
                Ok(())
            }

            fn add_operands(&self, operands: &mut Vec<Arc<dyn Graph>>) {
                $(operands.push(self.$index.0.clone());)+
            }

            fn label() -> &'static str {
                "each"
            }

            fn compute(self) -> Result<Self::Output, JobError> {
                Ok(($(self.$index.into_result()?,)+))
            }

            fn release(self, drop_later: &mut dyn FnMut(Arc<dyn Graph>)) {
                $(drop_later(self.$index.0);)+
            }
        }

        impl<$($type: Clone + Send + Sync + 'static),+> Each for ($(Delayed<$type>,)+) {
            type Values = ($($type,)+);

            fn into_delayed(self) -> Delayed<Self::Values> {
                Delayed::operation(self)
            }
        }

        impl<$($type: Clone + Send + Sync + 'static),+> Delayed<($($type,)+)> {
            /// Makes a delayed value of each part of a tuple.
            ///
            /// ```
            /// use seedbed::delayed::delayed_val;
            ///
            /// let (number, name) = delayed_val((1, "one")).unzip();
            /// assert_eq!(smol::block_on(async { name.await }).unwrap(), "one");
            /// assert_eq!(smol::block_on(async { number.await }).unwrap(), 1);
            /// ```
            pub fn unzip(self) -> ($(Delayed<$type>,)+) {
                $(let $value = self.field(|values| &values.$index);)+
                ($($value,)+)
            }
        }
    };
}

tuple!(a A 0, b B 1);
tuple!(a A 0, b B 1, c C 2);
tuple!(a A 0, b B 1, c C 2, d D 3);
tuple!(a A 0, b B 1, c C 2, d D 3, e E 4);
tuple!(a A 0, b B 1, c C 2, d D 3, e E 4, f F 5);

impl<T: Clone + Send + Sync + 'static, const N: usize> Delayed<[T; N]> {
    /// Makes a delayed value of each element of an array.
    ///
    /// ```
    /// use seedbed::delayed::delayed_val;
    ///
    /// let [one, two] = delayed_val([1, 2]).unzip();
    /// assert_eq!(smol::block_on(async { (two - one).await }).unwrap(), 1);
    /// ```
    pub fn unzip(self) -> [Delayed<T>; N] {
        std::array::from_fn(|at| self.field(move |values| &values[at]))
    }
}

impl<T: Clone + Send + Sync + 'static> Delayed<Vec<T>> {
    /// Makes delayed values of the first `len` elements. The length of the list is not known yet,
    /// so it is stated; an element that does not exist is an error when it is awaited.
    ///
    /// ```
    /// use seedbed::delayed::delayed_val;
    ///
    /// let parts = delayed_val(vec![1, 2]).unzip(3);
    /// smol::block_on(async {
    ///     assert_eq!((&parts[1]).await.unwrap(), 2);
    ///     assert!((&parts[2]).await.is_err());
    /// });
    /// ```
    #[doc(alias = "nout")]
    pub fn unzip(self, len: usize) -> Vec<Delayed<T>> {
        let part = |at: usize| {
            Delayed::operation(Read(self.clone(), move |list: &Vec<T>| list[at].clone()))
        };
        (0..len).map(part).collect()
    }
}
