//! The error of a job implements serde's traits; `RemoteError` does.

fn size(path: String) -> std::io::Result<u64> {
    Ok(std::fs::metadata(path)?.len())
}

fn main() {
    seedbed::run(async {
        let size = seedbed::run_sync(size, "a".to_owned()).await;
        println!("{size:?}");
    });
}
