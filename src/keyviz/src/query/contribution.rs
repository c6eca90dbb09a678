//! Round two of a cluster query: a node's contribution, on the axes of the coordinating node.
//!
//! Cells are keyed by what the merge must tell apart: writes by (group, term), because one leader
//! per term counts them, and reads by role, because every node counts its own. Only non-zero cells
//! are stored, and each key (place and source) is stored once per contribution, so a cell costs one
//! small number for its key and one for its value. A count that fits no cell goes into a block
//! ([`super::block`]), whose span is a place as a row is.

use std::ops::Range;

use super::axis::{ColumnPlan, RowAxis};
use super::block::{BlockSpan, MAX_SPANS};
use super::column_set::ColumnSet;
use keyviz_types::{GroupId, Incarnation, NodeId, Term};

/// Version of the form of a contribution, to be sent with it.
pub const CONTRIBUTION_VERSION: u32 = 2;
/// The maximum number of keys in one contribution. A node needs one for each row or span in which
/// it counted, times the groups and terms.
pub const MAX_KEYS: usize = 1 << 20;

/// Who accounts for a count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Source {
    /// Writes that the leader of `group` proposed in `term`; `None` if they were counted under an
    /// epoch in which the node did not lead the group.
    LeaderWrite {
        /// The group.
        group: GroupId,
        /// The leader's term.
        term: Option<Term>,
    },
    /// Reads served while leading.
    LeaderRead,
    /// Reads served while following.
    FollowerRead,
}

/// The place of a count on the axes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// The row with this index.
    Row(u32),
    /// A block with the span at this index of [`NodeColumns::spans`].
    Block(u32),
}

/// A place on the axes, and who accounts for the count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CellKey {
    /// A row, or a block.
    pub place: Place,
    /// Who accounts for it.
    pub source: Source,
}

/// What one incarnation of a node counted in one column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ColumnPart {
    /// Index of the column in the plan.
    pub column: u32,
    /// The incarnation that counted, which may be earlier than the one that answers.
    pub incarnation: Incarnation,
    /// Counts may be missing, because the incarnation died before it closed the column.
    pub partial: bool,
    /// Operations without a route.
    pub unattributed: u64,
    /// Indices into [`NodeColumns::keys`], ascending.
    pub keys: Vec<u32>,
    /// The counts, one per key, none of them 0. `u64::MAX`: at least that many.
    pub values: Vec<u64>,
    /// Rows with an apportioned count, ascending. Only contributions by or for nodes of earlier
    /// versions have any.
    pub apportioned: Vec<u32>,
}

/// One node's answer in round two, or a chunk of it. Its parts are plain, or packed as they are
/// sent ([`PackedColumns`](crate::wire::PackedColumns)).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeColumns<Part = ColumnPart> {
    /// The node that counted.
    pub node: NodeId,
    /// The node that keeps the columns and answers: the same node, or the one that it handed them
    /// to.
    pub held_by: NodeId,
    /// Its latest incarnation.
    pub incarnation: Incarnation,
    /// The columns of the plan that this chunk answers for.
    pub covers: Range<u32>,
    /// Those of them for which the node has a column, even an empty one.
    pub held: ColumnSet,
    /// Columns that may lack counts, because a copy of another node's columns ends before.
    pub incomplete: ColumnSet,
    /// End of the newest column that the node dropped for space; 0: none.
    pub forgotten_before_ms: u64,
    /// The spans of the blocks, ascending.
    pub spans: Vec<BlockSpan>,
    /// The keys that cells refer to, ascending.
    pub keys: Vec<CellKey>,
    /// By column, then incarnation.
    pub parts: Vec<Part>,
}

