//! A finding in terms of rows and columns, before it is put into words.

use std::ops::Range;

use bytes::Bytes;

use super::finding::{Fact, Kind};
use super::frame::Frame;
use keyviz_types::{GroupId, KeyRange, NodeId};

/// What a detector found.
pub(super) struct Draft {
    pub kind: Kind,
    /// The hull of what it concerns; at least one row.
    pub rows: Range<usize>,
    /// Where the rows reach beyond what it concerns.
    pub range: Option<KeyRange>,
    pub key: Option<Bytes>,
    pub group: Option<GroupId>,
    pub node: Option<NodeId>,
    /// By column that counts.
    pub series: Vec<f64>,
    /// The series is in operations a second.
    pub operations: bool,
    /// First column above the level.
    pub since: usize,
    pub facts: Vec<Fact>,
    /// How far above the level it is: measure over level.
    pub margin: f64,
    /// It moves up (or down).
    pub up: bool,
    /// Not known: the range was not told apart any finer.
    pub coarse: bool,
}

impl Draft {
    pub fn new(kind: Kind, rows: Range<usize>, series: Vec<f64>, since: usize) -> Self {
        Draft {
            kind,
            rows,
            range: None,
            key: None,
            group: None,
            node: None,
            series,
            operations: true,
            since,
            facts: Vec::new(),
            margin: 1.0,
            up: true,
            coarse: false,
        }
    }

    pub fn fact(mut self, name: &'static str, value: f64, level: Option<f64>) -> Self {
        self.facts.push(Fact { name, value, level });
        self
    }

    pub fn margin(mut self, measure: f64, level: f64) -> Self {
        self.margin = if level > 0.0 { measure / level } else { 1.0 };
        self
    }

    /// From 0.5 at the level towards 1 far above it; less where columns may miss counts.
    pub fn confidence(&self, frame: &Frame<'_>) -> f64 {
        let margin = if self.margin.is_finite() { self.margin.max(1.0) } else { 1.0 };
        let columns = frame.columns.len() as f64;
        let seen = (columns / 5.0).min(1.0);
        ((1.0 - 0.5 / margin) * (1.0 - frame.partial / 2.0) * seen).clamp(0.0, 1.0)
    }
}
