//! Encoding of stored and replicated bytes: `kind, version, CRC-32, payload`.
//!
//! ```text
//! offset  size  field
//!      0     1  kind: what the payload is
//!      1     1  version of the payload's encoding
//!      2     4  CRC-32 (IEEE) of kind, version and payload, little endian
//!      6     -  payload: bincode 2, standard configuration
//! ```
//!
//! bincode is not self-describing, so kind and version come first, and a payload must be consumed
//! to its last byte. Lengths are checked against a limit before memory is allocated.

use bincode::config;
use bincode::de::Decode;
use bincode::enc::Encode;

/// Bytes before the payload.
pub(crate) const HEADER_BYTES: usize = 6;

/// Encoding version that this code writes, and the only one that it reads.
pub(crate) const VERSION: u8 = 1;

/// What a payload is.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Command = b'C',
    Disk = b'D',
    Journal = b'J',
    Move = b'M',
    Placement = b'P',
    Record = b'R',
    Snapshot = b'S',
}

/// Why bytes cannot be decoded, or a value not encoded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CodecError {
    /// Shorter than the header.
    #[error("{len} bytes are too few: the header alone has {HEADER_BYTES}")]
    Truncated {
        /// Bytes at hand.
        len: usize,
    },
    /// Longer than the limit.
    #[error("{len} bytes exceed the limit of {limit}")]
    TooLarge {
        /// Bytes at hand.
        len: usize,
        /// Most allowed.
        limit: usize,
    },
    /// Bytes of another kind.
    #[error("found the bytes of kind {found:#04x}, expected {expected:#04x}")]
    WrongKind {
        /// Kind in the header.
        found: u8,
        /// Kind asked for.
        expected: u8,
    },
    /// An unsupported version.
    #[error("encoding version {found} is not supported; this software knows version {VERSION}")]
    UnknownVersion {
        /// Version in the header.
        found: u8,
    },
    /// The checksum does not match.
    #[error("checksum mismatch")]
    Checksum,
    /// The payload is malformed.
    #[error("malformed payload: {reason}")]
    Malformed {
        /// What the decoder found.
        reason: String,
    },
    /// Bytes follow the value.
    #[error("{count} bytes follow the value")]
    Trailing {
        /// Bytes left over.
        count: usize,
    },
}

/// Header and payload, where `write` appends the payload.
pub(crate) fn seal(kind: Kind, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut sealed = vec![kind as u8, VERSION, 0, 0, 0, 0];
    write(&mut sealed);
    let crc = checksum(kind as u8, VERSION, &sealed[HEADER_BYTES..]);
    sealed[2..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    sealed
}

/// The payload of sealed bytes.
pub(crate) fn open(kind: Kind, bytes: &[u8], limit: usize) -> Result<&[u8], CodecError> {
    if bytes.len() > limit {
        return Err(CodecError::TooLarge { len: bytes.len(), limit });
    }
    let Some((header, payload)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(CodecError::Truncated { len: bytes.len() });
    };
    let [found, version, crc @ ..] = *header;
    if found != kind as u8 {
        return Err(CodecError::WrongKind { found, expected: kind as u8 });
    }
    if version != VERSION {
        return Err(CodecError::UnknownVersion { found: version });
    }
    if u32::from_le_bytes(crc) != checksum(found, version, payload) {
        return Err(CodecError::Checksum);
    }
    Ok(payload)
}

fn checksum(kind: u8, version: u8, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind, version]);
    hasher.update(payload);
    hasher.finalize()
}

/// Encodes a value of at most `LIMIT` bytes, header included.
pub(crate) fn encode<const LIMIT: usize, T: Encode>(
    kind: Kind,
    value: &T,
) -> Result<Vec<u8>, CodecError> {
    let payload = bincode::encode_to_vec(value, config::standard())
        .map_err(|error| CodecError::Malformed { reason: error.to_string() })?;
    let len = HEADER_BYTES + payload.len();
    if len > LIMIT {
        return Err(CodecError::TooLarge { len, limit: LIMIT });
    }
    Ok(seal(kind, |sealed| sealed.extend_from_slice(&payload)))
}

/// Decodes a value of at most `LIMIT` bytes, header included.
pub(crate) fn decode<const LIMIT: usize, T: Decode<()>>(
    kind: Kind,
    bytes: &[u8],
) -> Result<T, CodecError> {
    let payload = open(kind, bytes, LIMIT)?;
    let config = config::standard().with_limit::<LIMIT>();
    let (value, used) = bincode::decode_from_slice(payload, config)
        .map_err(|error| CodecError::Malformed { reason: error.to_string() })?;
    match payload.len() - used {
        0 => Ok(value),
        count => Err(CodecError::Trailing { count }),
    }
}

#[cfg(test)]
mod tests {
    use keyviz_types::RouteId;

    use super::*;

    const LIMIT: usize = 64;

    fn sealed() -> Vec<u8> {
        encode::<LIMIT, _>(Kind::Record, &(7u64, vec![1u8, 2])).expect("small")
    }

    #[test]
    fn a_value_survives_the_round_trip() {
        assert_eq!(decode::<LIMIT, (u64, Vec<u8>)>(Kind::Record, &sealed()), Ok((7, vec![1, 2])));
    }

    #[test]
    fn every_single_flipped_bit_is_refused() {
        let good = sealed();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<LIMIT, (u64, Vec<u8>)>(Kind::Record, &bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_truncation_and_any_trailing_byte_is_refused() {
        let good = sealed();
        for len in 0..good.len() {
            assert!(decode::<LIMIT, (u64, Vec<u8>)>(Kind::Record, &good[..len]).is_err());
        }
        let longer = seal(Kind::Record, |sealed| {
            sealed.extend_from_slice(&good[HEADER_BYTES..]);
            sealed.push(0);
        });
        assert_eq!(
            decode::<LIMIT, (u64, Vec<u8>)>(Kind::Record, &longer),
            Err(CodecError::Trailing { count: 1 })
        );
    }

    #[test]
    fn a_claimed_length_beyond_the_limit_allocates_nothing() {
        let claim = bincode::encode_to_vec(u64::MAX / 2, config::standard()).expect("a number");
        let bytes = seal(Kind::Record, |sealed| sealed.extend_from_slice(&claim));
        let refused = decode::<LIMIT, Vec<u8>>(Kind::Record, &bytes);
        assert!(matches!(refused, Err(CodecError::Malformed { .. })), "{refused:?}");
    }

    #[test]
    fn route_id_0_is_refused() {
        let bytes = encode::<LIMIT, _>(Kind::Record, &0u64).expect("small");
        assert!(decode::<LIMIT, RouteId>(Kind::Record, &bytes).is_err());
    }

    #[test]
    fn another_kind_and_another_version_are_told_apart() {
        assert_eq!(
            decode::<LIMIT, (u64, Vec<u8>)>(Kind::Command, &sealed()),
            Err(CodecError::WrongKind { found: b'R', expected: b'C' })
        );
        let mut newer = sealed();
        newer[1] = 2;
        assert_eq!(
            decode::<LIMIT, (u64, Vec<u8>)>(Kind::Record, &newer),
            Err(CodecError::UnknownVersion { found: 2 })
        );
    }
}
