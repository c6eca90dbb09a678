//! What has been added up so far, from one matrix after the other.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::prefixes::inside;
use super::request::{
    Grouping, LoadCounts, LoadEntry, LoadOf, LoadsError, LoadsPart, LoadsRequest, LoadsSummary,
};
use crate::request::{MatrixError, MatrixRequest};
use keyviz_core::matrix::Block;
use keyviz_core::{GroupId, KeyRange, Matrix, NodeId, RouteId, Series};

/// The rows that are asked, each with the one whose load it is.
pub(super) struct Rows {
    /// First keys, the first of which is that of the asked range.
    pub(super) starts: Vec<Bytes>,
    /// Whose each row is; `None`: nobody's.
    pub(super) of: Vec<Option<LoadOf>>,
    pub(super) routes: BTreeMap<RouteId, (KeyRange, GroupId)>,
    pub(super) catalog_version: u64,
}

/// What has been added up so far.
pub(super) struct Sums {
    pub(super) rows: Rows,
    range: KeyRange,
    by_node: bool,
    per_route: bool,
    ids: BTreeSet<u64>,
    loads: BTreeMap<LoadOf, LoadCounts>,
    shared: BTreeMap<(Bytes, Option<Bytes>), LoadCounts>,
    /// Over the edge of a piece, within the asked keys.
    crossing: BTreeMap<(Bytes, Option<Bytes>), LoadCounts>,
    /// Beyond the asked keys or time.
    straddling: BTreeMap<(Bytes, Option<Bytes>, u64, u64), LoadCounts>,
    summary: LoadsSummary,
}

impl Sums {
    pub(super) fn new(request: &LoadsRequest, rows: Rows) -> Self {
        let ids: BTreeSet<u64> = request.ids.iter().copied().collect();
        let summary = LoadsSummary {
            from_ms: request.from_ms.unwrap_or(0),
            to_ms: request.to_ms.unwrap_or(0),
            catalog_version: rows.catalog_version,
            ..LoadsSummary::default()
        };
        let mut sums = Sums {
            range: KeyRange { start: request.start.clone(), end: request.end.clone() },
            by_node: request.by == Grouping::Node,
            per_route: request.by == Grouping::Route,
            loads: BTreeMap::new(),
            shared: BTreeMap::new(),
            crossing: BTreeMap::new(),
            straddling: BTreeMap::new(),
            ids,
            rows,
            summary,
        };
        // Those that are named are listed without load too.
        let named: Vec<LoadOf> = match request.by {
            Grouping::Node | Grouping::Leader => {
                request.ids.iter().map(|id| LoadOf::Node(NodeId(*id))).collect()
            }
            Grouping::Prefix => request.prefixes.iter().cloned().map(LoadOf::Prefix).collect(),
            // Once their rows are there.
            Grouping::Route | Grouping::Group => Vec::new(),
        };
        sums.loads.extend(named.into_iter().map(|of| (of, LoadCounts::default())));
        sums
    }

    fn row_range(&self, rows: std::ops::Range<usize>) -> KeyRange {
        let end = self.rows.starts.get(rows.end).or(self.range.end.as_ref());
        KeyRange { start: self.rows.starts[rows.start].clone(), end: end.cloned() }
    }

    pub(super) fn piece(
        &self,
        request: &LoadsRequest,
        series: Series,
        rows: std::ops::Range<usize>,
    ) -> MatrixRequest {
        let KeyRange { start, end } = self.row_range(rows.clone());
        let boundaries = self.rows.starts[rows].iter().cloned().collect();
        MatrixRequest { start, end, boundaries, ..request.matrix(series) }
    }

    /// Adds the matrix of one series of a piece that begins with row `first`.
    pub(super) fn take(
        &mut self,
        series: usize,
        first: usize,
        matrix: &Matrix,
    ) -> Result<(), LoadsError> {
        let starts = &self.rows.starts[first..];
        let as_asked = matrix.rows.len() <= starts.len()
            && matrix.rows.iter().zip(starts).all(|(row, start)| row.range.start == *start);
        if !as_asked {
            let reason = "the rows are not those that were asked".to_owned();
            return Err(MatrixError::Internal { reason }.into());
        }
        self.note(series, matrix);
        if self.by_node {
            for share in &matrix.by_node {
                self.give(Some(LoadOf::Node(share.node)), series, share.total, self.range.clone());
            }
        } else {
            for (at, row) in matrix.rows.iter().enumerate() {
                let value = row.values.iter().fold(0u64, |sum, value| sum.saturating_add(*value));
                let (of, range) = (self.rows.of[first + at].clone(), row.range.clone());
                let named =
                    of.as_ref().filter(|of| of.id().is_some_and(|id| self.ids.contains(&id)));
                if let Some(named) = named {
                    self.loads.entry(named.clone()).or_default();
                }
                self.give(of, series, value, range);
            }
        }
        for block in &matrix.blocks {
            self.block(series, first, block);
        }
        Ok(())
    }

