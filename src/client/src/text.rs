//! Text for terminals: nothing that a node sends may control the terminal.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use keyviz_json::is_printable;

/// Whether a terminal may reorder the line around this character (Hebrew, Arabic and their
/// neighbours), which would move the cells of a heatmap.
fn is_right_to_left(c: char) -> bool {
    matches!(u32::from(c), 0x590..=0x8FF | 0xFB1D..=0xFDFF | 0xFE70..=0xFEFF
        | 0x10800..=0x10FFF | 0x1E800..=0x1EFFF)
}

/// Whether a character is displayed without controlling the terminal.
pub fn is_inert(c: char) -> bool {
    is_printable(c) && !is_right_to_left(c)
}

/// Appends a character that would control a terminal as an escape.
pub fn escape_char(out: &mut String, c: char) {
    let escaped = match c {
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        c if u32::from(c) < 0x80 => write!(out, "\\x{:02x}", u32::from(c)),
        c => write!(out, "\\u{{{:x}}}", u32::from(c)),
    };
    escaped.expect("writing to a string does not fail");
}

/// `text` with all characters escaped that would control a terminal.
pub fn inert(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_inert) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_inert(c) { out.push(c) } else { escape_char(&mut out, c) }
    }
    Cow::Owned(out)
}

/// A duration as text that the flags accept: `1h`, `90s` as `1m 30s`, `250ms`.
pub fn duration(duration: Duration) -> String {
    humantime::format_duration(Duration::from_millis(
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
    ))
    .to_string()
}
