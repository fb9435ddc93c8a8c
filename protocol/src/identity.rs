//! Random names by which replicas, indexes and runs are known again.
//!
//! Nothing is keyed on host names, ssh aliases or paths: they change while the mail stays the same.

use serde::{Deserialize, Serialize};

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// Reads the hexadecimal form.
            #[must_use]
            pub fn parse(text: &[u8]) -> Option<$name> {
                crate::bytes::unhex(text).map($name)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str(&crate::bytes::hex(&self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

random_id!(
    /// One replica, written into its root's marker when it is first seen.
    ReplicaId,
    16
);
random_id!(
    /// One run that wrote to a replica or reported anything new to a client.
    Tag,
    8
);
random_id!(
    /// One life of an index: numbers of its journal mean nothing to another.
    IndexId,
    8
);

/// From where on a client wants a replica's changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cursor {
    /// Whose numbers these are.
    pub index: IndexId,
    /// The client knows everything up to and including this number.
    pub number: u64,
    /// The newest run tag that the client saw in the replica's marker.
    pub tag: Tag,
}
