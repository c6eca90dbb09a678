//! Findings as they were: the load is looked at again as of earlier columns, so that a finding
//! keeps one name from its beginning on and one that has ended says when, although nobody looked
//! meanwhile.

use super::tracker::Tracker;
use super::{Input, Load, LoadError, NamedKey, analyze};

/// Looks at the past, at most.
pub const LOOKS: usize = 8;
/// Columns that a look at the past needs.
const LEAST_COLUMNS: usize = 5;
/// Looks without a finding until it is resolved.
const LINGER: u64 = 2;

/// Lets `tracker` see the load as of at most [`LOOKS`] earlier columns that it has not seen, and
/// the present. The columns are those whose end is a multiple of the time between two looks, so
/// that whoever looks sees the same ones. Leaders and routes of the past are taken to be those of
/// now.
///
/// # Errors
/// If the load is not as described.
pub fn follow(tracker: &mut Tracker, input: &Input<'_>) -> Result<(), LoadError> {
    input.load.check()?;
    let columns = &input.load.columns;
    let longest = columns.iter().map(|column| column.end_ms - column.start_ms).max().unwrap_or(1);
    let between_ms = longest.saturating_mul(columns.len().div_ceil(LOOKS).max(1) as u64);
    let linger_ms = between_ms.saturating_mul(LINGER);
    for (at, column) in columns.iter().enumerate() {
        let looked = column.end_ms % between_ms < column.end_ms - column.start_ms;
        let enough = at + 1 >= LEAST_COLUMNS && at + 1 < columns.len();
        if !looked || !enough || column.open || column.end_ms <= tracker.seen_ms() {
            continue;
        }
        let (load, hot_keys) = (until(input.load, at + 1), named(input, at + 1));
        let then = Input { load: &load, hot_keys: &hot_keys, now_ms: column.end_ms, ..*input };
        tracker.observe(analyze(&then)?, column.end_ms, linger_ms);
    }
    tracker.observe(analyze(input)?, input.now_ms, linger_ms);
    Ok(())
}

/// The first columns of a load.
fn until(load: &Load, columns: usize) -> Load {
    let mut load = load.clone();
    load.columns.truncate(columns);
    for row in &mut load.rows {
        row.lists_mut().into_iter().for_each(|list| list.truncate(columns));
    }
    load
}

/// The keys of which it is known what they had in the first columns.
fn named(input: &Input<'_>, columns: usize) -> Vec<NamedKey> {
    let by_column = |key: &&NamedKey| key.values.len() == input.load.columns.len();
    let until = |key: &NamedKey| {
        let values = key.values[..columns].to_vec();
        let lower = values.iter().fold(0, |sum: u64, value| sum.saturating_add(*value));
        let upper = key.upper.saturating_sub(key.lower).saturating_add(lower);
        NamedKey { lower, upper, values, ..key.clone() }
    };
    input.hot_keys.iter().filter(by_column).map(until).collect()
}
