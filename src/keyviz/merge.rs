//! The contributions of all nodes as one matrix.
//!
//! The state is a map from (column, node, incarnation) to what was counted, and adding to it takes the larger
//! of two entries under one key, by a total order. That makes it a join of a semilattice: associative,
//! commutative and idempotent, so asking a node twice, under two addresses or after a restart
//! changes nothing. Only [`Merge::finish`] adds up: terms and reads add, and of two nodes that claim one
//! (group, term) in a cell the larger claim counts.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::axis::{ColumnPlan, RowAxis};
use super::column_set::ColumnSet;
use super::contribution::{CellKey, ColumnPart, ContributionError, NodeColumns, Source};
use super::ids::{GroupId, Incarnation, NodeId, Term};
use super::label::label;
use super::matrix::{Conflict, Matrix, NodeShare, NodeStatus, RoleTotals, Row};
use super::plan::{PlannedRow, RowKind, RowPlan};
use super::query::{Query, Role};

/// Contributions on their way to a matrix.
#[derive(Clone, Debug)]
pub struct Merge {
    rows: RowPlan,
    axis: RowAxis,
    columns: ColumnPlan,
    keys: Vec<CellKey>,
    index: HashMap<CellKey, u32>,
    nodes: BTreeMap<NodeId, Coverage>,
    parts: BTreeMap<(u32, NodeId, Incarnation), Part>,
}

/// What a node has answered for.
#[derive(Clone, Debug)]
struct Coverage {
    covers: ColumnSet,
    /// The longest memory among its answers.
    forgotten_before_ms: u64,
}

/// One incarnation's counts in a column, with keys of the merge.
#[derive(Clone, Debug)]
struct Part {
    total: u128,
    partial: bool,
    unattributed: u64,
    /// In the order of their keys' meaning, not of their numbers. Shared with the part before where
    /// both have the same, as the columns of a busy node have.
    keys: Arc<[u32]>,
    values: Values,
    apportioned: Vec<u32>,
}

/// Counts, in half of the room where all are small, as nearly all are.
#[derive(Clone, Debug)]
enum Values {
    Small(Box<[u32]>),
    Large(Box<[u64]>),
}

impl Values {
    fn new(values: Vec<u64>) -> Self {
        if values.iter().all(|&value| u32::try_from(value).is_ok()) {
            Values::Small(values.into_iter().map(|value| value as u32).collect())
        } else {
            Values::Large(values.into())
        }
    }

    fn len(&self) -> usize {
        match self {
            Values::Small(values) => values.len(),
            Values::Large(values) => values.len(),
        }
    }

    fn get(&self, index: usize) -> u64 {
        match self {
            Values::Small(values) => u64::from(values[index]),
            Values::Large(values) => values[index],
        }
    }

    fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.len()).map(|index| self.get(index))
    }
}

impl Merge {
    /// Nothing merged yet, on the planned axes.
    pub fn new(rows: RowPlan, columns: ColumnPlan) -> Self {
        Merge {
            axis: rows.axis(),
            rows,
            columns,
            keys: Vec::new(),
            index: HashMap::new(),
            nodes: BTreeMap::new(),
            parts: BTreeMap::new(),
        }
    }

    /// Takes in a contribution or a chunk of one. Errors, and changes nothing, where it does not fit the
    /// axes.
    pub fn add(&mut self, contribution: NodeColumns) -> Result<(), ContributionError> {
        contribution.check(&self.axis, &self.columns)?;
        let NodeColumns { node, covers, forgotten_before_ms, keys, parts, .. } = contribution;
        let coverage = self
            .nodes
            .entry(node)
            .or_insert(Coverage { covers: ColumnSet::new(), forgotten_before_ms });
        coverage.covers.insert(covers);
        coverage.forgotten_before_ms = coverage.forgotten_before_ms.min(forgotten_before_ms);
        let ids: Vec<u32> = keys.into_iter().map(|key| self.id(key)).collect();
        let mut keys_before = Arc::default();
        for part in parts {
            let key = (part.column, node, part.incarnation);
            let part = Part::new(part, &ids, &keys_before);
            keys_before = Arc::clone(&part.keys);
            self.join(key, part);
        }
        Ok(())
    }

