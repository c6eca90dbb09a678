//! Parsers of flag values. Errors say what is wrong; clap prepends the flag and the value.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::terminal::notation::{self, NotationError};
pub use keyviz_client::Address;
use keyviz_client::AddressError;
use keyviz_json::{self as json, KeyTextError};
use keyviz_proto as proto;

pub use keyviz_types::MAX_KEY_BYTES;
/// Largest value in bytes.
pub const MAX_VALUE_BYTES: usize = 1 << 20;
/// First byte of keys that clients may not use.
pub const RESERVED_FIRST_BYTE: u8 = 0;

/// Why a flag value is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ValueError {
    /// Broken hexadecimal.
    #[error(transparent)]
    KeyText(#[from] KeyTextError),
    /// A malformed escape or malformed hexadecimal.
    #[error(transparent)]
    Notation(#[from] NotationError),
    /// A key of no bytes.
    #[error("a key has at least 1 byte")]
    EmptyKey,
    /// A key that is too long.
    #[error("a key has at most {MAX_KEY_BYTES} bytes, this one has {0}")]
    LongKey(usize),
    /// A reserved key.
    #[error("keys that begin with \\x00 are reserved")]
    ReservedKey,
    /// A value that is too large.
    #[error("a value has at most {MAX_VALUE_BYTES} bytes, this one has {0}")]
    LargeValue(usize),
    /// A text that is not `HOST:PORT`.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No duration.
    #[error("a duration is a number and a unit, such as 500ms, 60s or 1h ({0})")]
    Duration(String),
    /// A duration out of its range.
    #[error(
        "must be from {} to {}",
        crate::terminal::text::duration(*.0),
        crate::terminal::text::duration(*.1)
    )]
    DurationRange(Duration, Duration),
    /// A duration of no length.
    #[error("must be longer than 0, such as 500ms, 60s or 1h")]
    NoDuration,
    /// No size.
    #[error("a size is a number of bytes, or one with KiB, MiB or GiB, such as 256MiB")]
    Size,
    /// A number out of its range.
    #[error("must be from {0} to {1}")]
    NumberRange(u64, u64),
    /// Not yes or no.
    #[error("must be true or false (also yes, no, on, off, 1, 0)")]
    NotBool,
    /// No number.
    #[error("is not a number")]
    NotNumber,
    /// No point in time.
    #[error(
        "a time is RFC 3339 (2026-01-31T12:00:00Z, 2026-01-31T12:00:00+02:00) or Unix milliseconds"
    )]
    Time,
    /// No series.
    #[error("a series is reads, writes, read-bytes or write-bytes")]
    Series,
    /// No role.
    #[error("a role is all, leader-write, leader-read or follower-read")]
    Role,
    /// No such axis.
    #[error("an axis is one of now, then")]
    Axis,
}

/// Parses a key that a client may use.
///
/// # Errors
/// If it is empty, too long, reserved, or malformed.
pub fn key(text: &str) -> Result<Bytes, ValueError> {
    let key = notation::parse(text)?;
    check_key(&key)?;
    Ok(key)
}

/// Checks whether a client may use this key.
///
/// # Errors
/// If it is empty, too long or reserved.
pub fn check_key(key: &[u8]) -> Result<(), ValueError> {
    match key {
        [] => Err(ValueError::EmptyKey),
        [RESERVED_FIRST_BYTE, ..] => Err(ValueError::ReservedKey),
        key if key.len() > MAX_KEY_BYTES => Err(ValueError::LongKey(key.len())),
        _ => Ok(()),
    }
}

/// Parses a bound of a key range. It may be empty or a reserved key.
///
/// # Errors
/// If it is too long or malformed.
pub fn bound(text: &str) -> Result<Bytes, ValueError> {
    let bound = notation::parse(text)?;
    if bound.len() > MAX_KEY_BYTES {
        return Err(ValueError::LongKey(bound.len()));
    }
    Ok(bound)
}

