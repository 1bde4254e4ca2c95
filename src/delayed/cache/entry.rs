//! The bytes of a file: a first line, a checksum, the identity of the job, the type of its value,
//! and the value.

use super::identity::Identity;
use crate::sys::fnv::hash;
use crate::transport::codec::FORMAT_NUMBER;

/// The first line of each file. Its number changes with the format of files and with that of
/// encoded values, see [`FORMAT_NUMBER`].
fn first_line() -> String {
    format!("seedbed cached result, format 2.{FORMAT_NUMBER}\n")
}

/// Returns the bytes of a file.
pub(super) fn write(identity: &Identity, value_type: &str, value: &[u8]) -> Vec<u8> {
    let mut rest = Vec::new();
    for part in [identity.as_bytes(), value_type.as_bytes()] {
        rest.extend_from_slice(&(part.len() as u64).to_le_bytes());
        rest.extend_from_slice(part);
    }
    rest.extend_from_slice(value);
    let mut bytes = first_line().into_bytes();
    bytes.extend_from_slice(&hash(&rest).to_le_bytes());
    bytes.extend_from_slice(&rest);
    bytes
}

/// Returns the value in the bytes of a file.
///
/// # Errors
///
/// The reason why the file does not have the job's value.
pub(super) fn read<'a>(
    bytes: &'a [u8],
    identity: &Identity,
    value_type: &str,
) -> Result<&'a [u8], String> {
    let rest = bytes
        .strip_prefix(first_line().as_bytes())
        .ok_or("it is not a result that this version of seedbed has kept")?;
    let torn = "it is not complete, or was changed";
    let (checksum, rest) = rest.split_first_chunk().ok_or(torn)?;
    if u64::from_le_bytes(*checksum) != hash(rest) {
        return Err(torn.into());
    }
    let (of_job, rest) = split_part(rest).ok_or(torn)?;
    let (of_type, value) = split_part(rest).ok_or(torn)?;
    if of_job != identity.as_bytes() {
        return Err("it is the result of another job".into());
    }
    if of_type != value_type.as_bytes() {
        let of_type = String::from_utf8_lossy(of_type);
        return Err(format!(
            "it has a value of the type `{of_type}`, and not `{value_type}`"
        ));
    }
    Ok(value)
}

fn split_part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn identity(argument: u32) -> Identity {
        Identity::new("key".into(), "f", &argument).unwrap()
    }

    #[test]
    fn a_value_is_read_by_the_job_that_wrote_it_and_as_the_same_type() {
        let file = write(&identity(1), "Type", b"value");
        assert_eq!(read(&file, &identity(1), "Type"), Ok(&b"value"[..]));
        let error = read(&file, &identity(2), "Type").unwrap_err();
        assert!(error.contains("another job"), "{error}");
        let error = read(&file, &identity(1), "Other").unwrap_err();
        assert!(error.contains("`Type`, and not `Other`"), "{error}");
    }

    #[test]
    fn a_file_that_is_cut_off_extended_or_changed_anywhere_has_no_value() {
        let file = write(&identity(1), "Type", &[7; 100]);
        let is_refused = |bytes: &[u8]| read(bytes, &identity(1), "Type").is_err();
        for length in 0..file.len() {
            assert!(is_refused(&file[..length]), "{length} bytes");
        }
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut changed = file.clone();
                changed[at] ^= 1 << bit;
                assert!(is_refused(&changed), "bit {bit} of byte {at}");
            }
        }
        assert!(is_refused(&[&file[..], b"x"].concat()));
        assert!(is_refused(&[&file[..], &file[..]].concat()));
        assert!(!is_refused(&file));
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        for length in [u64::MAX, 1 << 40, 3] {
            let rest = [&length.to_le_bytes()[..], b"xx"].concat();
            let sum = hash(&rest).to_le_bytes();
            let file = [first_line().as_bytes(), &sum, &rest].concat();
            assert!(read(&file, &identity(1), "Type").is_err());
        }
    }
}
