//! Arguments of jobs travel between processes.

struct Picture(Vec<u8>);

fn size(picture: Picture) -> usize {
    picture.0.len()
}

fn main() {
    let resources = seedbed::delayed::Resources::local();
    seedbed::run(seedbed::delayed::open(resources, async |jobs| {
        drop(jobs.call(size, Picture(vec![1])));
    }));
}
