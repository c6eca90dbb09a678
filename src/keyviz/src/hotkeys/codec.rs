//! The hot keys of a column as bytes to store.
//!
//! ```text
//! body:    start_ms | end_ms - start_ms | parts
//!          | per part: incarnation | missing u8 | reads | writes
//! reads, writes:
//!          floor | unnamed | early | late | operations | keys
//!          | per key: shared, rest, rest bytes | counted | missed | bytes
//!                (front coding: `shared` bytes of the key before, then the rest)
//! ```
//!
//! Numbers without a type are varints; plurals are counts.

use std::sync::Arc;

use super::column::ColumnHotKeys;
use super::summary::{NamedKey, Summary};
use crate::history::bitpack::{put_varint, take_varint};
use keyviz_types::Incarnation;

/// Most bytes of keys of a column that is read: front coding could make much of little.
const MAX_KEYS_BYTES: usize = 64 << 20;

/// Appends the hot keys of one incarnation.
pub(crate) fn put_part(incarnation: Incarnation, hot_keys: &ColumnHotKeys, out: &mut Vec<u8>) {
    put_varint(incarnation.0, out);
    out.push(u8::from(hot_keys.missing));
    hot_keys.each().into_iter().for_each(|summary| put_summary(summary, out));
}

/// Reads [`put_part`].
pub(crate) fn take_part(input: &mut &[u8]) -> Option<(Incarnation, ColumnHotKeys)> {
    let incarnation = Incarnation(take_varint(input)?);
    let (&missing, rest) = input.split_first()?;
    *input = rest;
    if missing > 1 {
        return None;
    }
    let (reads, writes) = (take_summary(input)?, take_summary(input)?);
    Some((incarnation, ColumnHotKeys { reads, writes, missing: missing == 1 }))
}

fn put_summary(summary: &Summary, out: &mut Vec<u8>) {
    let Summary { floor, unnamed, early, late, operations, .. } = *summary;
    [floor, unnamed, early, late, operations].into_iter().for_each(|n| put_varint(n, out));
    put_varint(summary.keys().len() as u64, out);
    let mut before: &[u8] = &[];
    for NamedKey { key, counted, missed, bytes } in summary.keys() {
        let shared = before.iter().zip(key.iter()).take_while(|(a, b)| a == b).count();
        put_varint(shared as u64, out);
        put_varint((key.len() - shared) as u64, out);
        out.extend_from_slice(&key[shared..]);
        [*counted, *missed, *bytes].into_iter().for_each(|n| put_varint(n, out));
        before = key;
    }
}

fn take_summary(input: &mut &[u8]) -> Option<Summary> {
    let mut numbers = [0; 5];
    for number in &mut numbers {
        *number = take_varint(input)?;
    }
    let mut keys: Vec<NamedKey> = Vec::new();
    let mut key_bytes = 0;
    for _ in 0..take_varint(input)? {
        let shared = usize::try_from(take_varint(input)?).ok()?;
        let length = usize::try_from(take_varint(input)?).ok()?;
        let (rest, after) = input.split_at_checked(length)?;
        *input = after;
        let before: &[u8] = keys.last().map_or(&[], |named| &named.key);
        let key: Arc<[u8]> = [before.get(..shared)?, rest].concat().into();
        key_bytes += key.len();
        if key_bytes > MAX_KEYS_BYTES {
            return None;
        }
        let mut number = || take_varint(input);
        let (counted, missed, bytes) = (number()?, number()?, number()?);
        keys.push(NamedKey { key, counted, missed, bytes });
    }
    Summary::from_parts(keys, numbers)
}
