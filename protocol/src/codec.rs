//! Values to bytes and back: the only place that names bincode.
//!
//! Knows nothing of frames or of what the values mean. The encoding is bincode 2's standard configuration (little
//! endian, variable-length integers), spelled out in `docs/protocol.md`; a change of codec is a new protocol version.

use bincode::config::{Configuration, Limit, LittleEndian, Varint, standard};
use bincode::enc::write::SizeWriter;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// The longest encoded message, in bytes.
///
/// A quarter of what a frame may hold: an operation of three bytes takes some two hundred in memory, so that a
/// hostile message of this size still costs the reader no more than about 32 MiB.
pub const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// The length at which [`batches`] begins the next message: small enough that answers keep flowing, large enough that
/// a message's own bytes do not count.
pub const BATCH_BYTES: usize = 64 << 10;
/// The largest body, in bytes.
pub const BODY_BYTES_MAX: u64 = 1 << 50;
/// The longest encoded blob of the client's own state, in bytes.
pub(crate) const STATE_BYTES_MAX: usize = 64 << 20;

/// bincode counts what values take in memory: at worst eight bytes for each on the wire (an empty string's length).
/// With this factor everything that is short enough to be sent can also be read.
const MEMORY_FACTOR: usize = 8;
const WIRE_LIMIT: usize = MESSAGE_BYTES_MAX * MEMORY_FACTOR;
const STATE_LIMIT: usize = STATE_BYTES_MAX * MEMORY_FACTOR;

type Standard<const LIMIT: usize> = Configuration<LittleEndian, Varint, Limit<LIMIT>>;
const WIRE: Standard<WIRE_LIMIT> = standard().with_limit::<WIRE_LIMIT>();
const STATE: Standard<STATE_LIMIT> = standard().with_limit::<STATE_LIMIT>();

/// Encodes a value for the wire.
#[must_use]
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, WIRE).expect("our types serialize into memory")
}

/// Decodes a value that takes up all of `bytes`.
///
/// # Errors
/// When the bytes are no such value, claim more than [`MESSAGE_BYTES_MAX`] allows, or go on after it.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    whole(decode_prefix(bytes)?, bytes)
}

/// Decodes a value from the beginning of `bytes`, and returns how many of them it took.
///
/// # Errors
/// When the bytes do not begin with such a value, or claim more than [`MESSAGE_BYTES_MAX`] allows.
pub(crate) fn decode_prefix<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize)> {
    check_length("Message", bytes.len(), MESSAGE_BYTES_MAX)?;
    bincode::serde::decode_from_slice(bytes, WIRE).map_err(malformed)
}

/// Reads the size of a body, which must be one that a disk could hold: sums of them are made without a thought.
pub(crate) fn size<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<u64, D::Error> {
    let size: u64 = serde::Deserialize::deserialize(deserializer)?;
    if size > BODY_BYTES_MAX {
        return Err(serde::de::Error::custom("a size that no disk holds"));
    }
    Ok(size)
}

/// Cuts a list into pieces that each fit into one message, in order.
///
/// A piece is closed at [`BATCH_BYTES`]; only an item that is larger by itself makes a larger one.
pub fn batches<T: Serialize>(items: impl IntoIterator<Item = T>) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let mut batch = Vec::new();
        while let Some(item) = items.peek() {
            bytes += encoded_bytes(item);
            if bytes > BATCH_BYTES && !batch.is_empty() {
                break;
            }
            batch.extend(items.next());
        }
        (!batch.is_empty()).then_some(batch)
    })
}

fn encoded_bytes<T: Serialize>(value: &T) -> usize {
    let mut size = SizeWriter::default();
    bincode::serde::encode_into_writer(value, &mut size, WIRE).expect("our types serialize");
    size.bytes_written
}

/// Encodes a value for a file of our own; it is read back by [`decode_state`].
#[must_use]
pub fn encode_state<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, STATE).expect("our types serialize into memory")
}

/// Decodes what [`encode_state`] gave; stays as it is when the wire's encoding changes.
///
/// # Errors
/// When the bytes are no such value, claim more bytes than a state may have, or go on after it.
pub fn decode_state<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    check_length("Stored value", bytes.len(), STATE_BYTES_MAX)?;
    let decoded = bincode::serde::decode_from_slice(bytes, STATE).map_err(malformed)?;
    whole(decoded, bytes)
}

