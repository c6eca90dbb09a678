//! Limits of requests. Every refusal names the limit.

pub use keyviz_types::{MAX_KEY_BYTES, RESERVED_PREFIX};

/// Longest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 1 << 20;
/// Most operations in one batch.
pub const MAX_BATCH_OPERATIONS: usize = 1_024;
/// Most bytes of keys and values in one batch.
pub const MAX_BATCH_BYTES: usize = 4 << 20;

/// Why a request is invalid.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidRequest {
    /// No key.
    #[error("the key is empty; keys are 1 to {MAX_KEY_BYTES} bytes")]
    EmptyKey,
    /// Key over the limit.
    #[error("the key has {bytes} bytes; keys are 1 to {MAX_KEY_BYTES} bytes")]
    KeyTooLong {
        /// Its length.
        bytes: usize,
    },
    /// Key of the system.
    #[error("keys that start with byte {RESERVED_PREFIX:#04x} are reserved")]
    ReservedKey,
    /// Value over the limit.
    #[error("the value has {bytes} bytes; values have at most {MAX_VALUE_BYTES}")]
    ValueTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The end is before the start.
    #[error("the end of the range is before its start")]
    InvertedRange,
    /// No operation.
    #[error("the batch has no operation; batches have 1 to {MAX_BATCH_OPERATIONS}")]
    EmptyBatch,
    /// An operation that is neither put nor delete.
    #[error("operation {index} of the batch is neither a put nor a delete")]
    UnknownOperation {
        /// Its position.
        index: usize,
    },
    /// Too many operations.
    #[error(
        "the batch has {operations} operations or more; batches have 1 to {MAX_BATCH_OPERATIONS}"
    )]
    BatchTooLong {
        /// How many were read.
        operations: usize,
    },
    /// Too many bytes.
    #[error(
        "the batch has {bytes} bytes of keys and values; batches have at most {MAX_BATCH_BYTES}"
    )]
    BatchTooLarge {
        /// How many.
        bytes: usize,
    },
    /// A consistency that does not exist.
    #[error("consistency {value} does not exist; 0 is linearizable, 1 lease, 2 stale")]
    UnknownConsistency {
        /// What was asked.
        value: i32,
    },
}

/// A key that can be stored.
pub fn check_key(key: &[u8]) -> Result<(), InvalidRequest> {
    if key.is_empty() {
        return Err(InvalidRequest::EmptyKey);
    }
    check_bound(key)
}

/// A bound of a range: like a key, but it may be empty (the beginning of the key space).
fn check_bound(key: &[u8]) -> Result<(), InvalidRequest> {
    if key.len() > MAX_KEY_BYTES {
        return Err(InvalidRequest::KeyTooLong { bytes: key.len() });
    }
    if key.first() == Some(&RESERVED_PREFIX) {
        return Err(InvalidRequest::ReservedKey);
    }
    Ok(())
}

/// A range `[start, end)` of client keys that is not inverted.
pub fn check_range(start: &[u8], end: Option<&[u8]>) -> Result<(), InvalidRequest> {
    check_bound(start)?;
    if let Some(end) = end {
        check_bound(end)?;
        if end < start {
            return Err(InvalidRequest::InvertedRange);
        }
    }
    Ok(())
}

/// The first key of a client from `start` on: what begins with the reserved byte is not a client's.
pub(super) fn first_client_key(start: &[u8]) -> &[u8] {
    const FIRST: &[u8] = &[RESERVED_PREFIX + 1];
    start.max(FIRST)
}

/// A value that can be stored.
pub fn check_value(value: &[u8]) -> Result<(), InvalidRequest> {
    if value.len() > MAX_VALUE_BYTES {
        return Err(InvalidRequest::ValueTooLong { bytes: value.len() });
    }
    Ok(())
}

/// The size of a batch.
pub fn check_batch(operations: usize, bytes: usize) -> Result<(), InvalidRequest> {
    if operations == 0 {
        return Err(InvalidRequest::EmptyBatch);
    }
    if operations > MAX_BATCH_OPERATIONS {
        return Err(InvalidRequest::BatchTooLong { operations });
    }
    if bytes > MAX_BATCH_BYTES {
        return Err(InvalidRequest::BatchTooLarge { bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_1_to_4096_bytes_and_not_reserved() {
        assert_eq!(check_key(b""), Err(InvalidRequest::EmptyKey));
        assert_eq!(check_key(&[1; 4_096]), Ok(()));
        assert_eq!(check_key(&[1; 4_097]), Err(InvalidRequest::KeyTooLong { bytes: 4_097 }));
        assert_eq!(check_key(b"\x00a"), Err(InvalidRequest::ReservedKey));
        assert_eq!(check_key(b"\xff\x00"), Ok(()));
    }

    #[test]
    fn a_value_is_at_most_1_mib() {
        assert_eq!(check_value(&vec![0; 1 << 20]), Ok(()));
        assert_eq!(
            check_value(&vec![0; (1 << 20) + 1]),
            Err(InvalidRequest::ValueTooLong { bytes: (1 << 20) + 1 })
        );
    }

    #[test]
    fn a_range_may_be_open_and_empty_but_not_inverted() {
        assert_eq!(check_range(b"", None), Ok(()));
        assert_eq!(check_range(b"b", Some(b"b")), Ok(()));
        assert_eq!(check_range(b"b", Some(b"a")), Err(InvalidRequest::InvertedRange));
        assert_eq!(check_range(b"\x00", None), Err(InvalidRequest::ReservedKey));
    }

    #[test]
    fn a_batch_has_1_to_1024_operations_and_at_most_4_mib() {
        assert_eq!(check_batch(0, 0), Err(InvalidRequest::EmptyBatch));
        assert_eq!(check_batch(1_024, 4 << 20), Ok(()));
        assert_eq!(check_batch(1_025, 1), Err(InvalidRequest::BatchTooLong { operations: 1_025 }));
        assert_eq!(
            check_batch(1, (4 << 20) + 1),
            Err(InvalidRequest::BatchTooLarge { bytes: (4 << 20) + 1 })
        );
    }
}