    /// As [`Merge::add`]; where the contribution does not fit, its node's status says why.
    pub fn add_or_say_why(&mut self, contribution: NodeColumns, statuses: &mut [NodeStatus]) {
        let node = contribution.node;
        if let Err(error) = self.add(contribution) {
            for status in statuses.iter_mut().filter(|status| status.node == Some(node)) {
                status.ok = false;
                status.error = Some(error.to_string());
            }
        }
    }

    fn id(&mut self, key: CellKey) -> u32 {
        let next = u32::try_from(self.keys.len()).expect("rows times sources fit 32 bits");
        *self.index.entry(key).or_insert_with(|| {
            self.keys.push(key);
            next
        })
    }

    fn join(&mut self, key: (u32, NodeId, Incarnation), part: Part) {
        let Some(mine) = self.parts.get_mut(&key) else {
            self.parts.insert(key, part);
            return;
        };
        if part.compare(mine, &self.keys) == Ordering::Greater {
            *mine = part;
        }
    }

    /// The matrix. `statuses` has one entry for each member asked (or more, by address); a member without a good answer makes
    /// every cell partial, one that broke off those columns that it did not answer for, and one that dropped
    /// old columns for space those.
    pub fn finish(self, query: &Query, mut statuses: Vec<NodeStatus>) -> Matrix {
        statuses.sort();
        statuses.dedup();
        let everywhere = self.missing(&statuses);
        self.tell_what_is_forgotten(&mut statuses);
        let mut sums = Sums::new(&self);
        for (&(column, node, _), part) in &self.parts {
            sums.add(column, node, part, &self.keys);
        }
        let Sums { cells, mut rows, unattributed, conflicts, shares, .. } = sums.finish(&self.keys);
        for row in &mut rows {
            row.partial.insert_all(&everywhere);
        }
        let rows: Vec<Row> = self
            .rows
            .rows()
            .iter()
            .zip(rows)
            .zip(cells)
            .map(|((plan, sum), values)| row(plan, sum, values))
            .collect();
        let (total, overflow) = total(&rows);
        let answered = |status: &&NodeStatus| status.ok;
        Matrix {
            series: query.series,
            role: query.role,
            catalog_version: self.rows.catalog_version(),
            step_ms: self.columns.step_ms(),
            columns: self.columns.columns().to_vec(),
            saturated: overflow || rows.iter().any(|row| row.values.contains(&u64::MAX)),
            rows,
            total,
            unattributed,
            responded: members(statuses.iter().filter(answered)),
            expected: members(statuses.iter()),
            nodes: statuses,
            conflicts,
            by_node: shares,
        }
    }

    fn tell_what_is_forgotten(&self, statuses: &mut [NodeStatus]) {
        let Some(first) = self.columns.columns().first() else { return };
        for status in statuses {
            let Some(coverage) = status.node.and_then(|node| self.nodes.get(&node)) else {
                continue;
            };
            status.forgotten_before_ms = coverage.forgotten_before_ms;
            status.past_history = first.start_ms < coverage.forgotten_before_ms;
        }
    }

