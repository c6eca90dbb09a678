//! Key labels: short enough for their column and still different from each other. Keys that
//! begin alike lose what they share, which is named once instead.

use super::super::text;
use super::grid::{Grid, Row};

/// Shortest shared beginning worth naming apart.
const LEAST_PREFIX: usize = 4;

/// The labels of all drawn rows.
pub struct Labels {
    /// One a row.
    pub texts: Vec<String>,
    /// Terminal cells of the widest.
    pub width: usize,
    /// What `…` at the beginning of a label stands for.
    pub prefix: Option<String>,
}

impl Labels {
    /// Labels of at most `limit` terminal cells.
    pub fn new(grid: &Grid, limit: usize) -> Self {
        let keys: Vec<String> =
            grid.rows.iter().map(|row| text::preview(&row.start).into_owned()).collect();
        let too_wide = grid.rows.iter().zip(&keys).any(|(row, key)| width(key, row) > limit);
        let prefix = shared(keys.iter().filter(|key| !key.is_empty()))
            .filter(|prefix| too_wide && prefix.chars().count() >= LEAST_PREFIX);
        let texts: Vec<String> = grid
            .rows
            .iter()
            .zip(&keys)
            .map(|(row, key)| {
                let key = match (key.as_str(), prefix) {
                    ("", _) => "(begin)".to_owned(),
                    (key, None) => key.to_owned(),
                    (key, Some(prefix)) => format!("…{}", &key[prefix.len()..]),
                };
                let suffix = suffix(row);
                let room = limit.saturating_sub(suffix.len());
                format!("{}{suffix}", text::shorten(&key, room))
            })
            .collect();
        let width = texts.iter().map(|text| text::width(text)).max().unwrap_or(0);
        let prefix = prefix.map(str::to_owned);
        Labels { texts, width, prefix }
    }
}

fn width(key: &str, row: &Row) -> usize {
    text::width(key) + suffix(row).len()
}

fn suffix(row: &Row) -> String {
    match row.more_routes {
        0 => String::new(),
        more => format!(" +{}", text::short_count(more)),
    }
}

/// What all keys begin with; `None` for fewer than two keys.
fn shared<'a>(mut keys: impl Iterator<Item = &'a String>) -> Option<&'a str> {
    let first = keys.next()?.as_str();
    let mut length = first.len();
    let mut several = false;
    for key in keys {
        several = true;
        let pairs = first[..length].char_indices().zip(key.chars());
        length = pairs
            .take_while(|((_, a), b)| a == b)
            .last()
            .map_or(0, |((at, c), _)| at + c.len_utf8());
    }
    several.then_some(&first[..length])
}
