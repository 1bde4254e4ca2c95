//! A handle is invariant: one for long-lived children cannot become one for short-lived ones.

use seedbed::Nursery;
use seedbed::nursery::Spawner;

fn shrink<'short>(n: Nursery<'static>, _: &'short str) -> Nursery<'short> {
    n
}

fn shrink_spawner<'short>(n: Spawner<'static>, _: &'short str) -> Spawner<'short> {
    n
}

fn main() {}
