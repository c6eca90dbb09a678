//! Text for terminals: nothing from a key, a node or a file may move the cursor, change a colour or
//! the reading direction, and columns are aligned by displayed width.

use std::borrow::Cow;
use std::time::Duration;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::notation;
pub use keyviz_client::text::{duration, inert};

/// A key or value as text, in the notation of keys ([`notation`]).
pub fn preview(bytes: &[u8]) -> Cow<'_, str> {
    notation::shown(bytes)
}

/// The width of `text` in terminal cells.
pub fn width(text: &str) -> usize {
    text.width()
}

/// `text` in at most `limit` terminal cells; a cut is marked with `…`.
pub fn shorten(text: &str, limit: usize) -> Cow<'_, str> {
    if width(text) <= limit {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        let cells = c.width().unwrap_or(0);
        if used + cells + 1 > limit {
            break;
        }
        used += cells;
        out.push(c);
    }
    if limit > 0 {
        out.push('…');
    }
    Cow::Owned(out)
}

/// `text` in exactly `cells` terminal cells: shortened, or padded on the right.
pub fn fit(text: &str, cells: usize) -> String {
    let mut out = shorten(text, cells).into_owned();
    let used = width(&out);
    out.extend(std::iter::repeat_n(' ', cells.saturating_sub(used)));
    out
}

/// Wraps words into lines of at most `limit` terminal cells; longer words are cut.
pub fn wrap(text: &str, limit: usize) -> Vec<String> {
    let words: Vec<&str> = text.split(' ').collect();
    wrap_parts(&words, " ", limit)
}

/// Wraps parts into lines of at most `limit` terminal cells, with `between` between parts of a
/// line. Longer parts are wrapped at words, and longer words are cut.
pub fn wrap_parts<S: AsRef<str>>(parts: &[S], between: &str, limit: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for part in parts.iter().map(AsRef::as_ref) {
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() && width(part) <= limit {
            line.push_str(part);
        } else if !line.is_empty() && width(line) + width(between) + width(part) <= limit {
            line.push_str(between);
            line.push_str(part);
        } else if width(part) <= limit {
            lines.push(part.to_owned());
        } else {
            if line.is_empty() {
                lines.pop();
            }
            match part.contains(' ') {
                true => lines.extend(wrap(part, limit)),
                false => lines.push(shorten(part, limit).into_owned()),
            }
        }
    }
    lines
}

/// 18089 as `18,089`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count in at most five characters: `999`, `12.3k`, `456M`.
pub fn short_count(number: u64) -> String {
    scaled(number, 1000, &["", "k", "M", "G", "T", "P", "E"])
}

/// A size in at most eight characters: `999 B`, `12.3 KiB`.
pub fn short_bytes(bytes: u64) -> String {
    scaled(bytes, 1024, &[" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"])
}

fn scaled(number: u64, base: u64, units: &[&str]) -> String {
    let (mut unit, mut scale) = (0, 1u64);
    while number / scale >= base && unit + 1 < units.len() {
        scale *= base;
        unit += 1;
    }
    let tenths = (u128::from(number) * 10 / u128::from(scale)) as u64;
    if unit == 0 || tenths >= 1000 {
        format!("{}{}", tenths / 10, units[unit])
    } else {
        format!("{}.{}{}", tenths / 10, tenths % 10, units[unit])
    }
}

/// Unix milliseconds as `2026-01-31T12:00:00Z`; as a number if out of range.
pub fn time_utc(unix_ms: u64) -> String {
    // The last second of the year 9999, the last one that RFC 3339 can express.
    const LAST_MS: u64 = 253_402_300_799_000;
    if unix_ms > LAST_MS {
        return format!("{unix_ms} ms");
    }
    let time = std::time::UNIX_EPOCH + Duration::from_millis(unix_ms);
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_made_inert() {
        assert_eq!(inert("user/7"), "user/7");
        assert_eq!(inert("a\x1b[2J\r\nb"), "a\\x1b[2J\\r\\nb");
        assert_eq!(inert("a\u{202e}b\u{200f}"), "a\\u{202e}b\\u{200f}");
        assert_eq!(inert("\u{9b}31m"), "\\u{9b}31m");
        assert_eq!(inert("שלום"), "\\u{5e9}\\u{5dc}\\u{5d5}\\u{5dd}");
        assert_eq!(inert("naïve 鍵"), "naïve 鍵");
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_one_by_one() {
        assert_eq!(preview(b"a\xff\x00z"), "a\\xff\\x00z");
        assert_eq!(preview(b""), "");
    }

    #[test]
    fn text_fits_its_column_by_displayed_width() {
        assert_eq!(fit("abc", 5), "abc  ");
        assert_eq!(fit("abcdef", 4), "abc…");
        assert_eq!(fit("鍵鍵鍵", 4), "鍵… ");
        assert_eq!(width(&fit("鍵鍵鍵", 4)), 4);
        assert_eq!(fit("abc", 0), "");
        assert_eq!(shorten("ab", 1), "…");
    }

    #[test]
    fn wrapped_lines_stay_within_their_width() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("incomprehensible to all", 8), ["incompr…", "to all"]);
        assert_eq!(wrap_parts(&["a b", "c", "d e f g"], " · ", 5), ["a b", "c", "d e f", "g"]);
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(18_089), "18,089");
        assert_eq!(thousands(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(short_count(999), "999");
        assert_eq!(short_count(1_000), "1.0k");
        assert_eq!(short_count(123_456), "123k");
        assert_eq!(short_count(u64::MAX), "18.4E");
        assert_eq!(short_bytes(1_023), "1023 B");
        assert_eq!(short_bytes(268_435_456), "256 MiB");
        assert_eq!(short_bytes(u64::MAX), "15.9 EiB");
    }
}
