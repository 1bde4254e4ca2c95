//! A send ends with its handle, which can be closed.

fn main() {
    let (sender, receiver) = seedbed::sync::channel(0);
    let sending = sender.send(5);
    drop(sender);
    smol::block_on(sending).unwrap_err();
    drop(receiver);
}
