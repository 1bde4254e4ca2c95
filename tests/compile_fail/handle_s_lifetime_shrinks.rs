//! A handle is invariant: one that takes long-lived children is not one that takes short-lived ones.

use seedbed::Nursery;
use seedbed::nursery::Spawner;

fn shrink<'short>(n: Nursery<'static>, _: &'short str) -> Nursery<'short> {
    n
}

fn shrink_spawner<'short>(n: Spawner<'static>, _: &'short str) -> Spawner<'short> {
    n
}

fn main() {}
