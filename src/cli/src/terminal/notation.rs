//! The notation of keys in tables and arguments.
//!
//! A key is written as its text. A backslash begins an escape: `\\`, `\n`, `\r`, `\t`, `\xNN` (one
//! byte) or `\u{N}` (one character). `hex:` followed by hexadecimal digits stands for those bytes.
//! [`shown`] writes a key so that [`parse`] returns the same bytes, for every key.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;

use keyviz_client::text::{self, is_inert};
use keyviz_json::{HEX_PREFIX, KeyTextError, parse_key};

/// Shown in place of the first key of a range that has no lower bound.
pub const BEGIN: &str = "(begin)";
/// Shown in place of the end of a range that has no upper bound.
pub const END: &str = "(end)";
/// Shown in place of the end of a range that holds one key, its first.
pub const ONE_KEY: &str = "(one key)";
/// Markers shown in place of keys. A key with the same text is escaped.
const MARKS: [&str; 3] = [BEGIN, END, ONE_KEY];

/// Text that is no key.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotationError {
    /// Why the text after `hex:` is not hexadecimal.
    #[error(transparent)]
    Hex(#[from] KeyTextError),
    /// A backslash at the end.
    #[error("it ends in a single backslash; write a backslash as \\\\")]
    Unfinished,
    /// An unknown escape.
    #[error(
        "\\{} is no escape; write a backslash as \\\\ (escapes: \\\\ \\n \\r \\t \\xNN \\u{{N}})",
        text::inert(&found.to_string())
    )]
    UnknownEscape {
        /// The character after the backslash.
        found: char,
    },
    /// `\x` without two hexadecimal digits.
    #[error("\\x needs two hexadecimal digits, such as \\x1b")]
    Byte,
    /// `\u` without a character's number in braces.
    #[error("\\u needs the hexadecimal number of a character in braces, such as \\u{{202e}}")]
    Character,
}

/// Parses text into bytes.
///
/// # Errors
/// If an escape or `hex:` is malformed.
pub fn parse(text: &str) -> Result<Bytes, NotationError> {
    if text.starts_with(HEX_PREFIX) || !text.contains('\\') {
        return Ok(parse_key(text)?);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        rest = escape(after, &mut bytes)?;
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes.into())
}

/// Reads the escape at the beginning of `text`, after its backslash, and returns what follows it.
fn escape<'a>(text: &'a str, bytes: &mut Vec<u8>) -> Result<&'a str, NotationError> {
    let kind = text.chars().next().ok_or(NotationError::Unfinished)?;
    let rest = &text[kind.len_utf8()..];
    match kind {
        '\\' => bytes.push(b'\\'),
        'n' => bytes.push(b'\n'),
        'r' => bytes.push(b'\r'),
        't' => bytes.push(b'\t'),
        'x' => {
            let digits = rest.get(..2).filter(|digits| is_hexadecimal(digits));
            let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            bytes.push(byte.ok_or(NotationError::Byte)?);
            return Ok(&rest[2..]);
        }
        'u' => {
            let inner = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
            let (digits, rest) = inner.ok_or(NotationError::Character)?;
            let number = Some(digits).filter(|digits| is_hexadecimal(digits));
            let number = number.and_then(|digits| u32::from_str_radix(digits, 16).ok());
            let found = number.and_then(char::from_u32).ok_or(NotationError::Character)?;
            bytes.extend_from_slice(found.encode_utf8(&mut [0; 4]).as_bytes());
            return Ok(rest);
        }
        found => return Err(NotationError::UnknownEscape { found }),
    }
    Ok(rest)
}

fn is_hexadecimal(digits: &str) -> bool {
    !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// A key as text, with everything escaped that would control a terminal, is not UTF-8, or would be
/// parsed as something else.
pub fn shown(key: &[u8]) -> Cow<'_, str> {
    let plain = std::str::from_utf8(key).ok();
    if let Some(text) = plain.filter(|text| is_plain(text)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(key.len() * 2);
    let hidden = |text: &str| MARKS.contains(&text) || text.starts_with(HEX_PREFIX);
    let mut skip = 0;
    if plain.is_some_and(hidden) || key.first() == Some(&b' ') {
        push_byte(&mut out, key[0]);
        skip = 1;
    }
    let ends_in_space = key.len() > skip && key.last() == Some(&b' ');
    let end = key.len() - usize::from(ends_in_space);
    for chunk in key[skip..end].utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                c if is_inert(c) => out.push(c),
                c => text::escape_char(&mut out, c),
            }
        }
        chunk.invalid().iter().for_each(|byte| push_byte(&mut out, *byte));
    }
    if ends_in_space {
        push_byte(&mut out, b' ');
    }
    Cow::Owned(out)
}

