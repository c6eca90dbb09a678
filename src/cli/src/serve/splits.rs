//! The keys of `--split-at`.

use bytes::Bytes;

use super::{MAX_SPLITS, UsageError};
use crate::terminal::text;

/// The keys in order, none twice.
pub(super) fn sorted(mut keys: Vec<Bytes>) -> Result<Vec<Bytes>, UsageError> {
    const FLAG: &str = "--split-at <KEY,...>";
    keys.sort_unstable();
    if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(UsageError::value(
            FLAG,
            text::preview(&pair[0]),
            "this key is in the list twice",
        ));
    }
    if keys.len() > MAX_SPLITS {
        let reason = format!("at most {MAX_SPLITS} keys");
        return Err(UsageError::value(FLAG, format!("{} keys", keys.len()), reason));
    }
    Ok(keys)
}