    /// Columns in which any cell may miss what a member counted.
    fn missing(&self, statuses: &[NodeStatus]) -> ColumnSet {
        let columns = u32::try_from(self.columns.len()).expect("at most MAX_COLUMNS");
        // Another address of a member that answered is no other member.
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

/// Number of members behind statuses: addresses of one node are one member.
fn members<'a>(statuses: impl Iterator<Item = &'a NodeStatus>) -> u32 {
    let (known, unknown): (Vec<_>, Vec<_>) = statuses.partition(|status| status.node.is_some());
    let known: BTreeSet<_> = known.into_iter().map(|status| status.node).collect();
    u32::try_from(known.len() + unknown.len()).unwrap_or(u32::MAX)
}

impl Part {
    fn new(part: ColumnPart, ids: &[u32], keys_before: &Arc<[u32]>) -> Self {
        let keys = || part.keys.iter().map(|&key| ids[key as usize]);
        let same = keys_before.len() == part.keys.len()
            && keys().zip(keys_before.iter()).all(|(key, before)| key == *before);
        Part {
            keys: if same { Arc::clone(keys_before) } else { keys().collect() },
            total: part.values.iter().map(|&value| u128::from(value)).sum(),
            partial: part.partial,
            unattributed: part.unattributed,
            values: Values::new(part.values),
            apportioned: part.apportioned,
        }
    }

    /// More counted is larger, then complete; what is left decides so that order never does.
    fn compare(&self, other: &Part, keys: &[CellKey]) -> Ordering {
        let cells = |part: &Part| {
            let keys: Vec<CellKey> = part.keys.iter().map(|&key| keys[key as usize]).collect();
            (keys, part.values.iter().collect::<Vec<u64>>())
        };
        (self.total, self.unattributed, !self.partial)
            .cmp(&(other.total, other.unattributed, !other.partial))
            .then_with(|| cells(self).cmp(&cells(other)))
            .then_with(|| other.apportioned.cmp(&self.apportioned))
    }
}

/// The cells of all columns; columns come one after the other, and in them nodes.
struct Sums {
    /// By row, then column.
    cells: Vec<Vec<u64>>,
    rows: Vec<RowSum>,
    unattributed: u64,
    conflicts: Vec<Conflict>,
    contested: BTreeMap<(GroupId, Term), BTreeSet<NodeId>>,
    /// By node, ascending.
    shares: Vec<NodeShare>,
    column: u32,
    /// By key: claims on the column at hand.
    claims: Vec<Claim>,
    claimed: Vec<u32>,
}

#[derive(Clone, Default)]
struct RowSum {
    roles: RoleTotals,
    apportioned: ColumnSet,
    partial: ColumnSet,
    conflict: ColumnSet,
}

/// What nodes claim to have led in one (row, group, term) of the column at hand.
#[derive(Clone, Default)]
struct Claim {
    /// Index of the node that claimed last.
    share: Option<usize>,
    /// What it claims.
    current: u64,
    /// The largest claim of the others, and whose it is.
    best: (u64, usize),
}

impl Claim {
    /// The larger of the last claim, which is that of `share`, and the best before it.
    fn larger(&self, share: usize) -> (u64, usize) {
        if self.current > self.best.0 { (self.current, share) } else { self.best }
    }
}

impl NodeShare {
    fn none(node: NodeId, rows: usize) -> Self {
        let roles = RoleTotals::default();
        NodeShare { node, total: 0, roles, rows: vec![0; rows], unattributed: 0 }
    }
}

impl Sums {
    fn new(merge: &Merge) -> Self {
        let (rows, columns) = (merge.rows.rows().len(), merge.columns.len());
        Sums {
            cells: vec![vec![0; columns]; rows],
            rows: vec![RowSum::default(); rows],
            unattributed: 0,
            conflicts: Vec::new(),
            contested: BTreeMap::new(),
            shares: merge.nodes.keys().map(|&node| NodeShare::none(node, rows)).collect(),
            column: 0,
            claims: vec![Claim::default(); merge.keys.len()],
            claimed: Vec::new(),
        }
    }

