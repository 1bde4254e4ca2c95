//! Methods that make delayed values of delayed values.

use std::borrow::ToOwned;
use std::error::Error;
use std::ops::{Index, IndexMut};

use super::handle::Delayed;
use super::work::{Binary, Choose, Compare, Read, Unary};
use crate::delayed::error::JobError;

impl<T: Send + Sync + 'static> Delayed<T> {
    /// Applies a function to the value. The function runs in the task that awaits the result, so
    /// expensive ones belong into a job.
    ///
    /// ```
    /// use seedbed::delayed::delayed_val;
    ///
    /// let length = delayed_val("four").map(|text| text.len());
    /// assert_eq!(smol::block_on(async { length.await }).unwrap(), 4);
    /// ```
    pub fn map<U, F>(self, f: F) -> Delayed<U>
    where
        T: Clone,
        F: FnOnce(T) -> U + Send + 'static,
        U: Send + Sync + 'static,
    {
        Delayed::operation(Unary(self, move |value| Ok(f(value))))
    }

    /// Clones a part of the value.
    ///
    /// ```
    /// use seedbed::delayed::delayed_val;
    ///
    /// let pair = delayed_val(("name".to_owned(), 7));
    /// let name = pair.field(|pair| &pair.0);
    /// assert_eq!(smol::block_on(async { name.await }).unwrap(), "name");
    /// ```
    pub fn field<U, F>(&self, f: F) -> Delayed<U>
    where
        F: FnOnce(&T) -> &U + Send + 'static,
        U: Clone + Send + Sync + 'static,
    {
        Delayed::operation(Read(self.clone(), move |value: &T| f(value).clone()))
    }

    /// Makes a pair of two values.
    ///
    /// ```
    /// use seedbed::delayed::delayed_val;
    ///
    /// let pair = delayed_val(1).zip(delayed_val("one"));
    /// assert_eq!(smol::block_on(async { pair.await }).unwrap(), (1, "one"));
    /// ```
    pub fn zip<U>(self, other: impl Into<Delayed<U>>) -> Delayed<(T, U)>
    where
        T: Clone,
        U: Clone + Send + Sync + 'static,
    {
        Delayed::operation(Binary(self, other.into(), |one, other| (one, other)))
    }

    /// Clones an element of the value, as `value[index]` does. (The operator must return a
    /// reference, so it does not exist.)
    ///
    /// ```
    /// use seedbed::delayed::delayed_val;
    ///
    /// let second = delayed_val(vec![1, 2, 3]).index(1);
    /// assert_eq!(smol::block_on(async { second.await }).unwrap(), 2);
    /// ```
    pub fn index<I>(&self, index: I) -> Delayed<T::Output>
    where
        T: Index<I>,
        T::Output: Clone + Send + Sync + Sized + 'static,
        I: Send + 'static,
    {
        Delayed::operation(Read(self.clone(), move |value: &T| value[index].clone()))
    }

    /// Copies a range of the value, as `value[range].to_owned()` does.
    ///
    /// ```
    /// use seedbed::delayed::delayed_val;
    ///
    /// let rest = delayed_val(vec![1, 2, 3]).slice(1..);
    /// assert_eq!(smol::block_on(async { rest.await }).unwrap(), [2, 3]);
    /// ```
    pub fn slice<I>(&self, range: I) -> Delayed<<T::Output as ToOwned>::Owned>
    where
        T: Index<I>,
        T::Output: ToOwned<Owned: Send + Sync + 'static>,
        I: Send + 'static,
    {
        Delayed::operation(Read(self.clone(), move |value: &T| value[range].to_owned()))
    }

    /// Replaces an element, as `value[index] = element` does. Other handles of the value keep the
    /// old one.
    ///
    /// ```
    /// use seedbed::delayed::delayed_val;
    ///
    /// let mut list = delayed_val(vec![1, 2, 3]);
    /// list.set(0, delayed_val(4) + 5);
    /// assert_eq!(smol::block_on(async { list.await }).unwrap(), [9, 2, 3]);
    /// ```
    #[doc(alias = "setitem")]
    pub fn set<I>(&mut self, index: I, element: impl Into<Delayed<T::Output>>)
    where
        T: IndexMut<I> + Clone,
        T::Output: Clone + Send + Sync + Sized + 'static,
        I: Send + 'static,
    {
        let work = move |mut value: T, element| {
            value[index] = element;
            value
        };
        *self = Delayed::operation(Binary(self.clone(), element.into(), work));
    }

    fn compare(
        &self,
        other: impl Into<Self>,
        f: impl FnOnce(&T, &T) -> bool + Send + 'static,
    ) -> Delayed<bool> {
        Delayed::operation(Compare(self.clone(), other.into(), f))
    }

    /// Returns whether two values are equal.
    ///
    /// ```
    /// use seedbed::delayed::delayed_val;
    ///
    /// let equal = delayed_val(2).equals(delayed_val(1) + 1);
    /// assert!(smol::block_on(async { equal.await }).unwrap());
    /// ```
    #[doc(alias = "eq")]
    pub fn equals(&self, other: impl Into<Self>) -> Delayed<bool>
    where
        T: PartialEq,
    {
        self.compare(other, PartialEq::eq)
    }

    /// Returns whether this value is less than the other one.
    ///
    /// ```
    /// use seedbed::delayed::delayed_val;
    ///
    /// let less = delayed_val(1.0).lt(2.0);
    /// assert!(smol::block_on(async { less.await }).unwrap());
    /// ```
    pub fn lt(&self, other: impl Into<Self>) -> Delayed<bool>
    where
        T: PartialOrd,
    {
        self.compare(other, PartialOrd::lt)
    }

    /// Returns whether this value is less than the other one, or equal.
    ///
    /// ```
    /// use seedbed::delayed::delayed_val;
    ///
    /// let at_most = delayed_val(1.0).le(1.0);
    /// assert!(smol::block_on(async { at_most.await }).unwrap());
    /// ```
    pub fn le(&self, other: impl Into<Self>) -> Delayed<bool>
    where
        T: PartialOrd,
    {
        self.compare(other, PartialOrd::le)
    }

    /// Returns whether this value is greater than the other one.
    ///
    /// ```
    /// use seedbed::delayed::delayed_val;
    ///
    /// let greater = delayed_val(2.0).gt(1.0);
    /// assert!(smol::block_on(async { greater.await }).unwrap());
    /// ```
    pub fn gt(&self, other: impl Into<Self>) -> Delayed<bool>
    where
        T: PartialOrd,
    {
        self.compare(other, PartialOrd::gt)
    }

    /// Returns whether this value is greater than the other one, or equal.
    ///
    /// ```
    /// use seedbed::delayed::delayed_val;
    ///
    /// let at_least = delayed_val(f64::NAN).ge(1.0);
    /// assert!(!smol::block_on(async { at_least.await }).unwrap());
    /// ```
    pub fn ge(&self, other: impl Into<Self>) -> Delayed<bool>
    where
        T: PartialOrd,
    {
        self.compare(other, PartialOrd::ge)
    }

    /// Returns `then` if the condition is true, and `otherwise` if not. The other value is not
    /// computed, and its errors do not count. (Jobs below it run regardless.)
    ///
    /// ```
    /// use seedbed::delayed::{Delayed, delayed_val};
    ///
    /// let (a, b) = (delayed_val(8u32), delayed_val(0));
    /// let quotient = Delayed::choose(b.equals(0), delayed_val(0), &a / &b);
    /// assert_eq!(smol::block_on(async { quotient.await }).unwrap(), 0);
    /// ```
    #[doc(alias = "if")]
    pub fn choose(condition: Delayed<bool>, then: Self, otherwise: Self) -> Self
    where
        T: Clone,
    {
        Delayed::operation(Choose {
            condition,
            then,
            otherwise,
        })
    }
}

impl<T, E> Delayed<Result<T, E>>
where
    T: Clone + Send + Sync + 'static,
    E: Error + Clone + Send + Sync + 'static,
{
    /// Makes an `Err` the error of the value: a [`JobError`] of the kind
    /// [`Failed`](crate::delayed::JobErrorKind::Failed), whose source it is.
    ///
    /// ```
    /// use std::error::Error;
    /// use std::num::ParseIntError;
    /// use seedbed::delayed::delayed_val;
    ///
    /// let parse = |text: &'static str| delayed_val(text).map(|text| text.parse::<u8>()).flatten();
    /// smol::block_on(async {
    ///     assert_eq!((parse("3") + parse("4")).await.unwrap(), 7);
    ///     let error = (parse("3") + parse("four")).await.unwrap_err();
    ///     assert!(error.source().unwrap().is::<ParseIntError>());
    /// });
    /// ```
    pub fn flatten(self) -> Delayed<T> {
        Delayed::operation(Unary(self, |value: Result<T, E>| {
            value.map_err(JobError::failed)
        }))
    }
}
