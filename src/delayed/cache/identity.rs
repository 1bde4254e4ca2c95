//! The identity of a job: its key, its function and its argument.

use std::any::{TypeId, type_name};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::sys::fnv::hash;
use crate::sys::primitives::lock;
use crate::transport::codec;
use crate::transport::codec_error::CodecError;

/// The identity of a job, encoded.
pub(super) struct Identity {
    key: Arc<str>,
    encoded: Vec<u8>,
}

impl Identity {
    /// Describes a job with this key, whose function is `function`.
    ///
    /// # Errors
    ///
    /// If the argument cannot be encoded outside of a message, as a descriptor.
    pub(super) fn new<A: serde::Serialize>(
        key: Arc<str>,
        function: &str,
        argument: &A,
    ) -> Result<Self, CodecError> {
        let mut encoded = codec::encode(&(&*key, function, type_name::<A>()))?;
        // The argument is encoded on its own, so that its digest covers its types alone.
        codec::encode_onto(argument, &mut encoded)?;
        Ok(Self { key, encoded })
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.encoded
    }

    /// Returns the name of the file: the beginning of the key, and a hash of all.
    pub(super) fn file_name(&self) -> String {
        let is_plain = |c: &char| c.is_ascii_alphanumeric() || "-_".contains(*c);
        let plain = |c| Some(c).filter(is_plain).unwrap_or('_');
        let start: String = self.key.chars().take(KEY_CHARS).map(plain).collect();
        format!("{start}-{:016x}.cached", hash(&self.encoded))
    }
}

/// The characters of the key that a file's name shows.
const KEY_CHARS: usize = 60;

/// Notes that jobs of the type `F` use this key.
///
/// # Panics
///
/// If another function has the same key and the same name, as two closures within one function
/// have.
#[track_caller]
pub(in crate::delayed) fn claim<F: 'static>(key: &Arc<str>) {
    type Claims = HashMap<(Arc<str>, &'static str), TypeId>;
    static CLAIMS: Mutex<Option<Claims>> = Mutex::new(None);
    let name = type_name::<F>();
    let mut claims = lock(&CLAIMS);
    let owner = claims
        .get_or_insert_default()
        .entry((key.clone(), name))
        .or_insert(TypeId::of::<F>());
    let is_claimed = *owner != TypeId::of::<F>();
    drop(claims);
    assert!(
        !is_claimed,
        "two functions of the same name, `{name}`, use the cache key {key:?}, and would get each other's results; give \
         each a key of its own"
    );
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn identity(key: &str, function: &str, argument: &impl serde::Serialize) -> Vec<u8> {
        Identity::new(key.into(), function, argument)
            .unwrap()
            .encoded
    }

    #[test]
    fn keys_functions_arguments_and_their_types_tell_jobs_apart() {
        let one = identity("key", "f", &1_u32);
        assert_eq!(one, identity("key", "f", &1_u32));
        for other in [
            identity("ke", "yf", &1_u32),
            identity("other", "f", &1_u32),
            identity("key", "g", &1_u32),
            identity("key", "f", &2_u32),
            identity("key", "f", &1_i32),
            identity("key", "f", &f32::from_bits(1)),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn an_argument_is_encoded_once_behind_what_tells_its_type() {
        let argument = vec![7_u8; 1000];
        let encoded = identity("key", "f", &argument);
        let own = codec::encode(&argument).unwrap();
        assert!(encoded.ends_with(&own));
        let before = codec::encode(&("key", "f", type_name::<Vec<u8>>())).unwrap();
        assert_eq!(encoded.len(), before.len() + own.len());
    }

    #[test]
    fn a_file_has_a_name_that_every_file_system_takes_and_that_never_changes() {
        let name = |key: &str| {
            let identity = Identity::new(key.into(), "f", &1_u32).unwrap();
            identity.file_name()
        };
        let odd = name("../a b\0é/v-1");
        assert!(odd.starts_with("___a_b___v-1-"), "{odd}");
        assert!(name(&"long".repeat(1000)).len() < 100);
        // A result that was kept by an earlier version of this crate with the same encoding must
        // still be found. With another encoding, names differ, and the old files stay unopened.
        assert_eq!(name("study"), "study-59e92d226190bc97.cached");
    }

    #[test]
    #[should_panic(expected = "two functions of the same name")]
    fn closures_of_one_name_cannot_share_a_key() {
        fn claim_for<F: 'static>(_: F, key: &Arc<str>) {
            claim::<F>(key);
        }
        let key: Arc<str> = "key of two closures".into();
        let twice = |n: u32| n * 2;
        claim_for(twice, &key);
        claim_for(twice, &key);
        claim_for(|n: u32| n + 1, &key);
    }
}