/// Why a contribution is invalid.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ContributionError {
    /// It answers for columns outside the plan.
    #[error("columns {from}..{to} are outside the plan of {columns}")]
    Covers {
        /// First column.
        from: u32,
        /// One past the last.
        to: u32,
        /// Columns of the plan.
        columns: usize,
    },
    /// More than [`MAX_KEYS`] keys.
    #[error("{keys} keys, at most {MAX_KEYS} are accepted")]
    TooManyKeys {
        /// Keys received.
        keys: usize,
    },
    /// More than [`MAX_SPANS`] spans.
    #[error("{spans} spans of blocks, at most {MAX_SPANS} are accepted")]
    TooManySpans {
        /// Spans received.
        spans: usize,
    },
    /// A span out of order, or one whose rows or columns do not match its keys.
    #[error("span {index} of the blocks is out of order or does not lie on the axes")]
    Span {
        /// Its index.
        index: usize,
    },
    /// A key out of order, or one whose row or span does not exist.
    #[error("key {index} is out of order or of row {row}, of {rows}")]
    Key {
        /// Its index.
        index: usize,
        /// The index of its row or span.
        row: u32,
        /// The number of rows of the plan, or of spans.
        rows: usize,
    },
    /// A part out of order, or of a column that the chunk does not answer for.
    #[error("part {index} is out of order or of column {column}")]
    Part {
        /// Its index.
        index: usize,
        /// Its column.
        column: u32,
    },
    /// Cells out of order, without a key or a value, or of value 0.
    #[error("cells of part {index} are out of order, unnamed or zero")]
    Cells {
        /// Index of the part.
        index: usize,
    },
    /// Apportioned rows out of order or outside the plan.
    #[error("apportioned rows of part {index} are out of order or outside the plan")]
    Apportioned {
        /// Index of the part.
        index: usize,
    },
}

impl ColumnPart {
    /// Whether the part has a count or a mark. An apportioned count of zero is a mark.
    pub(crate) fn is_significant(&self) -> bool {
        self.partial
            || self.unattributed > 0
            || !self.keys.is_empty()
            || !self.apportioned.is_empty()
    }
}

impl NodeColumns {
    /// Number of cells.
    pub fn cells(&self) -> usize {
        self.parts.iter().map(|part| part.keys.len()).sum()
    }

    /// Checks that the contribution fits the axes.
    ///
    /// # Errors
    /// The first fault found.
    pub fn check(&self, rows: &RowAxis, columns: &ColumnPlan) -> Result<(), ContributionError> {
        let head = |part: &ColumnPart| (part.column, part.incarnation);
        self.check_frame(rows, columns, head)?;
        for (index, part) in self.parts.iter().enumerate() {
            let named = ascending_below(&part.keys, self.keys.len());
            if part.keys.len() != part.values.len() || !named || part.values.contains(&0) {
                return Err(ContributionError::Cells { index });
            }
            if part.column as usize + self.longest(&part.keys) > columns.len() {
                return Err(ContributionError::Part { index, column: part.column });
            }
            if !ascending_below(&part.apportioned, rows.len()) {
                return Err(ContributionError::Apportioned { index });
            }
        }
        Ok(())
    }

    /// Splits the contribution by columns into chunks of at most `max_cells` cells; a column with
    /// more cells is a chunk of its own. Each chunk has only the keys that it uses. There is at
    /// least one chunk.
    pub fn chunks(self, max_cells: usize) -> Vec<NodeColumns> {
        let Range { mut start, end } = self.covers;
        let mut chunks = Vec::new();
        let mut parts: Vec<ColumnPart> = Vec::new();
        let mut cells = 0;
        let mut rest = self.parts.into_iter().peekable();
        while let Some(column) = rest.peek().map(|part| part.column) {
            let mut same = Vec::new();
            while let Some(part) = rest.next_if(|part| part.column == column) {
                same.push(part);
            }
            let more: usize = same.iter().map(|part| part.keys.len()).sum();
            if cells > 0 && cells + more > max_cells {
                chunks.push((start..column, std::mem::take(&mut parts)));
                (start, cells) = (column, 0);
            }
            cells += more;
            parts.append(&mut same);
        }
        chunks.push((start..end, parts));
        let chunk = |(covers, mut parts): (Range<u32>, Vec<ColumnPart>)| {
            let (spans, keys) = pruned(&self.spans, &self.keys, &mut parts);
            NodeColumns {
                node: self.node,
                held_by: self.held_by,
                incarnation: self.incarnation,
                held: self.held.intersection(covers.clone()),
                incomplete: self.incomplete.intersection(covers.clone()),
                covers,
                forgotten_before_ms: self.forgotten_before_ms,
                spans,
                keys,
                parts,
            }
        };
        chunks.into_iter().map(chunk).collect()
    }
}

