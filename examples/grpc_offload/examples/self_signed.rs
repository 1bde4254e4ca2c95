//! Writes `certificate.pem` and `key.pem` into a folder, for a server that clients reach as
//! `localhost` or `127.0.0.1`: `self_signed FOLDER`. Clients must be told to trust the certificate.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: self_signed FOLDER")?;
    let folder = PathBuf::from(folder);
    let names = ["localhost", "127.0.0.1"].map(str::to_owned);
    let certified = rcgen::generate_simple_self_signed(names)?;
    fs::write(folder.join("certificate.pem"), certified.cert.pem())?;
    fs::write(
        folder.join("key.pem"),
        certified.signing_key.serialize_pem(),
    )?;
    Ok(())
}
