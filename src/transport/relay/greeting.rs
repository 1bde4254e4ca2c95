//! The greeting: the first bytes of a guardian, behind whatever was printed before it. Pure.
//!
//! A login script, a message of the day, or the program itself before the hook may print to the
//! standard output that the launcher carries.

use super::super::tuning::MAX_GREETING_NOISE;

/// The bytes that no login script prints. The last ones are the version of the protocol.
pub(crate) const GREETING: &[u8; 25] = b"\0\x1bseedbed\x1bguardian\x1b00001\n";

/// The bytes of the noise that are kept, for an error message.
const NOISE_KEPT: usize = 512;

/// Looks for the greeting in arriving bytes.
#[derive(Debug, Default)]
pub(crate) struct GreetingFinder {
    /// The last bytes that have arrived, fewer than a greeting has.
    last: Vec<u8>,
    noise: Vec<u8>,
    noise_len: usize,
}

/// Too many bytes have arrived without a greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoGreeting;

impl GreetingFinder {
    /// Adds bytes that have arrived. Returns those behind the greeting, if it is complete.
    pub(crate) fn push<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, NoGreeting> {
        let known = self.last.len();
        self.last.extend_from_slice(bytes);
        let found = self
            .last
            .windows(GREETING.len())
            .position(|window| window == GREETING);
        if let Some(found) = found {
            self.note_noise(found);
            self.last.clear();
            // The greeting ends in `bytes`, or it would have been found before.
            return Ok(Some(&bytes[found + GREETING.len() - known..]));
        }
        let kept = self.last.len().min(GREETING.len() - 1);
        self.note_noise(self.last.len() - kept);
        if self.noise_len > MAX_GREETING_NOISE {
            return Err(NoGreeting);
        }
        Ok(None)
    }

    /// Moves the first bytes to the noise.
    fn note_noise(&mut self, length: usize) {
        let noise = self.last.drain(..length);
        let kept = NOISE_KEPT - self.noise.len();
        self.noise.extend(noise.as_slice().iter().take(kept));
        drop(noise);
        self.noise_len += length;
    }

    /// Returns the beginning of what has arrived without being a greeting, as text.
    pub(crate) fn noise(&self) -> String {
        let kept = NOISE_KEPT - self.noise.len();
        let rest = self.last.iter().take(kept);
        let noise: Vec<u8> = self.noise.iter().chain(rest).copied().collect();
        String::from_utf8_lossy(&noise).trim().to_owned()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[cfg_attr(miri, ignore = "too many cases")]
        #[test]
        fn the_greeting_is_found_behind_any_noise_and_in_any_pieces(
            noise in prop::collection::vec(prop_oneof![Just(0), Just(0x1b), any::<u8>()], 0..60),
            cut_greeting in 0..GREETING.len(),
            rest in prop::collection::vec(any::<u8>(), 0..20),
            piece in 1..40_usize,
        ) {
            // The noise may even be the beginning of a greeting.
            let noise = [&noise[..], &GREETING[..cut_greeting]].concat();
            let all = [&noise[..], GREETING, &rest].concat();
            let mut finder = GreetingFinder::default();
            let mut behind = Vec::new();
            let mut found = false;
            for piece in all.chunks(piece) {
                if found {
                    behind.extend_from_slice(piece);
                } else if let Some(bytes) = finder.push(piece).unwrap() {
                    found = true;
                    behind.extend_from_slice(bytes);
                }
            }
            prop_assert!(found);
            prop_assert_eq!(behind, rest);
            let noise = String::from_utf8_lossy(&noise);
            prop_assert_eq!(finder.noise(), noise.trim());
        }
    }

    #[test]
    fn noise_without_an_end_is_an_error_that_shows_its_beginning() {
        let mut finder = GreetingFinder::default();
        finder.push(b"Last login: today\n").unwrap();
        let block = [b'x'; 4096];
        let pushed = (0..=MAX_GREETING_NOISE / block.len()).map(|_| finder.push(&block).is_err());
        assert!(pushed.collect::<Vec<_>>().contains(&true));
        assert!(finder.noise().starts_with("Last login: today"));
        assert_eq!(finder.noise().len(), NOISE_KEPT);
    }
}