impl<Part> NodeColumns<Part> {
    /// Checks everything but the contents of the parts. `head` returns the column and the
    /// incarnation of a part.
    pub(crate) fn check_frame(
        &self,
        rows: &RowAxis,
        plan: &ColumnPlan,
        head: impl Fn(&Part) -> (u32, Incarnation),
    ) -> Result<(), ContributionError> {
        let Range { start: from, end: to } = self.covers;
        let columns = plan.len();
        let inside = |span: Range<u32>| from <= span.start && span.end <= to;
        let held = self.held.spans().chain(self.incomplete.spans()).all(inside);
        if from > to || to as usize > columns || !held {
            return Err(ContributionError::Covers { from, to, columns });
        }
        if self.keys.len() > MAX_KEYS {
            return Err(ContributionError::TooManyKeys { keys: self.keys.len() });
        }
        if self.spans.len() > MAX_SPANS {
            return Err(ContributionError::TooManySpans { spans: self.spans.len() });
        }
        for (index, span) in self.spans.iter().enumerate() {
            let ascends = index == 0 || self.spans[index - 1] < *span;
            if !ascends || !span.fits(rows, columns) {
                return Err(ContributionError::Span { index });
            }
        }
        for (index, key) in self.keys.iter().enumerate() {
            let (row, rows) = match key.place {
                Place::Row(row) => (row, rows.len()),
                Place::Block(span) => (span, self.spans.len()),
            };
            if row as usize >= rows || index > 0 && self.keys[index - 1] >= *key {
                return Err(ContributionError::Key { index, row, rows });
            }
        }
        let mut before = None;
        for (index, part) in self.parts.iter().enumerate() {
            let (column, incarnation) = head(part);
            let place = Some((column, incarnation));
            if before >= place || !self.covers.contains(&column) {
                return Err(ContributionError::Part { index, column });
            }
            before = place;
        }
        Ok(())
    }

    /// The number of columns of the longest block among these keys; 1 if there is none.
    pub(crate) fn longest(&self, keys: &[u32]) -> usize {
        if self.spans.is_empty() {
            return 1;
        }
        let columns = |&key: &u32| match self.keys[key as usize].place {
            Place::Row(_) => 1,
            Place::Block(span) => self.spans[span as usize].columns as usize,
        };
        keys.iter().map(columns).max().unwrap_or(1)
    }

    /// The same contribution with its parts converted.
    pub(crate) fn with_parts<Other>(
        self,
        other: impl FnOnce(Vec<Part>) -> Vec<Other>,
    ) -> NodeColumns<Other> {
        NodeColumns {
            node: self.node,
            held_by: self.held_by,
            incarnation: self.incarnation,
            covers: self.covers,
            held: self.held,
            incomplete: self.incomplete,
            forgotten_before_ms: self.forgotten_before_ms,
            spans: self.spans,
            keys: self.keys,
            parts: other(self.parts),
        }
    }
}

pub(crate) fn ascending_below(indices: &[u32], limit: usize) -> bool {
    indices.windows(2).all(|pair| pair[0] < pair[1])
        && indices.last().is_none_or(|&last| (last as usize) < limit)
}

/// The spans and keys that `parts` use. The indices in keys and parts are changed accordingly.
pub(crate) fn pruned(
    spans: &[BlockSpan],
    keys: &[CellKey],
    parts: &mut [ColumnPart],
) -> (Vec<BlockSpan>, Vec<CellKey>) {
    let mut used = vec![false; keys.len()];
    parts.iter().flat_map(|part| &part.keys).for_each(|&key| used[key as usize] = true);
    let places = renumbered(&used);
    parts.iter_mut().flat_map(|part| &mut part.keys).for_each(|key| *key = places[*key as usize]);
    let mut keys: Vec<CellKey> =
        keys.iter().zip(used).filter(|(_, used)| *used).map(|(key, _)| *key).collect();
    let mut used = vec![false; spans.len()];
    for key in &keys {
        if let Place::Block(span) = key.place {
            used[span as usize] = true;
        }
    }
    let places = renumbered(&used);
    for key in &mut keys {
        if let Place::Block(span) = &mut key.place {
            *span = places[*span as usize];
        }
    }
    let spans = spans.iter().zip(used).filter(|(_, used)| *used).map(|(span, _)| span.clone());
    (spans.collect(), keys)
}

/// For each entry that is used, its index among those.
fn renumbered(used: &[bool]) -> Vec<u32> {
    let mut next = 0;
    let number = |&used: &bool| {
        next += u32::from(used);
        next.saturating_sub(1)
    };
    used.iter().map(number).collect()
}
