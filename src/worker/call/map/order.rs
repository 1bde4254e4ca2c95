//! Whether results come in the order of their items.

/// How a map delivers its results: [`MapOrdered`] or [`MapUnordered`].
///
/// # Examples
///
/// ```
/// use seedbed::worker::{MapOrder, MapOrdered, MapUnordered};
///
/// let ordered: <MapOrdered as MapOrder>::Delivered<char> = 'a';
/// let unordered: <MapUnordered as MapOrder>::Delivered<char> = (7, 'a');
/// assert_eq!(ordered, unordered.1);
/// ```
pub trait MapOrder: sealed::Order {
    /// A result as it is delivered.
    type Delivered<T>;

    #[doc(hidden)]
    fn deliver<T>(index: usize, value: T) -> Self::Delivered<T>;

    #[doc(hidden)]
    fn transpose<T, E>(delivered: Self::Delivered<Result<T, E>>) -> Result<Self::Delivered<T>, E>;
}

/// Results come in the order of their items.
///
/// ```
/// use seedbed::worker::{MapOrdered, MapSync};
///
/// fn lengths(words: MapSync<'_, String, usize, MapOrdered>) -> Vec<usize> {
///     smol::block_on(words.try_collect()).unwrap()
/// }
///
/// fn main() {
///     seedbed::init();
///     let words = ["ivy", "fern"].map(String::from);
///     assert_eq!(lengths(seedbed::map_sync(|word: String| word.len(), words)), [3, 4]);
/// }
/// ```
#[derive(Debug)]
pub enum MapOrdered {}

/// Results come as soon as they are made, each with the index of its item.
///
/// ```
/// use seedbed::worker::{MapSync, MapUnordered};
///
/// fn longest(words: MapSync<'_, String, usize, MapUnordered>) -> Option<usize> {
///     let lengths = smol::block_on(words.try_collect()).unwrap();
///     lengths.into_iter().max_by_key(|&(_, length)| length).map(|(index, _)| index)
/// }
///
/// fn main() {
///     seedbed::init();
///     let words = ["ivy", "fern"].map(String::from);
///     assert_eq!(longest(seedbed::map_sync(|word: String| word.len(), words).unordered()), Some(1));
/// }
/// ```
#[derive(Debug)]
pub enum MapUnordered {}

impl MapOrder for MapOrdered {
    type Delivered<T> = T;

    fn deliver<T>(_: usize, value: T) -> T {
        value
    }

    fn transpose<T, E>(delivered: Result<T, E>) -> Result<T, E> {
        delivered
    }
}

impl MapOrder for MapUnordered {
    type Delivered<T> = (usize, T);

    fn deliver<T>(index: usize, value: T) -> (usize, T) {
        (index, value)
    }

    fn transpose<T, E>((index, result): (usize, Result<T, E>)) -> Result<(usize, T), E> {
        Ok((index, result?))
    }
}

mod sealed {
    /// Keeps other orders out.
    #[allow(unnameable_types)] // so that no other crate can implement it
    pub trait Order {
        const IS_ORDERED: bool;
    }

    impl Order for super::MapOrdered {
        const IS_ORDERED: bool = true;
    }

    impl Order for super::MapUnordered {
        const IS_ORDERED: bool = false;
    }
}