    fn add(&mut self, column: u32, node: NodeId, part: &Part, keys: &[CellKey]) {
        if column != self.column {
            self.settle(keys);
            self.column = column;
        }
        let share = self.shares.partition_point(|share| share.node < node);
        self.unattributed = self.unattributed.saturating_add(part.unattributed);
        let lost = &mut self.shares[share].unattributed;
        *lost = lost.saturating_add(part.unattributed);
        if part.partial {
            self.rows.iter_mut().for_each(|row| row.partial.insert(column..column + 1));
        }
        for &row in &part.apportioned {
            self.rows[row as usize].apportioned.insert(column..column + 1);
        }
        for (&id, value) in part.keys.iter().zip(part.values.iter()) {
            let key = &keys[id as usize];
            let role = match key.source {
                Source::LeaderWrite { group, term: Some(term) } => {
                    self.claim(id, key, (group, term), share, value);
                    continue;
                }
                Source::LeaderWrite { term: None, .. } => Role::LeaderWrite,
                Source::LeaderRead => Role::LeaderRead,
                Source::FollowerRead => Role::FollowerRead,
            };
            self.count(key.row, role, share, value);
        }
    }

    fn count(&mut self, row: u32, role: Role, share: usize, value: u64) {
        let cell = &mut self.cells[row as usize][self.column as usize];
        *cell = cell.saturating_add(value);
        self.rows[row as usize].roles.add(role, value);
        let share = &mut self.shares[share];
        share.total = share.total.saturating_add(value);
        share.rows[row as usize] = share.rows[row as usize].saturating_add(value);
        share.roles.add(role, value);
    }

    fn claim(&mut self, id: u32, key: &CellKey, led: (GroupId, Term), share: usize, value: u64) {
        let claim = &mut self.claims[id as usize];
        match claim.share {
            None => self.claimed.push(id),
            Some(other) if other == share => {}
            Some(other) => {
                claim.best = claim.larger(other);
                claim.current = 0;
                self.rows[key.row as usize].conflict.insert(self.column..self.column + 1);
                let nodes = [other, share].map(|index| self.shares[index].node);
                self.contested.entry(led).or_default().extend(nodes);
            }
        }
        claim.share = Some(share);
        claim.current = claim.current.saturating_add(value);
    }

    /// Counts what was claimed in the column at hand.
    fn settle(&mut self, keys: &[CellKey]) {
        for id in std::mem::take(&mut self.claimed) {
            let claim = std::mem::take(&mut self.claims[id as usize]);
            let (value, share) = claim.larger(claim.share.expect("a claim has a claimant"));
            self.count(keys[id as usize].row, Role::LeaderWrite, share, value);
        }
    }

    fn finish(mut self, keys: &[CellKey]) -> Self {
        self.settle(keys);
        let contested = std::mem::take(&mut self.contested);
        let conflict = |((group, term), nodes): (_, BTreeSet<_>)| Conflict {
            group,
            term,
            nodes: nodes.into_iter().collect(),
        };
        self.conflicts = contested.into_iter().map(conflict).collect();
        self
    }
}

fn row(plan: &PlannedRow, sum: RowSum, values: Vec<u64>) -> Row {
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
        values,
        apportioned: sum.apportioned,
        partial: sum.partial,
        conflict: sum.conflict,
    }
}

/// The sum of all values, and whether it is only a lower bound.
fn total(rows: &[Row]) -> (u64, bool) {
    let sum: u128 = rows.iter().flat_map(|row| &row.values).map(|&value| u128::from(value)).sum();
    match u64::try_from(sum) {
        Ok(total) => (total, false),
        Err(_) => (u64::MAX, true),
    }
}

/// Merges contributions to one matrix. A contribution that does not fit the axes is left out, and its
/// node's status says why.
pub fn merge(
    rows: RowPlan,
    columns: ColumnPlan,
    query: &Query,
    contributions: Vec<NodeColumns>,
    mut statuses: Vec<NodeStatus>,
) -> Matrix {
    let mut merge = Merge::new(rows, columns);
    for contribution in contributions {
        merge.add_or_say_why(contribution, &mut statuses);
    }
    merge.finish(query, statuses)
}
