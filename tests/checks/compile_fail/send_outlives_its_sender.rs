//! A send borrows its sender, so the sender cannot be dropped first.

fn main() {
    let (sender, receiver) = seedbed::sync::channel(0);
    let sending = sender.send(5);
    drop(sender);
    smol::block_on(sending).unwrap_err();
    drop(receiver);
}
