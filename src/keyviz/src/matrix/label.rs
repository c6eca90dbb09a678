//! Printable labels of keys.

/// The maximum length of a label in characters. A longer one is elided in the middle, because both
/// ends of a key distinguish it from its neighbours.
pub const LABEL_CHARS: usize = 48;

/// A printable preview of `key`: its text if that is printable UTF-8, otherwise `hex:` and its
/// bytes. The empty key, at which the key space begins, has an empty label.
pub fn label(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if text.chars().all(is_printable) => elide(text.chars().collect()),
        _ => hex_label(key),
    }
}

/// Text that neither moves the cursor nor reorders or hides its neighbours.
fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(c,
            '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

fn elide(chars: Vec<char>) -> String {
    if chars.len() <= LABEL_CHARS {
        return chars.into_iter().collect();
    }
    let head = LABEL_CHARS / 2;
    let tail = LABEL_CHARS - head - 1;
    let (first, last) = (&chars[..head], &chars[chars.len() - tail..]);
    first.iter().chain(std::iter::once(&'…')).chain(last).collect()
}

fn hex_label(key: &[u8]) -> String {
    use std::fmt::Write;
    // Only the bytes that are shown are formatted: a key may have 4 KiB.
    let bytes = LABEL_CHARS / 2;
    let shown: Vec<u8> = if key.len() <= bytes {
        key.to_vec()
    } else {
        [&key[..bytes], &key[key.len() - bytes..]].concat()
    };
    let mut text = String::with_capacity(5 + 2 * shown.len());
    for byte in shown {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
    }
    format!("hex:{}", elide(text.chars().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_keys_are_shown_as_they_are() {
        assert_eq!(label(b"user/42"), "user/42");
        assert_eq!(label("größe".as_bytes()), "größe");
        assert_eq!(label(b""), "");
    }

    #[test]
    fn bytes_that_are_not_text_or_would_disturb_a_terminal_are_shown_as_hex() {
        assert_eq!(label(b"\x00\xff"), "hex:00ff");
        assert_eq!(label(b"a\x1b[2J"), "hex:611b5b324a");
        assert_eq!(label("a\u{202e}b".as_bytes()), "hex:61e280ae62");
    }

    #[test]
    fn long_keys_are_elided_in_the_middle() {
        let key: String = ('a'..='z').cycle().take(4096).collect();
        let shown = label(key.as_bytes());
        assert_eq!(shown.chars().count(), LABEL_CHARS);
        assert!(shown.starts_with("abcdefgh") && shown.contains('…'));
        assert!(shown.ends_with(&key[4096 - 20..]));
        assert_eq!(label(&[0xab; 4096]).chars().count(), LABEL_CHARS + "hex:".len());
    }
}
