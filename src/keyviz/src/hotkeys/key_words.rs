//! Keys as words of eight bytes, which atomics hold.

use std::sync::Arc;

use crate::sampler::sync::{AtomicU64, Ordering};

/// Gives `each` the words of a key, in order: whole ones, then its last eight bytes where they do
/// not end with those. A key that is shorter is one word. Whether `each` took all of them.
#[inline]
pub(super) fn words(key: &[u8], mut each: impl FnMut(usize, u64) -> bool) -> bool {
    let (whole, rest) = key.as_chunks::<8>();
    for (n, word) in whole.iter().enumerate() {
        if !each(n, u64::from_le_bytes(*word)) {
            return false;
        }
    }
    if rest.is_empty() {
        return true;
    }
    let last = match key.last_chunk::<8>() {
        Some(last) => u64::from_le_bytes(*last),
        None => rest.iter().rfold(0, |word, byte| word << 8 | u64::from(*byte)),
    };
    each(whole.len(), last)
}

/// Stores the words of a key in `to`, which has room for them.
#[inline]
pub(super) fn store_words(key: &[u8], to: &[AtomicU64]) {
    words(key, |n, word| {
        if let Some(mine) = to.get(n) {
            mine.store(word, Ordering::Relaxed);
        }
        true
    });
}

/// The key of `length` bytes from its words.
pub(super) fn from_words(length: usize, word: impl Fn(usize) -> u64) -> Arc<[u8]> {
    let mut key = vec![0; length];
    let (whole, rest) = key.as_chunks_mut::<8>();
    whole.iter_mut().enumerate().for_each(|(n, bytes)| *bytes = word(n).to_le_bytes());
    if !rest.is_empty() {
        let last = word(whole.len()).to_le_bytes();
        match key.last_chunk_mut::<8>() {
            Some(bytes) => *bytes = last,
            None => key.copy_from_slice(&last[..length]),
        }
    }
    key.into()
}
