//! Keys and values as text that can be parsed.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;
use serde::{Serialize, Serializer};

/// A key, serialized as [`key_text`].
#[derive(Clone, Copy, Debug)]
pub struct Key<'a>(pub &'a [u8]);

impl Serialize for Key<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&key_text(self.0))
    }
}

/// Prefix of a key or value in hexadecimal digits.
pub const HEX_PREFIX: &str = "hex:";

/// Why the text after `hex:` is not hexadecimal.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyTextError {
    /// The number of digits is odd.
    #[error("{HEX_PREFIX} needs an even number of digits, got {digits}")]
    OddDigits {
        /// The number of digits.
        digits: usize,
    },
    /// A character is not a hexadecimal digit.
    #[error("{found:?} after {HEX_PREFIX} is not a hexadecimal digit")]
    NotHex {
        /// The character.
        found: char,
    },
}

/// Bytes as text if they are printable UTF-8 that does not begin with `hex:`, otherwise in hex.
pub fn key_text(key: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(key) {
        Ok(text) if !text.starts_with(HEX_PREFIX) && text.chars().all(is_printable) => {
            Cow::Borrowed(text)
        }
        _ => Cow::Owned(hex_text(key)),
    }
}

/// As [`key_text`], but line feeds and tabs count as text, so that a stored document stays
/// readable.
pub fn value_text(value: &[u8]) -> Cow<'_, str> {
    let texty = |c| is_printable(c) || c == '\n' || c == '\t';
    match std::str::from_utf8(value) {
        Ok(text) if !text.starts_with(HEX_PREFIX) && text.chars().all(texty) => Cow::Borrowed(text),
        _ => Cow::Owned(hex_text(value)),
    }
}

/// Parses text: its own bytes, or the bytes after `hex:`.
///
/// # Errors
/// If `hex:` is not followed by pairs of hexadecimal digits.
pub fn parse_key(text: &str) -> Result<Bytes, KeyTextError> {
    let Some(digits) = text.strip_prefix(HEX_PREFIX) else {
        return Ok(Bytes::copy_from_slice(text.as_bytes()));
    };
    if let Some(found) = digits.chars().find(|c| !c.is_ascii_hexdigit()) {
        return Err(KeyTextError::NotHex { found });
    }
    if digits.len() % 2 != 0 {
        return Err(KeyTextError::OddDigits { digits: digits.len() });
    }
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    };
    let bytes = digits.as_bytes().chunks_exact(2);
    Ok(bytes.map(|pair| nibble(pair[0]) << 4 | nibble(pair[1])).collect())
}

fn hex_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(HEX_PREFIX.len() + bytes.len() * 2);
    text.push_str(HEX_PREFIX);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
    }
    text
}

/// Whether a character is displayed as itself: no control character, no invisible format or
/// direction mark, no private or permanently unassigned code point (Unicode categories Cc, Cf, Zl,
/// Zp, Co, Cn as far as they are stable).
pub fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(u32::from(c),
            0xAD | 0x600..=0x605 | 0x61C | 0x6DD | 0x70F | 0x890..=0x891 | 0x8E2 | 0x115F..=0x1160
            | 0x180B..=0x180F | 0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x206F | 0x3164
            | 0xE000..=0xF8FF | 0xFDD0..=0xFDEF | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0
            | 0xFFF0..=0xFFFC | 0xFFFE..=0xFFFF | 0x110BD | 0x110CD | 0x13430..=0x1345F
            | 0x1BCA0..=0x1BCA3 | 0x1D173..=0x1D17A | 0xE0000..)
}
