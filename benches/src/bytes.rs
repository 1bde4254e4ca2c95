//! Making and summing bytes: the work of the payload jobs, of seedbed, its peers and the limit
//! alike.

/// Returns the sum of all bytes. It is not inlined, so that all contenders run the same loop.
#[inline(never)]
pub fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

/// Returns `length` bytes of the same value, in fresh memory.
pub fn make((byte, length): (u64, usize)) -> Vec<u8> {
    vec![byte as u8; length]
}
