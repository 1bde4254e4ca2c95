//! A task may hold the result, so it may not outlive what that borrows.

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
