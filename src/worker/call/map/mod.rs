//! Maps: a function called with many items, in several workers.
//!
//! [`driver`] decides, with [`intake`] for items that come and [`outcomes`] for workers that end,
//! and with the pure parts [`chunk`], [`sizer`] and [`reorder`]. A [`lane`] has one worker at a
//! time; the protocol between both processes is in `transport::map`. [`block`] is the structured
//! part: what ends when.

mod block;
mod chunk;
mod delivery;
mod driver;
mod intake;
mod lane;
mod map_sync;
mod order;
mod outcomes;
mod parking;
mod plan;
mod reorder;
mod results;
mod sizer;
mod source;

pub use map_sync::{MapSync, map_sync};
pub use order::{MapOrder, MapOrdered, MapUnordered};
pub use results::MapResults;
pub use source::{MapItems, MapIterator, MapSource, MapStream};
