//! Merges the contributions of all nodes into one matrix.
//!
//! The state is a map from (node, incarnation, column, holder) to counts. Adding an entry under an
//! existing key keeps the larger of the two by a total order. The state is therefore a join
//! semilattice (associative, commutative, idempotent: a state-based CRDT, Shapiro et al., 2011),
//! and asking a node twice, under two addresses or after a restart changes nothing. Only
//! [`Merge::finish`] adds up: of several holders of the same columns one is used (see
//! [`super::holders`]), terms and reads are added, and of several nodes that claim one (group,
//! term) in a cell the larger claim is used. Until then, contributions stay packed as they were
//! sent.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::blocks::blocks;
use super::holders::chosen;
use super::label::label;
use super::part::{Claimants, Part, PartKey};
use super::sums::{MatrixSums, RowSum, Summed};
use super::{Matrix, NodeStatus, Row, SourceCount, SourceCounts};
use crate::query::Query;
use crate::query::axis::{ColumnPlan, RowAxis};
use crate::query::block::BlockSpan;
use crate::query::column_set::ColumnSet;
use crate::query::contribution::{CellKey, ContributionError, NodeColumns, Place};
use crate::query::row_plan::{PlannedRow, RowKind, RowPlan};
use crate::wire::{CheckedColumns, PackedCells, PackedColumns};
use keyviz_types::NodeId;

/// A merge in progress.
#[derive(Clone, Debug)]
pub struct Merge {
    rows: RowPlan,
    axis: RowAxis,
    columns: ColumnPlan,
    spans: Vec<BlockSpan>,
    span_index: HashMap<BlockSpan, u32>,
    keys: Vec<CellKey>,
    index: HashMap<CellKey, u32>,
    claimants: Vec<Claimants>,
    nodes: BTreeMap<NodeId, Coverage>,
    parts: BTreeMap<PartKey, Part>,
}

/// The columns that a node has answered for.
#[derive(Clone, Debug)]
struct Coverage {
    /// Those for which an answer has everything that the node counted.
    covers: ColumnSet,
    /// The members that answered for it: the node itself, or those that keep its columns.
    held_by: BTreeSet<NodeId>,
    /// The smallest value in its answers: the one of the holder that kept most.
    forgotten_before_ms: u64,
}

impl Merge {
    /// An empty merge on the planned axes.
    pub fn new(rows: RowPlan, columns: ColumnPlan) -> Self {
        Merge {
            axis: rows.axis(),
            rows,
            columns,
            spans: Vec::new(),
            span_index: HashMap::new(),
            keys: Vec::new(),
            index: HashMap::new(),
            claimants: Vec::new(),
            nodes: BTreeMap::new(),
            parts: BTreeMap::new(),
        }
    }

    /// Adds a contribution or a chunk of one.
    ///
    /// # Errors
    /// It does not fit the axes; the merge is unchanged.
    pub fn add(&mut self, contribution: NodeColumns) -> Result<(), ContributionError> {
        contribution.check(&self.axis, &self.columns)?;
        let packed = PackedColumns::from(contribution);
        self.add_checked(packed.checked(&self.axis, &self.columns)?)
    }

    /// As [`Merge::add`], for a contribution that was checked before.
    ///
    /// # Errors
    /// It was checked for axes of another size; the merge is unchanged.
    pub fn add_checked(&mut self, contribution: CheckedColumns) -> Result<(), ContributionError> {
        let (contribution, axes) = contribution.into_inner();
        let columns = self.columns.len();
        if axes != (self.axis.len(), columns) {
            let (from, to) = (contribution.covers.start, contribution.covers.end);
            return Err(ContributionError::Covers { from, to, columns });
        }
        let NodeColumns { node, held_by, covers, incomplete, forgotten_before_ms, .. } =
            &contribution;
        let (node, held_by, forgotten_before_ms) = (*node, *held_by, *forgotten_before_ms);
        let coverage = self.nodes.entry(node).or_insert_with(|| Coverage {
            covers: ColumnSet::new(),
            held_by: BTreeSet::new(),
            forgotten_before_ms,
        });
        let complete = incomplete.missing(covers.end).intersection(covers.clone());
        coverage.covers.insert_all(&complete);
        let NodeColumns { spans, keys, parts, .. } = contribution;
        coverage.held_by.insert(held_by);
        coverage.forgotten_before_ms = coverage.forgotten_before_ms.min(forgotten_before_ms);
        let spans: Vec<u32> = spans.into_iter().map(|span| self.span(span)).collect();
        let placed = |key: CellKey| match key.place {
            Place::Row(_) => key,
            Place::Block(span) => CellKey { place: Place::Block(spans[span as usize]), ..key },
        };
        let table: Arc<[u32]> = keys.into_iter().map(|key| self.id(placed(key), node)).collect();
        let mut before: Option<(PackedCells, u32)> = None;
        for part in parts {
            let incarnation = part.incarnation;
            let key = PartKey { node, incarnation, column: part.column, held_by };
            let part = Part::new(part, &table);
            let columns = match &before {
                Some((cells, columns)) if part.cells.has_keys_of(cells) => *columns,
                _ => self.longest(&part),
            };
            before = Some((part.cells.clone(), columns));
            self.join(key, Part { columns, ..part });
        }
        Ok(())
    }