/// Whether `text` is shown as it is.
fn is_plain(text: &str) -> bool {
    !text.starts_with(HEX_PREFIX)
        && !text.starts_with(' ')
        && !text.ends_with(' ')
        && !MARKS.contains(&text)
        && text.chars().all(|c| c != '\\' && is_inert(c))
}

fn push_byte(out: &mut String, byte: u8) {
    write!(out, "\\x{byte:02x}").expect("writing to a string does not fail");
}

/// The first key of a range.
pub fn start(key: &[u8]) -> Cow<'_, str> {
    if key.is_empty() { Cow::Borrowed(BEGIN) } else { shown(key) }
}

/// The end of the range that begins at `start`; `None`: it has no upper bound.
pub fn end<'a>(start: &[u8], end: Option<&'a [u8]>) -> Cow<'a, str> {
    match end {
        None => Cow::Borrowed(END),
        Some(_) if is_one_key(start, end) => Cow::Borrowed(ONE_KEY),
        Some(end) => shown(end),
    }
}

/// A range in words.
pub fn range(from: &[u8], to: Option<&[u8]>) -> String {
    match is_one_key(from, to) {
        true => format!("{} {ONE_KEY}", shown(from)),
        false => format!("from {} to {}", start(from), end(from, to)),
    }
}

/// Whether the range holds exactly one key, which is `start`: no key lies between a key and the
/// same key with a zero byte added.
pub fn is_one_key(start: &[u8], end: Option<&[u8]>) -> bool {
    !start.is_empty() && end.and_then(|end| end.strip_prefix(start)) == Some(&[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_key_that_is_shown_can_be_typed_back(key: Vec<u8>) {
            prop_assert_eq!(parse(&shown(&key)), Ok(Bytes::from(key)));
        }

        #[test]
        fn every_text_that_is_shown_can_be_typed_back(key in "[ -~\u{202e}é鍵\\\\]{0,12}") {
            prop_assert_eq!(parse(&shown(key.as_bytes())), Ok(Bytes::from(key)));
        }
    }

    #[test]
    fn what_a_table_shows_is_read_as_the_same_bytes() {
        for (key, text) in [
            (&b"a\x00b"[..], "a\\x00b"),
            (b"C:\\new", "C:\\\\new"),
            (b"\xff\x1b\n", "\\xff\\x1b\\n"),
            (b"hex:61", "\\x68ex:61"),
            (b"(begin)", "\\x28begin)"),
            (b"(one key)", "\\x28one key)"),
            (b" a b ", "\\x20a b\\x20"),
            (b" ", "\\x20"),
            ("\u{202e}".as_bytes(), "\\u{202e}"),
            (b"user/7", "user/7"),
            (b"", ""),
        ] {
            assert_eq!(shown(key), text);
            assert_eq!(parse(text), Ok(Bytes::copy_from_slice(key)), "{text}");
        }
        assert_eq!(parse("hex:5c5c"), Ok(Bytes::from_static(b"\\\\")));
    }

    #[test]
    fn a_malformed_escape_is_refused_with_the_right_one() {
        let error = |text| parse(text).expect_err("it is malformed").to_string();
        assert!(error("C:\\dir").contains("\\d is no escape; write a backslash as \\\\"));
        assert!(error("a\\").contains("single backslash"));
        for text in ["\\x", "\\x1", "\\xzz", "\\x+1", "\\xé"] {
            assert_eq!(parse(text), Err(NotationError::Byte), "{text}");
        }
        for text in ["\\u", "\\u{}", "\\u{d800}", "\\u{+41}", "\\u{41"] {
            assert_eq!(parse(text), Err(NotationError::Character), "{text}");
        }
    }

    #[test]
    fn a_range_of_one_key_is_known() {
        assert!(is_one_key(b"k", Some(b"k\0")));
        for (start, end) in [(&b"k"[..], Some(&b"k\0\0"[..])), (b"k", None), (b"", Some(b"\0"))] {
            assert!(!is_one_key(start, end), "{start:?} {end:?}");
        }
    }
}
