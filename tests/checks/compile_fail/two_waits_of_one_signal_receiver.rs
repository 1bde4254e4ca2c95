//! A signal receiver supports one wait at a time; a second wait needs a second receiver.

fn main() {
    let mut signals = seedbed::signal::open_signal_receiver(&[10]).unwrap();
    let first = signals.next();
    let second = signals.next();
    drop((first, second));
}
