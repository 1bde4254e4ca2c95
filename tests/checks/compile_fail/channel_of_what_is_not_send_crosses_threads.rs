//! A channel moves values between threads, so they must be `Send`.

use std::rc::Rc;

fn main() {
    let (sender, receiver) = seedbed::sync::channel::<Rc<u32>>(1);
    std::thread::spawn(move || sender.try_send(Rc::new(5)));
    drop(receiver);
}
