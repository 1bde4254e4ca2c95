//! Writes `offload.v1.rs` and `descriptor.bin` into the folder that is given, or into
//! `src/generated`.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    let package = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let out = std::env::args_os().nth(1).map_or_else(
        || PathBuf::from(package).join("src/generated"),
        PathBuf::from,
    );
    std::fs::create_dir_all(&out)?;
    let proto = PathBuf::from(package).join("proto");
    let descriptor = protox::compile(["offload.proto"], [proto])?;
    std::fs::write(out.join("descriptor.bin"), descriptor.encode_to_vec())?;
    tonic_prost_build::configure()
        // The client's transport would be tonic's, which needs a runtime of tokio.
        .build_transport(false)
        .out_dir(out)
        .compile_fds(descriptor)?;
    Ok(())
}
