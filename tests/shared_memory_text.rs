//! Shared memory in text, where it is its bytes. (Not a part of `workers/shared_memory.rs`: with
//! serde_json in a program, others of its tests would have to say which type an empty array is of.)

mod common;

use common::{test, with_workers};
use proptest::prelude::*;
use seedbed::WorkerConfig;
use seedbed::worker::{SharedBytes, SharedSlice};
use serde::{Deserialize, Serialize, Serializer};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn json_holds_the_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let shared = SharedBytes::copy_from(&bytes).unwrap();
        let json = serde_json::to_string(&shared).unwrap();
        prop_assert_eq!(&json, &serde_json::to_string(&bytes).unwrap());
        prop_assert_eq!(serde_json::from_str::<SharedBytes>(&json).unwrap(), shared);
    }
}

#[test]
fn numbers_are_the_bytes_that_they_lie_in_memory_as() {
    let numbers = SharedSlice::copy_from(&[1u32, 2]).unwrap();
    let json = serde_json::to_value(&numbers).unwrap();
    let bytes = [1u32, 2].map(u32::to_ne_bytes).concat();
    assert_eq!(json, serde_json::to_value(bytes).unwrap());
    assert_eq!(
        serde_json::from_value::<SharedSlice<u32>>(json).unwrap(),
        numbers
    );
    let error = serde_json::from_str::<SharedSlice<u32>>("[1, 2, 3]").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("3 bytes are not a slice of `u32`, of which each has 4")
    );
}

/// The text may be read long after the call.
#[test]
fn text_within_an_argument_holds_the_bytes_too() {
    #[derive(Serialize, Deserialize)]
    struct Both {
        #[serde(serialize_with = "as_json")]
        text: String,
        shared: SharedBytes,
    }
    fn as_json<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        let shared = SharedBytes::copy_from(text.as_bytes()).unwrap();
        serde_json::to_string(&shared)
            .unwrap()
            .serialize(serializer)
    }
    fn read(both: Both) -> (String, SharedBytes, SharedBytes) {
        let parsed = serde_json::from_str(&both.text).unwrap();
        (both.text, parsed, both.shared)
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let (text, shared) = ("no".to_owned(), SharedBytes::copy_from(b"yes").unwrap());
        let (text, parsed, shared) = workers.run_sync(read, Both { text, shared }).await.unwrap();
        assert_eq!(text, "[110,111]");
        assert_eq!((&*parsed, &*shared), (&b"no"[..], &b"yes"[..]));
    }));
}
