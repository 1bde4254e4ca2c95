//! A system task belongs to the run, so it cannot borrow from the function that spawned it.

use seedbed::run;
use seedbed::run::spawn_system_task;

fn main() {
    run(async {
        let words = String::from("of the main future");
        spawn_system_task(async { println!("{words}") });
    });
}