/// Refuses a length from outside that is over its limit, before anything is allocated for it.
pub(crate) fn check_length(what: &'static str, got: usize, limit: usize) -> Result<()> {
    if got <= limit {
        return Ok(());
    }
    Err(Error::TooLong {
        what,
        got: got as u64,
        limit: limit as u64,
    })
}

/// bincode takes trailing bytes without a word; two ends that disagree on a layout must notice.
fn whole<T>((value, used): (T, usize), bytes: &[u8]) -> Result<T> {
    match bytes.len() - used {
        0 => Ok(value),
        left => Err(Error::Malformed(format!("{left} bytes are left over"))),
    }
}

fn malformed(error: bincode::error::DecodeError) -> Error {
    Error::Malformed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Op, Outcome, Request};

    /// A length of 2^60 as it stands on the wire.
    const HUGE: [u8; 9] = [253, 0, 0, 0, 0, 0, 0, 0, 0x10];
    const GIBIBYTE: [u8; 5] = [252, 0, 0, 0, 0x40];

    #[test]
    fn claimed_lengths_allocate_nothing() {
        for length in [&HUGE[..], &GIBIBYTE] {
            assert!(decode::<Vec<String>>(length).is_err());
            assert!(decode::<Vec<u64>>(length).is_err());
            assert!(decode::<String>(length).is_err());
            assert!(decode::<crate::message::PathBytes>(length).is_err());
            assert!(decode::<Vec<Vec<String>>>(&[&[2, 0][..], length].concat()).is_err());
            assert!(decode::<Request>(&[&[3][..], length].concat()).is_err());
            assert!(decode_state::<Vec<String>>(length).is_err());
            assert!(decode_state::<String>(length).is_err());
        }
    }

    #[test]
    fn a_hostile_message_takes_no_more_than_it_may() {
        // The shortest operation has three bytes: its number, a length and one letter.
        assert!(MESSAGE_BYTES_MAX / 3 * size_of::<Op>() <= 32 << 20);
        assert!(MESSAGE_BYTES_MAX * size_of::<Outcome>() <= 32 << 20);
    }

    #[test]
    fn a_size_that_no_disk_holds_is_an_error() {
        let body = |size| crate::message::NewBody {
            digest: crate::Digest::of(b""),
            size,
            mtime_ns: 0,
            source: crate::message::Source::Body { offset: 0 },
        };
        for (size, is_right) in [
            (BODY_BYTES_MAX, true),
            (BODY_BYTES_MAX + 1, false),
            (u64::MAX, false),
        ] {
            let read = decode::<crate::message::NewBody>(&encode(&body(size)));
            assert_eq!(read.is_ok(), is_right, "{size}");
        }
    }

    #[test]
    fn bytes_left_over_are_an_error() {
        let mut bytes = encode(&7_u32);
        assert_eq!(decode::<u32>(&bytes).expect("a number"), 7);
        bytes.push(0);
        assert!(matches!(decode::<u32>(&bytes), Err(Error::Malformed(_))));
        assert!(matches!(
            decode_state::<u32>(&bytes),
            Err(Error::Malformed(_))
        ));
        assert_eq!(decode_prefix::<u32>(&bytes).expect("a number"), (7, 1));
    }

    #[test]
    fn all_that_is_short_enough_to_send_can_be_read() {
        // Nothing takes more memory for its byte than the length of an empty string.
        let strings = vec![String::new(); MESSAGE_BYTES_MAX - GIBIBYTE.len()];
        let bytes = encode(&strings);
        assert_eq!(bytes.len(), MESSAGE_BYTES_MAX);
        assert_eq!(decode::<Vec<String>>(&bytes).expect("decodes"), strings);
        let longer = [&bytes[..], &[0]].concat();
        assert!(matches!(
            decode::<Vec<String>>(&longer),
            Err(Error::TooLong { .. })
        ));
    }

    #[test]
    fn stored_values_may_be_longer_than_messages() {
        let strings = vec!["x".repeat(100); 100_000];
        let bytes = encode_state(&strings);
        assert!(bytes.len() > MESSAGE_BYTES_MAX);
        assert_eq!(
            decode_state::<Vec<String>>(&bytes).expect("decodes"),
            strings
        );
    }

    #[test]
    fn batches_are_cut_by_length_and_hold_large_items_alone() {
        let long = "x".repeat(BATCH_BYTES);
        let items = ["a", &long, "b", "c"];
        let cut: Vec<_> = batches(items).collect();
        assert_eq!(cut, [vec!["a"], vec![&long[..]], vec!["b", "c"]]);
        assert_eq!(batches(Vec::<u8>::new()).count(), 0);
    }
}
