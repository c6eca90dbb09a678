//! The rows of an export, the same in all formats.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;

use keyviz_json::key_text;

/// The four series, in the order of [`Record::counts`].
pub(super) const SERIES: usize = 4;

/// What a row is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Counted for exactly this route and column.
    Cell,
    /// Counted together for these keys and this time, which are more than a cell.
    Block,
    /// The same, reaching beyond the exported keys or time. In no total.
    Straddling,
    /// A key with many operations.
    HotKey,
    /// Counts of these keys and this time may be missing.
    Gap,
    /// The export is complete; the time that it covers.
    End,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Cell => "cell",
            Kind::Block => "block",
            Kind::Straddling => "straddling",
            Kind::HotKey => "hot_key",
            Kind::Gap => "gap",
            Kind::End => "end",
        }
    }
}

/// The bounds of a hot key's operations.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct HotBounds {
    /// `reads` or `writes`.
    pub(super) series: &'static str,
    pub(super) key: Bytes,
    pub(super) lower: u64,
    pub(super) upper: u64,
    /// Of the cluster only.
    pub(super) bytes: Option<u64>,
}

/// Who counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(super) struct Counter {
    pub(super) node: Option<u64>,
    pub(super) group: Option<u64>,
    pub(super) term: Option<u64>,
    pub(super) role: Option<&'static str>,
}

/// One row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) by: Counter,
    pub(super) route: Option<u64>,
    /// First key and first key after; none: the row is of no keys.
    pub(super) keys: Option<(Bytes, Option<Bytes>)>,
    pub(super) from_ms: u64,
    pub(super) to_ms: u64,
    pub(super) counts: Option<[u64; SERIES]>,
    pub(super) partial: bool,
    pub(super) conflict: bool,
    pub(super) hot: Option<HotBounds>,
}

impl Record {
    /// A row of a time, without anything else.
    pub(super) fn of_time(kind: Kind, from_ms: u64, to_ms: u64) -> Self {
        Record {
            kind,
            by: Counter::default(),
            route: None,
            keys: None,
            from_ms,
            to_ms,
            counts: None,
            partial: false,
            conflict: false,
            hot: None,
        }
    }

    /// As it is written.
    pub(super) fn line(&self) -> Line<'_> {
        let count = |at: usize| self.counts.map(|counts| counts[at]);
        let (keys, hot) = (self.keys.as_ref(), self.hot.as_ref());
        Line {
            kind: self.kind.name(),
            node: self.by.node,
            group: self.by.group,
            term: self.by.term,
            role: self.by.role,
            route_id: self.route,
            start: keys.map(|(start, _)| key_text(start)),
            end: keys.and_then(|(_, end)| end.as_ref()).map(|end| key_text(end)),
            column_start_ms: self.from_ms,
            column_ms: self.to_ms.saturating_sub(self.from_ms),
            reads: count(0),
            writes: count(1),
            read_bytes: count(2),
            write_bytes: count(3),
            partial: self.partial,
            conflict: self.conflict,
            hot_series: hot.map(|hot| hot.series),
            hot_key: hot.map(|hot| key_text(&hot.key)),
            hot_lower: hot.map(|hot| hot.lower),
            hot_upper: hot.map(|hot| hot.upper),
            hot_bytes: hot.and_then(|hot| hot.bytes),
        }
    }
}

/// The fields of a row; their names and order are those of the columns in all formats.
#[derive(Serialize, Debug)]
pub(super) struct Line<'a> {
    pub(super) kind: &'static str,
    pub(super) node: Option<u64>,
    pub(super) group: Option<u64>,
    pub(super) term: Option<u64>,
    pub(super) role: Option<&'static str>,
    pub(super) route_id: Option<u64>,
    pub(super) start: Option<Cow<'a, str>>,
    pub(super) end: Option<Cow<'a, str>>,
    pub(super) column_start_ms: u64,
    pub(super) column_ms: u64,
    pub(super) reads: Option<u64>,
    pub(super) writes: Option<u64>,
    pub(super) read_bytes: Option<u64>,
    pub(super) write_bytes: Option<u64>,
    pub(super) partial: bool,
    pub(super) conflict: bool,
    pub(super) hot_series: Option<&'static str>,
    pub(super) hot_key: Option<Cow<'a, str>>,
    pub(super) hot_lower: Option<u64>,
    pub(super) hot_upper: Option<u64>,
    pub(super) hot_bytes: Option<u64>,
}
