//! The operators of delayed values.
//!
//! An operator with a plain number is implemented for each type of numbers, and not generically:
//!
//! * `impl<U> Add<U> for Delayed<T>` would overlap with that of `Delayed<U>`;
//! * `impl<U> Add<Delayed<U>> for f64 where f64: Add<U>` makes rustc give up with E0275 on code of
//!   other crates that has nothing to do with delayed values, such as `|x, y| x + y` in a box.
//!   `tests/checks/compile_pass/operators_of_strangers.rs` is such code;
//! * a trait for all operands would lose the types of literals, so that `Delayed<u64> * 2` would be
//!   refused.
//!
//! The docs show the implementations of `f64` only.

use std::iter::{Product, Sum};
use std::ops::*;

use super::handle::{Delayed, delayed_val};
use super::work::{Binary, Many, Unary, Values};

/// Implements an operator between delayed values, by value and by reference.
macro_rules! between_delayed {
    ($($trait:ident $method:ident $assign:ident $assign_method:ident;)+) => {$(
        impl<T, U> $trait<Delayed<U>> for Delayed<T>
        where
            T: $trait<U, Output: Send + Sync + 'static> + Clone,
            U: Clone,
        {
            type Output = Delayed<T::Output>;

            fn $method(self, other: Delayed<U>) -> Delayed<T::Output> {
                Delayed::operation(Binary(self, other, T::$method))
            }
        }

        impl<T, U> $trait<&Delayed<U>> for Delayed<T>
        where
            T: $trait<U, Output: Send + Sync + 'static> + Clone,
            U: Clone,
        {
            type Output = Delayed<T::Output>;

            fn $method(self, other: &Delayed<U>) -> Delayed<T::Output> {
                self.$method(other.clone())
            }
        }

        impl<T, U> $trait<Delayed<U>> for &Delayed<T>
        where
            T: $trait<U, Output: Send + Sync + 'static> + Clone,
            U: Clone,
        {
            type Output = Delayed<T::Output>;

            fn $method(self, other: Delayed<U>) -> Delayed<T::Output> {
                self.clone().$method(other)
            }
        }

        impl<T, U> $trait<&Delayed<U>> for &Delayed<T>
        where
            T: $trait<U, Output: Send + Sync + 'static> + Clone,
            U: Clone,
        {
            type Output = Delayed<T::Output>;

            fn $method(self, other: &Delayed<U>) -> Delayed<T::Output> {
                self.clone().$method(other.clone())
            }
        }

        impl<T, U> $assign<Delayed<U>> for Delayed<T>
        where
            T: $trait<U, Output = T> + Clone + Send + Sync,
            U: Clone,
        {
            fn $assign_method(&mut self, other: Delayed<U>) {
                *self = self.clone().$method(other);
            }
        }

        impl<T, U> $assign<&Delayed<U>> for Delayed<T>
        where
            T: $trait<U, Output = T> + Clone + Send + Sync,
            U: Clone,
        {
            fn $assign_method(&mut self, other: &Delayed<U>) {
                *self = self.clone().$method(other.clone());
            }
        }
    )+};
}

between_delayed! {
    Add add AddAssign add_assign;
    Sub sub SubAssign sub_assign;
    Mul mul MulAssign mul_assign;
    Div div DivAssign div_assign;
    Rem rem RemAssign rem_assign;
    BitAnd bitand BitAndAssign bitand_assign;
    BitOr bitor BitOrAssign bitor_assign;
    BitXor bitxor BitXorAssign bitxor_assign;
    Shl shl ShlAssign shl_assign;
    Shr shr ShrAssign shr_assign;
}

