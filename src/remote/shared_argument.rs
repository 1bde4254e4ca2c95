//! An argument that is sent several times.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An argument that is encoded for each call anew, and is encoded as what it holds. So it need not
/// be cloned, and may hold a socket, for example.
#[derive(Debug)]
pub(super) struct SharedArgument<A>(Arc<A>);

impl<A> SharedArgument<A> {
    pub(super) fn new(argument: A) -> Self {
        Self(Arc::new(argument))
    }

    /// Returns the argument in the process that has decoded it.
    pub(super) fn into_inner(self) -> A {
        Arc::into_inner(self.0).expect("an argument that was decoded has one holder")
    }
}

impl<A> Clone for SharedArgument<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A: Serialize> Serialize for SharedArgument<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        A::serialize(&self.0, serializer)
    }
}

impl<'de, A: Deserialize<'de>> Deserialize<'de> for SharedArgument<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        A::deserialize(deserializer).map(Self::new)
    }
}