    fn note(&mut self, series: usize, matrix: &Matrix) {
        let summary = &mut self.summary;
        if let (Some(from), Some(to)) = (matrix.columns.first(), matrix.columns.last()) {
            (summary.from_ms, summary.to_ms) = (from.start_ms, to.end_ms);
        }
        // It is of the window, whatever the keys.
        let unattributed = &mut summary.unattributed.0[series];
        *unattributed = (*unattributed).max(matrix.unattributed);
        summary.partial |= matrix.responded < matrix.expected
            || matrix.nodes.iter().any(|node| node.past_history)
            || matrix.rows.iter().any(|row| row.partial.iter().next().is_some());
        if summary.nodes.is_empty() || matrix.responded < summary.responded {
            summary.nodes.clone_from(&matrix.nodes);
            (summary.responded, summary.expected) = (matrix.responded, matrix.expected);
        }
    }

    fn give(&mut self, of: Option<LoadOf>, series: usize, value: u64, range: KeyRange) {
        if value == 0 {
            return;
        }
        self.summary.total.add(series, value);
        match of {
            Some(of) => self.loads.entry(of).or_default().add(series, value),
            None => {
                let counts = self.shared.entry((range.start, range.end)).or_default();
                counts.add(series, value);
            }
        }
    }

    fn block(&mut self, series: usize, first: usize, block: &Block) {
        let KeyRange { start, end } = block.range.clone();
        if !block.straddling {
            if !self.by_node {
                let from = first + block.first_row as usize;
                let of = self.one_of(from..from + block.row_count as usize);
                self.give(of, series, block.value, block.range.clone());
            }
        } else if block.reach.is_none() && inside(&block.range, &self.range) {
            // Seen in each piece that it touches, with the same value.
            let counts = self.crossing.entry((start, end)).or_default();
            counts.0[series] = counts.0[series].max(block.value);
        } else {
            let reach = block.reach.map_or((0, 0), |reach| (reach.from_ms, reach.to_ms));
            let counts = self.straddling.entry((start, end, reach.0, reach.1)).or_default();
            counts.0[series] = counts.0[series].max(block.value);
        }
    }

    /// The one whose all these rows are.
    fn one_of(&self, rows: std::ops::Range<usize>) -> Option<LoadOf> {
        let of = self.rows.of.get(rows)?;
        let first = of.first()?.as_ref()?;
        of.iter().all(|other| other.as_ref() == Some(first)).then(|| first.clone())
    }

    fn entry(&self, of: LoadOf, counts: LoadCounts) -> LoadEntry {
        let route = match &of {
            LoadOf::Route(id) => self.rows.routes.get(id).cloned(),
            _ => None,
        };
        LoadEntry { of, counts, route }
    }

    fn wanted(&self, of: &LoadOf) -> bool {
        self.ids.is_empty() || of.id().is_none_or(|id| self.ids.contains(&id))
    }

    /// What is known of a piece for certain: loads by route, which are in one piece alone unless a
    /// count crosses its edge, and what is shared.
    pub(super) fn emit(&mut self) -> LoadsPart {
        let shared = std::mem::take(&mut self.shared);
        let shared =
            shared.into_iter().map(|((start, end), counts)| (KeyRange { start, end }, counts));
        let mut part = LoadsPart { shared: shared.collect(), ..LoadsPart::default() };
        if self.per_route {
            part.loads = self.drain();
        }
        part
    }

    fn drain(&mut self) -> Vec<LoadEntry> {
        let loads = std::mem::take(&mut self.loads);
        let listed = loads.into_iter().filter(|(of, counts)| {
            self.wanted(of) && !(counts.is_zero() && self.ids.is_empty() && of.id().is_some())
        });
        let listed: Vec<(LoadOf, LoadCounts)> = listed.collect();
        listed.into_iter().map(|(of, counts)| self.entry(of, counts)).collect()
    }

    pub(super) fn finish(mut self) -> LoadsPart {
        for ((start, end), counts) in std::mem::take(&mut self.crossing) {
            let range = KeyRange { start, end };
            let from = self.rows.starts.partition_point(|key| *key <= range.start) - 1;
            let to = match &range.end {
                Some(end) => self.rows.starts.partition_point(|key| key < end),
                None => self.rows.starts.len(),
            };
            // Loads by route have been sent: what crosses an edge is of two routes.
            let of = self.one_of(from..to).filter(|_| !self.per_route);
            for (series, value) in counts.0.into_iter().enumerate() {
                self.give(of.clone(), series, value, range.clone());
            }
        }
        for counts in self.straddling.values() {
            for (series, value) in counts.0.into_iter().enumerate() {
                self.summary.straddling.add(series, value);
            }
        }
        let mut part = self.emit();
        part.loads.extend(self.drain());
        part.summary = Some(self.summary);
        part
    }
}
