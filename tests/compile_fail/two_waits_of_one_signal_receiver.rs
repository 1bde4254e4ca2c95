//! A receiver hands each signal to one wait: make another receiver for another.

fn main() {
    let mut signals = seedbed::signal::open_signal_receiver(&[10]).unwrap();
    let first = signals.next();
    let second = signals.next();
    drop((first, second));
}
