//! A queued call may run after the function that queued it has returned, so it cannot borrow.

use seedbed::run;
use seedbed::run::current_run;

fn main() {
    run(async {
        let words = String::from("of the caller");
        current_run().call_soon(|| println!("{words}")).unwrap();
    });
}