    /// As [`Merge::add`]; if the contribution does not fit, the status of its node gets the error.
    pub fn add_or_report(&mut self, contribution: NodeColumns, statuses: &mut [NodeStatus]) {
        let node = contribution.node;
        if let Err(error) = self.add(contribution) {
            for status in statuses.iter_mut().filter(|status| status.node == Some(node)) {
                status.ok = false;
                status.error = Some(error.to_string());
            }
        }
    }

    fn span(&mut self, span: BlockSpan) -> u32 {
        let next = u32::try_from(self.spans.len()).expect("spans are bounded a contribution");
        *self.span_index.entry(span).or_insert_with_key(|span| {
            self.spans.push(span.clone());
            next
        })
    }

    fn id(&mut self, key: CellKey, node: NodeId) -> u32 {
        let next = u32::try_from(self.keys.len()).expect("rows times sources fit 32 bits");
        let id = *self.index.entry(key).or_insert_with(|| {
            self.keys.push(key);
            self.claimants.push(Claimants::One(node));
            next
        });
        let claimants = &mut self.claimants[id as usize];
        if *claimants != Claimants::One(node) {
            *claimants = Claimants::Several;
        }
        id
    }

    /// The number of columns of the longest block of a part.
    fn longest(&self, part: &Part) -> u32 {
        if self.spans.is_empty() {
            return 1;
        }
        let columns = |key: u32| match self.keys[key as usize].place {
            Place::Row(_) => 1,
            Place::Block(span) => self.spans[span as usize].columns,
        };
        part.keys().into_iter().map(columns).max().unwrap_or(1)
    }

    fn join(&mut self, key: PartKey, part: Part) {
        let Some(mine) = self.parts.get_mut(&key) else {
            self.parts.insert(key, part);
            return;
        };
        if part.compare(mine, &self.keys, &self.spans) == Ordering::Greater {
            *mine = part;
        }
    }

    /// Makes the matrix. `statuses` has one entry for each member or address that was asked. A
    /// member without a good answer makes every cell partial; an incomplete answer, the columns
    /// that it does not cover; and a member that dropped old columns for space, these columns.
    pub fn finish(self, query: &Query, mut statuses: Vec<NodeStatus>) -> Matrix {
        statuses.sort();
        statuses.dedup();
        let everywhere = self.missing(&statuses);
        self.set_forgotten(query, &mut statuses);
        let summed = self.sums().finish();
        let Summed { rows, mut partial, unattributed, conflicts, shares, .. } = summed;
        let blocks = blocks(summed.blocks, &self.spans, &self.axis);
        partial.insert_all(&everywhere);
        let planned = self.rows.rows().iter().zip(rows);
        let rows: Vec<Row> = planned.map(|(plan, sum)| row(plan, sum, &partial)).collect();
        let of_blocks = |straddling: bool| {
            let of_kind = blocks.iter().filter(move |block| block.straddling == straddling);
            of_kind.map(|block| u128::from(block.value)).sum::<u128>()
        };
        let (total, overflow) = saturated(sum(&rows) + of_blocks(false));
        let (straddling_total, straddling_overflow) = saturated(of_blocks(true));
        let full = |value: &u64| *value == u64::MAX;
        let answered = |status: &&NodeStatus| status.ok;
        Matrix {
            series: query.series,
            role: query.role,
            catalog_version: self.rows.catalog_version(),
            step_ms: self.columns.step_ms(),
            columns: self.columns.columns().to_vec(),
            saturated: overflow
                || straddling_overflow
                || rows.iter().any(|row| row.values.iter().any(full))
                || blocks.iter().any(|block| full(&block.value)),
            rows,
            blocks,
            total,
            straddling_total,
            axis_id: self.axis.id(),
            axis_gain: self.rows.gain(),
            unattributed,
            responded: members(statuses.iter().filter(answered)),
            expected: members(statuses.iter()),
            nodes: statuses,
            conflicts,
            by_node: shares,
        }
    }