/// Parses a value.
///
/// # Errors
/// If it is too large or malformed hexadecimal.
pub fn value(text: &str) -> Result<Bytes, ValueError> {
    let value = json::parse_key(text)?;
    if value.len() > MAX_VALUE_BYTES {
        return Err(ValueError::LargeValue(value.len()));
    }
    Ok(value)
}

/// Parses a duration of at least one millisecond, such as `500ms`, `60s`, `1h 30m`.
///
/// # Errors
/// If it is not a duration, or shorter.
pub fn duration(text: &str) -> Result<Duration, ValueError> {
    const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);
    duration_in(text, Duration::from_millis(1), LONGEST)
}

/// Parses a duration within bounds.
///
/// # Errors
/// If it is not a duration, or out of bounds.
pub fn duration_in(text: &str, least: Duration, most: Duration) -> Result<Duration, ValueError> {
    let duration =
        humantime::parse_duration(text).map_err(|error| ValueError::Duration(error.to_string()))?;
    if duration.is_zero() && !least.is_zero() {
        return Err(ValueError::NoDuration);
    }
    if duration < least || duration > most {
        return Err(ValueError::DurationRange(least, most));
    }
    Ok(duration)
}

/// Parses a number of bytes: `4096`, `64KiB`, `256MiB`, `1GiB` (also `k`, `m`, `g`, in powers of
/// 1,024).
///
/// # Errors
/// If it is not a size, or does not fit 64 bits.
pub fn size(text: &str) -> Result<u64, ValueError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| ValueError::Size)?;
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(ValueError::Size),
    };
    number.checked_mul(1 << shift).ok_or(ValueError::Size)
}

/// Parses a boolean: yes, no, true, false, on, off, 1 or 0.
///
/// # Errors
/// Where it is neither.
pub fn yes_or_no(text: &str) -> Result<bool, ValueError> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "y" | "yes" | "t" | "true" | "on" => Ok(true),
        "0" | "n" | "no" | "f" | "false" | "off" => Ok(false),
        _ => Err(ValueError::NotBool),
    }
}

/// Parses a whole number within bounds.
///
/// # Errors
/// If it is not a duration, or out of bounds.
pub fn number_in(text: &str, least: u64, most: u64) -> Result<u64, ValueError> {
    let number: u64 = text.parse().map_err(|_| ValueError::NotNumber)?;
    if number < least || number > most {
        return Err(ValueError::NumberRange(least, most));
    }
    Ok(number)
}

/// A point in time in Unix milliseconds, from RFC 3339 (with `Z` or an offset) or digits.
///
/// # Errors
/// Where it is neither.
pub fn time_ms(text: &str) -> Result<u64, ValueError> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|_| ValueError::Time);
    }
    let (local, offset_ms) = split_offset(text).ok_or(ValueError::Time)?;
    let utc = format!("{}Z", local.to_ascii_uppercase());
    let time: SystemTime = humantime::parse_rfc3339(&utc).map_err(|_| ValueError::Time)?;
    let local_ms = time.duration_since(UNIX_EPOCH).map_err(|_| ValueError::Time)?.as_millis();
    i64::try_from(local_ms)
        .ok()
        .and_then(|local_ms| u64::try_from(local_ms - offset_ms).ok())
        .ok_or(ValueError::Time)
}

/// Splits `2026-01-31T12:00:00+02:00` before its offset, and returns the offset in milliseconds.
fn split_offset(text: &str) -> Option<(&str, i64)> {
    if let Some(local) = text.strip_suffix(['Z', 'z']) {
        return Some((local, 0));
    }
    let at = text.len().checked_sub(6)?;
    let (local, offset) = (text.get(..at)?, text.get(at..)?);
    let sign = match offset.as_bytes()[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = offset[1..].split_once(':')?;
    let two_digits = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    if !two_digits(hours) || !two_digits(minutes) {
        return None;
    }
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60).then_some((local, sign * (hours * 60 + minutes) * 60_000))
}

