//! The items of a map: an iterator or a stream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_lite::Stream;

/// Items that a map can work on: any iterator or stream of them that is `Send`.
///
/// `How` tells the compiler which of the two it is; it is always inferred.
///
/// # Examples
///
/// ```
/// use seedbed::worker::MapItems;
///
/// fn check<'a, How>(_: impl MapItems<'a, u64, How>) {}
///
/// check(1..);
/// check(vec![3, 5].into_iter().map(|n| n + 1));
/// check(futures_lite::stream::repeat(7));
/// assert_eq!(size_of::<seedbed::worker::MapSource<'static, u64>>(), 16); // a box
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the items of a map over `{A}`",
    label = "neither an iterator nor a stream of `{A}` that is `Send`",
    note = "the items of a map own their data: use `.cloned()` or `.map(..)` on an iterator of references"
)]
pub trait MapItems<'a, A, How> {
    /// Boxes the items.
    fn into_source(self) -> MapSource<'a, A>;
}

/// Says that the [`MapItems`] are an iterator.
///
/// ```
/// use seedbed::worker::{MapItems, MapIterator};
///
/// fn is_iterator<'a>(_: impl MapItems<'a, u64, MapIterator>) -> bool {
///     true
/// }
/// assert!(is_iterator(1..4));
/// ```
#[derive(Debug)]
pub enum MapIterator {}

/// Says that the [`MapItems`] are a stream.
///
/// ```
/// use seedbed::worker::{MapItems, MapStream};
///
/// fn is_stream<'a>(_: impl MapItems<'a, u64, MapStream>) -> bool {
///     true
/// }
/// assert!(is_stream(futures_lite::stream::repeat(7)));
/// ```
#[derive(Debug)]
pub enum MapStream {}

/// The boxed items of a map, into which [`map_sync`](crate::map_sync) turns its [`MapItems`].
///
/// ```
/// use seedbed::worker::{MapItems, MapSource};
///
/// let boxed: MapSource<'_, u64> = (1..4).into_source();
/// assert_eq!(format!("{boxed:?}"), "MapSource { .. }");
/// ```
pub struct MapSource<'a, A>(Box<dyn Pull<A> + Send + 'a>);

impl<A> MapSource<'_, A> {
    /// Returns the next item, or `None` at the end.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<A>> {
        self.0.poll_next(cx)
    }

    /// Returns how many items are left, if that is known.
    pub(super) fn left(&self) -> Option<usize> {
        self.0.left()
    }
}

impl<A> fmt::Debug for MapSource<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapSource").finish_non_exhaustive()
    }
}

impl<'a, A, I> MapItems<'a, A, MapIterator> for I
where
    I: IntoIterator<Item = A>,
    I::IntoIter: Send + 'a,
{
    fn into_source(self) -> MapSource<'a, A> {
        MapSource(Box::new(OfIterator(self.into_iter())))
    }
}

impl<'a, A, S> MapItems<'a, A, MapStream> for S
where
    S: Stream<Item = A> + Send + 'a,
{
    fn into_source(self) -> MapSource<'a, A> {
        MapSource(Box::new(OfStream(Box::pin(self))))
    }
}

trait Pull<A> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<A>>;

    fn left(&self) -> Option<usize>;
}

struct OfIterator<I>(I);

impl<I: Iterator> Pull<I::Item> for OfIterator<I> {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<I::Item>> {
        Poll::Ready(self.0.next())
    }

    fn left(&self) -> Option<usize> {
        exact(self.0.size_hint())
    }
}

struct OfStream<S>(Pin<Box<S>>);

impl<S: Stream> Pull<S::Item> for OfStream<S> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.0.as_mut().poll_next(cx)
    }

    fn left(&self) -> Option<usize> {
        exact(self.0.size_hint())
    }
}

fn exact((least, most): (usize, Option<usize>)) -> Option<usize> {
    most.filter(|most| *most == least)
}