    /// What each node counted in each place, by group and term, as far as it is used: of several
    /// holders of the same columns one speaks. Entries of the same node and key, which are of
    /// several incarnations, add up; of a conflict all claims are listed.
    pub fn sources(&self) -> SourceCounts {
        let mut counts = Vec::new();
        for (key, part) in chosen(&self.parts) {
            let (node, column) = (key.node, key.column);
            let keys = part.keys();
            let mut keys = keys.iter().map(|&key| self.keys[key as usize]);
            part.values(|values| {
                let each = values.iter().zip(&mut keys);
                counts.extend(each.map(|(&value, key)| SourceCount { node, column, key, value }));
            });
        }
        let spans = self.spans.iter().map(|span| (span.clone(), span.straddles(&self.axis)));
        SourceCounts { counts, spans: spans.collect() }
    }

    fn sums(&self) -> MatrixSums<'_> {
        let size = (self.rows.rows().len(), self.columns.len());
        let straddles = self.spans.iter().map(|span| span.straddles(&self.axis)).collect();
        let nodes = self.nodes.keys().copied();
        let mut sums = MatrixSums::new(size, &self.keys, straddles, &self.claimants, nodes);
        for (key, part) in chosen(&self.parts) {
            sums.add(key.node, key.column, part);
        }
        sums
    }

    /// Sets for each member until when it, or a node whose columns it keeps, has dropped columns.
    /// They are compared with the window of the query, not with the columns, which begin where any
    /// member has one.
    fn set_forgotten(&self, query: &Query, statuses: &mut [NodeStatus]) {
        let from_ms = query.window.from_ms;
        let first = self.columns.columns().first().map_or(from_ms, |first| first.start_ms);
        for status in statuses {
            let Some(node) = status.node else { continue };
            let held = self.nodes.values().filter(|coverage| coverage.held_by.contains(&node));
            let forgotten = held.map(|coverage| coverage.forgotten_before_ms).max();
            status.forgotten_before_ms = forgotten.unwrap_or(0);
            status.past_history = first.min(from_ms) < status.forgotten_before_ms;
        }
    }

    /// The columns in which cells may lack the counts of a member.
    fn missing(&self, statuses: &[NodeStatus]) -> ColumnSet {
        let columns = u32::try_from(self.columns.len()).expect("at most MAX_COLUMNS");
        // A second address of a member that answered is not another member.
        let answered = |node: NodeId| self.nodes.contains_key(&node);
        if !statuses.iter().all(|status| status.node.is_some_and(answered)) {
            return ColumnSet::of(0..columns);
        }
        let mut missing = ColumnSet::new();
        for coverage in self.nodes.values() {
            missing.insert_all(&coverage.covers.missing(columns));
            let forgotten = coverage.forgotten_before_ms;
            let kept = self.columns.columns().partition_point(|c| c.start_ms < forgotten);
            missing.insert(0..u32::try_from(kept).expect("at most MAX_COLUMNS"));
        }
        missing
    }
}

/// The number of distinct members: several addresses of one node are one member.
fn members<'a>(statuses: impl Iterator<Item = &'a NodeStatus>) -> u32 {
    let (known, unknown): (Vec<_>, Vec<_>) = statuses.partition(|status| status.node.is_some());
    let known: BTreeSet<_> = known.into_iter().map(|status| status.node).collect();
    u32::try_from(known.len() + unknown.len()).unwrap_or(u32::MAX)
}

fn row(plan: &PlannedRow, sum: RowSum, partial: &ColumnSet) -> Row {
    Row {
        bucket_id: plan.kind.bucket_id(),
        label: label(&plan.range.start),
        range: plan.range.clone(),
        aggregate: matches!(plan.kind, RowKind::Virtual { .. }),
        route_ids_truncated: (plan.route_ids.len() as u64) < plan.route_count,
        route_ids: plan.route_ids.clone(),
        route_count: plan.route_count,
        roles: sum.roles,
        group: plan.group,
        values: sum.values,
        apportioned: sum.apportioned,
        partial: partial.clone(),
        conflict: sum.conflict,
    }
}

/// The sum of all values.
fn sum(rows: &[Row]) -> u128 {
    rows.iter().flat_map(|row| &row.values).map(|&value| u128::from(value)).sum()
}

/// The sum in 64 bits, and whether it is only a lower bound.
fn saturated(sum: u128) -> (u64, bool) {
    u64::try_from(sum).map_or((u64::MAX, true), |sum| (sum, false))
}

/// Merges contributions into one matrix. A contribution that does not fit the axes is left out, and
/// the status of its node gets the error.
pub fn merge(
    rows: RowPlan,
    columns: ColumnPlan,
    query: &Query,
    contributions: Vec<NodeColumns>,
    mut statuses: Vec<NodeStatus>,
) -> Matrix {
    let mut merge = Merge::new(rows, columns);
    for contribution in contributions {
        merge.add_or_report(contribution, &mut statuses);
    }
    merge.finish(query, statuses)
}