/// A series by name.
///
/// # Errors
/// If there is no such series.
pub fn series(text: &str) -> Result<proto::Series, ValueError> {
    json::series_from_name(text).ok_or(ValueError::Series)
}

/// An axis by name.
///
/// # Errors
/// If there is no such axis.
pub fn axis(text: &str) -> Result<proto::Axis, ValueError> {
    json::axis_from_name(text).ok_or(ValueError::Axis)
}

/// A role by name.
///
/// # Errors
/// If there is no such role.
pub fn role(text: &str) -> Result<proto::Role, ValueError> {
    json::role_from_name(text).ok_or(ValueError::Role)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_or_milliseconds() {
        assert_eq!(time_ms("0"), Ok(0));
        assert_eq!(time_ms("1767182400000"), Ok(1_767_182_400_000));
        assert_eq!(time_ms("2025-12-31T12:00:00Z"), Ok(1_767_182_400_000));
        assert_eq!(time_ms("2025-12-31t14:00:00.250+02:00"), Ok(1_767_182_400_250));
        assert_eq!(time_ms("2025-12-31T06:30:00-05:30"), Ok(1_767_182_400_000));
        for bad in [
            "",
            "yesterday",
            "2025-12-31",
            "2025-12-31T12:00:00",
            "2025-13-31T12:00:00Z",
            "2025-12-31T12:00:00+2:00",
            "2025-12-31T12:00:00+24:00",
            "-5",
            "99999999999999999999",
            "é2025-12-31T12:00:00+02:00",
            "1970-01-01T00:00:00+01:00",
        ] {
            assert_eq!(time_ms(bad), Err(ValueError::Time), "{bad}");
        }
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("256MiB"), Ok(256 << 20));
        assert_eq!(size("1 GiB"), Ok(1 << 30));
        assert_eq!(size("2k"), Ok(2048));
        for bad in ["", "MiB", "-1", "1.5MiB", "1XB", "99999999999GiB"] {
            assert_eq!(size(bad), Err(ValueError::Size), "{bad}");
        }
    }

    #[test]
    fn keys_are_checked_before_anything_is_sent() {
        assert_eq!(key("a"), Ok(Bytes::from_static(b"a")));
        assert_eq!(key("hex:61ff"), Ok(Bytes::from_static(b"a\xff")));
        assert_eq!(key(""), Err(ValueError::EmptyKey));
        assert_eq!(key("hex:"), Err(ValueError::EmptyKey));
        assert_eq!(key("hex:00"), Err(ValueError::ReservedKey));
        assert_eq!(key(&"k".repeat(4097)), Err(ValueError::LongKey(4097)));
        assert!(key(&"k".repeat(4096)).is_ok());
        assert_eq!(bound(""), Ok(Bytes::new()));
        assert!(matches!(key("hex:6"), Err(ValueError::Notation(_))));
        assert!(matches!(key("hex:zz"), Err(ValueError::Notation(_))));
        assert_eq!(key("a\\x00b"), Ok(Bytes::from_static(b"a\0b")));
        assert_eq!(key("\\x00"), Err(ValueError::ReservedKey));
        assert_eq!(value("C:\\new"), Ok(Bytes::from_static(b"C:\\new")), "values have no escapes");
        assert_eq!(value(&"v".repeat((1 << 20) + 1)), Err(ValueError::LargeValue((1 << 20) + 1)));
    }

    #[test]
    fn durations_have_units_and_bounds() {
        assert_eq!(duration("60s"), Ok(Duration::from_secs(60)));
        assert!(matches!(duration("60"), Err(ValueError::Duration(_))));
        assert_eq!(duration("0s"), Err(ValueError::NoDuration));
        assert_eq!(duration("0"), Err(ValueError::NoDuration));
        assert!(matches!(duration("-1s"), Err(ValueError::Duration(_))));
    }
}
