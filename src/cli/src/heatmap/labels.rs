//! Key labels: both ends of each row, shortened to fit but still distinct. A common prefix of the
//! keys is left out and named once.

use super::grid::{Grid, Row};
use crate::terminal::{notation, text};

/// Minimum length of a common prefix that is named separately.
const LEAST_PREFIX: usize = 4;
/// Separator between both ends of a row.
const BETWEEN: &str = " → ";
/// Minimum width for both ends; a narrower label is the first key only.
const LEAST_FOR_BOTH: usize = 22;

/// The labels of all drawn rows.
pub struct Labels {
    /// One a row.
    pub texts: Vec<String>,
    /// Terminal cells of the widest.
    pub width: usize,
    /// The prefix that `…` at the beginning of a key stands for.
    pub prefix: Option<String>,
}

/// The keys of a row as they are shown.
struct Ends {
    start: String,
    end: String,
    /// Whether they are keys rather than markers such as `(begin)`.
    keys: (bool, bool),
    suffix: String,
}

impl Ends {
    fn of(row: &Row) -> Self {
        let end = notation::end(&row.start, row.end.as_deref()).into_owned();
        let is_key = row.end.is_some() && end != notation::ONE_KEY;
        Ends {
            start: notation::start(&row.start).into_owned(),
            end,
            keys: (!row.start.is_empty(), is_key),
            suffix: suffix(row),
        }
    }

    /// The keys among both ends.
    fn keys(&self) -> impl Iterator<Item = &str> {
        let (start, end) = self.keys;
        let start = start.then_some(self.start.as_str());
        start.into_iter().chain(end.then_some(self.end.as_str()))
    }

    fn short_start(&self, prefix: Option<&str>) -> String {
        without(&self.start, prefix.filter(|_| self.keys.0))
    }

    fn short_end(&self, prefix: Option<&str>) -> String {
        without(&self.end, prefix.filter(|_| self.keys.1))
    }

    fn between(&self) -> &'static str {
        if self.end == notation::ONE_KEY && !self.keys.1 { " " } else { BETWEEN }
    }

    fn both(&self, prefix: Option<&str>) -> String {
        let (start, end) = (self.short_start(prefix), self.short_end(prefix));
        format!("{start}{}{end}{}", self.between(), self.suffix)
    }

    /// Both ends, each shortened to half of the width.
    fn halves(&self, prefix: Option<&str>, limit: usize) -> String {
        let (start, end) = (self.short_start(prefix), self.short_end(prefix));
        let room = limit.saturating_sub(text::width(self.between()) + self.suffix.len());
        let half = room / 2;
        let (left, right) = (text::width(&start), text::width(&end));
        // Space that one end does not need goes to the other.
        let left_room = half.max(room.saturating_sub(right)).min(left.max(1));
        let start = text::shorten(&start, left_room);
        let end = text::shorten(&end, room.saturating_sub(text::width(&start)));
        format!("{start}{}{end}{}", self.between(), self.suffix)
    }

    fn first(&self, prefix: Option<&str>, limit: usize) -> String {
        let start = self.short_start(prefix);
        let start = text::shorten(&start, limit.saturating_sub(self.suffix.len()));
        format!("{start}{}", self.suffix)
    }
}

fn without(key: &str, prefix: Option<&str>) -> String {
    match prefix.and_then(|prefix| key.strip_prefix(prefix)) {
        Some(rest) => format!("…{rest}"),
        None => key.to_owned(),
    }
}

impl Labels {
    /// Labels of at most `limit` terminal cells.
    pub fn new(grid: &Grid, limit: usize) -> Self {
        let rows: Vec<Ends> = grid.rows.iter().map(Ends::of).collect();
        let prefix = shared(rows.iter().flat_map(Ends::keys))
            .filter(|prefix| prefix.chars().count() >= LEAST_PREFIX);
        let fits = |texts: &[String]| texts.iter().all(|text| text::width(text) <= limit);
        let both = |prefix| rows.iter().map(|row| row.both(prefix)).collect::<Vec<_>>();
        let starts = |prefix| {
            let first = |row: &Ends| row.first(prefix, limit);
            rows.iter().map(first).collect::<Vec<_>>()
        };
        let whole = both(None);
        let (texts, prefix) = if fits(&whole) {
            (whole, None)
        } else if fits(&both(prefix)) {
            (both(prefix), prefix)
        } else if limit >= LEAST_FOR_BOTH {
            (rows.iter().map(|row| row.halves(prefix, limit)).collect(), prefix)
        } else if rows.iter().all(|row| text::width(&row.start) + row.suffix.len() <= limit) {
            (starts(None), None)
        } else {
            (starts(prefix), prefix)
        };
        let width = texts.iter().map(|text| text::width(text)).max().unwrap_or(0);
        let prefix = prefix.map(str::to_owned);
        Labels { texts, width, prefix }
    }
}

fn suffix(row: &Row) -> String {
    match row.more_routes {
        0 => String::new(),
        more => format!(" +{}", text::short_count(more)),
    }
}

/// The common prefix of all keys, without cutting an escape; `None` for fewer than two keys.
fn shared<'a>(mut keys: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let first = keys.next()?;
    let mut length = first.len();
    let mut several = false;
    for key in keys {
        several |= key != first;
        let pairs = first[..length].char_indices().zip(key.chars());
        length = pairs
            .take_while(|((_, a), b)| a == b)
            .last()
            .map_or(0, |((at, c), _)| at + c.len_utf8());
    }
    let prefix = &first[..length];
    let cut = prefix.rfind('\\').filter(|_| notation::parse(prefix).is_err());
    several.then_some(&prefix[..cut.unwrap_or(length)])
}
