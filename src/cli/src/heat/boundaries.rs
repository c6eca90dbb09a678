//! The file of `--boundaries`.

use std::io;
use std::path::Path;

use bytes::Bytes;

use super::super::UsageError;
use super::super::flags::values;
use super::super::terminal::text;

/// Most boundaries that a node takes.
const MAX_BOUNDARIES: usize = 1_024;

/// The keys of a file, one a line.
pub(super) fn read(path: &Path) -> Result<Vec<Bytes>, UsageError> {
    let refused = |reason: String| UsageError::value("--boundaries <FILE>", path.display(), reason);
    let read = match path == Path::new("-") {
        true => io::read_to_string(io::stdin()),
        false => std::fs::read_to_string(path),
    };
    let text = read.map_err(|error| refused(format!("it cannot be read: {error}")))?;
    let key = |(at, line): (usize, &str)| {
        values::bound(line).map_err(|error| refused(format!("line {}: {error}", at + 1)))
    };
    let keys = text.lines().enumerate().map(key).collect::<Result<Vec<Bytes>, _>>()?;
    if keys.is_empty() {
        return Err(refused("it names no key".to_owned()));
    }
    if keys.len() > MAX_BOUNDARIES {
        let (found, most) = (text::thousands(keys.len() as u64), MAX_BOUNDARIES);
        return Err(refused(format!("it names {found} keys; at most {most} are taken")));
    }
    if let Some(at) = keys.windows(2).position(|pair| pair[0] >= pair[1]) {
        let reason = format!("line {}: the key is not after the one before it", at + 2);
        return Err(refused(reason));
    }
    Ok(keys)
}