/// Implements operators between a delayed value and a plain one, on either side.
macro_rules! with_plain {
    ($plain:ident: $($trait:ident $method:ident $assign:ident $assign_method:ident;)+) => {$(
        impl<T> $trait<$plain> for Delayed<T>
        where
            T: $trait<$plain, Output: Send + Sync + 'static> + Clone,
        {
            type Output = Delayed<T::Output>;

            fn $method(self, other: $plain) -> Delayed<T::Output> {
                Delayed::operation(Unary(self, move |value: T| Ok(value.$method(other))))
            }
        }

        impl<T> $trait<$plain> for &Delayed<T>
        where
            T: $trait<$plain, Output: Send + Sync + 'static> + Clone,
        {
            type Output = Delayed<T::Output>;

            fn $method(self, other: $plain) -> Delayed<T::Output> {
                self.clone().$method(other)
            }
        }

        impl $trait<Delayed<$plain>> for $plain {
            type Output = Delayed<$plain>;

            fn $method(self, other: Delayed<$plain>) -> Delayed<$plain> {
                Delayed::operation(Unary(other, move |value: $plain| Ok(self.$method(value))))
            }
        }

        impl $trait<&Delayed<$plain>> for $plain {
            type Output = Delayed<$plain>;

            fn $method(self, other: &Delayed<$plain>) -> Delayed<$plain> {
                self.$method(other.clone())
            }
        }

        impl<T> $assign<$plain> for Delayed<T>
        where
            T: $trait<$plain, Output = T> + Clone + Send + Sync,
        {
            fn $assign_method(&mut self, other: $plain) {
                *self = self.clone().$method(other);
            }
        }
    )+};
}

macro_rules! arithmetic {
    ($($number:ident)+) => {$(
        with_plain! { $number:
            Add add AddAssign add_assign;
            Sub sub SubAssign sub_assign;
            Mul mul MulAssign mul_assign;
            Div div DivAssign div_assign;
            Rem rem RemAssign rem_assign;
        }
    )+};
}

macro_rules! bits {
    ($($plain:ident)+) => {$(
        with_plain! { $plain:
            BitAnd bitand BitAndAssign bitand_assign;
            BitOr bitor BitOrAssign bitor_assign;
            BitXor bitxor BitXorAssign bitxor_assign;
        }
    )+};
}

macro_rules! shifts {
    ($($number:ident)+) => {$(
        with_plain! { $number:
            Shl shl ShlAssign shl_assign;
            Shr shr ShrAssign shr_assign;
        }
    )+};
}

arithmetic! { f64 }

#[cfg(not(doc))]
arithmetic! { f32 i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize }
#[cfg(not(doc))]
bits! { bool i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize }
#[cfg(not(doc))]
shifts! { i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize }

macro_rules! unary {
    ($($trait:ident $method:ident;)+) => {$(
        impl<T: $trait<Output: Send + Sync + 'static> + Clone> $trait for Delayed<T> {
            type Output = Delayed<T::Output>;

            fn $method(self) -> Delayed<T::Output> {
                Delayed::operation(Unary(self, |value: T| Ok(value.$method())))
            }
        }

        impl<T: $trait<Output: Send + Sync + 'static> + Clone> $trait for &Delayed<T> {
            type Output = Delayed<T::Output>;

            fn $method(self) -> Delayed<T::Output> {
                self.clone().$method()
            }
        }
    )+};
}

unary! {
    Neg neg;
    Not not;
}

macro_rules! of_all {
    ($($trait:ident $method:ident;)+) => {$(
        impl<T: $trait + Clone + Send + Sync> $trait<Delayed<T>> for Delayed<T> {
            fn $method<I: Iterator<Item = Delayed<T>>>(values: I) -> Self {
                let values: Vec<_> = values.collect();
                if values.is_empty() {
                    return delayed_val(T::$method(std::iter::empty()));
                }
                Delayed::operation(Many(values, |values: Values<'_, T>| T::$method(values)))
            }
        }

        impl<'a, T: $trait + Clone + Send + Sync> $trait<&'a Delayed<T>> for Delayed<T> {
            fn $method<I: Iterator<Item = &'a Delayed<T>>>(values: I) -> Self {
                values.cloned().$method()
            }
        }
    )+};
}

of_all! {
    Sum sum;
    Product product;
}
