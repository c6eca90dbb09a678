//! Values derived from (key, sequence, seed): two writes of one key differ, and a value can be
//! recognised by its digest.

use bytes::{Bytes, BytesMut};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// A step of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators",
/// 2014) over two words.
pub fn mix(a: u64, b: u64) -> u64 {
    let mut z =
        a.wrapping_add(b.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The value of write `sequence` to `key`.
pub fn value(key: &[u8], sequence: u64, seed: u64, bytes: usize) -> Bytes {
    let stream = mix(xxh3_64_with_seed(key, seed), sequence);
    let mut value = BytesMut::with_capacity(bytes.next_multiple_of(8));
    let mut word = 0;
    while value.len() < bytes {
        value.extend_from_slice(&mix(stream, word).to_le_bytes());
        word += 1;
    }
    value.truncate(bytes);
    value.freeze()
}

/// The digest of a value.
pub fn digest(value: &[u8]) -> u64 {
    xxh3_64(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_follows_from_key_sequence_and_seed() {
        let first = value(b"k", 1, 2, 100);
        assert_eq!(first.len(), 100);
        assert_eq!(first, value(b"k", 1, 2, 100));
        for other in [value(b"l", 1, 2, 100), value(b"k", 2, 2, 100), value(b"k", 1, 3, 100)] {
            assert_ne!(digest(&first), digest(&other));
        }
        assert_eq!(value(b"k", 1, 2, 0), Bytes::new());
        assert_eq!(value(b"k", 1, 2, 3), first[..3]);
    }
}
