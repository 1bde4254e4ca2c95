//! A task may contain the child's result, so it cannot outlive what the result borrows.

struct Borrows<'a>(&'a String);

impl Drop for Borrows<'_> {
    fn drop(&mut self) {
        println!("{}", self.0);
    }
}

fn main() {
    let kept;
    {
        let text = String::from("dropped first");
        let text = &text;
        kept = seedbed::run(seedbed::open_nursery(|n| async move {
            n.spawn(async move { Borrows(text) })
        }));
    }
    drop(kept);
}
