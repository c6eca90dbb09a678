//! Adds up the parts of a merge.
//!
//! Parts are added node by node, and column by column within a node. Nearly every key belongs to
//! one node only, or counts reads, which are added: its cells go into two sums, that of the cell
//! and that of the node. If several nodes have one (place, group, term), they claim the same
//! writes, and the larger claim of each column is used. Those cells are set aside until all parts
//! are in, and then decided column by column.
//!
//! All sums saturate. Counts are never negative, so the result is the true sum or the maximum,
//! whatever the order of additions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::part::{Claimants, Part};
use super::{Conflict, NodeShare, RoleTotals};
use crate::query::Role;
use crate::query::column_set::ColumnSet;
use crate::query::contribution::{CellKey, Place, Source};
use crate::wire::PackedCells;
use keyviz_types::{GroupId, NodeId, Term};

/// The sums of all parts.
pub(crate) struct Summed {
    pub rows: Vec<RowSum>,
    /// Counts in no row. A span and column may occur several times.
    pub blocks: Vec<BlockCell>,
    /// Columns of which a part may lack counts.
    pub partial: ColumnSet,
    pub unattributed: u64,
    pub conflicts: Vec<Conflict>,
    /// By node, ascending.
    pub shares: Vec<NodeShare>,
}

/// The sums of a row.
#[derive(Clone, Default)]
pub(crate) struct RowSum {
    /// By column.
    pub values: Vec<u64>,
    pub roles: RoleTotals,
    pub apportioned: ColumnSet,
    pub conflict: ColumnSet,
}

/// A count in a block.
pub(crate) struct BlockCell {
    pub column: u32,
    /// The number of the span in the merge.
    pub span: u32,
    pub role: Role,
    pub value: u64,
    /// Several nodes claim the same writes.
    pub conflict: bool,
}

/// Adds parts up.
pub(crate) struct MatrixSums<'a> {
    keys: &'a [CellKey],
    /// For each span, whether it reaches beyond the axes.
    straddles: Vec<bool>,
    claimants: &'a [Claimants],
    /// By column, then row.
    cells: Vec<u64>,
    rows: Vec<RowSum>,
    blocks: Vec<BlockCell>,
    partial: ColumnSet,
    unattributed: u64,
    shares: Vec<ShareSum>,
    /// The sums of the latest parts, which have the same keys.
    run: Option<SameKeys<'a>>,
    /// Parts with keys that several nodes claim: column, index of the share, part.
    contested: Vec<(u32, usize, &'a Part)>,
}

/// The sums of one node.
struct ShareSum {
    node: NodeId,
    unattributed: u64,
    /// By row.
    rows: Vec<RoleTotals>,
    /// In blocks inside the axes, and in those that straddle.
    inside: RoleTotals,
    straddling: RoleTotals,
}

/// The sums of consecutive parts of a node that have the same keys.
struct SameKeys<'a> {
    share: usize,
    table: &'a Arc<[u32]>,
    cells: &'a PackedCells,
    keys: Vec<u32>,
    /// The row of each key. A key of a block, or one that several nodes claim, has the extra row
    /// after all others.
    rows: Vec<u32>,
    contested: bool,
    /// The keys of blocks that only one node claims: index, span and role.
    blocks: Vec<(usize, u32, Role)>,
    /// Sum of each key.
    sums: Vec<u64>,
}

impl<'a> MatrixSums<'a> {
    /// Empty sums of so many rows and columns, with the keys of the merge, the claimants of each,
    /// which spans straddle, and the nodes in ascending order.
    pub fn new(
        (rows, columns): (usize, usize),
        keys: &'a [CellKey],
        straddles: Vec<bool>,
        claimants: &'a [Claimants],
        nodes: impl Iterator<Item = NodeId>,
    ) -> Self {
        let share = |node| ShareSum {
            node,
            unattributed: 0,
            rows: vec![RoleTotals::default(); rows],
            inside: RoleTotals::default(),
            straddling: RoleTotals::default(),
        };
        MatrixSums {
            keys,
            straddles,
            claimants,
            // One extra row for the cells that are set aside.
            cells: vec![0; (rows + 1) * columns],
            rows: vec![RowSum::default(); rows],
            blocks: Vec::new(),
            partial: ColumnSet::new(),
            unattributed: 0,
            shares: nodes.map(share).collect(),
            run: None,
            contested: Vec::new(),
        }
    }

    /// Adds one incarnation's part in a column. It is cheapest node by node, and column by column
    /// within a node.
    pub fn add(&mut self, node: NodeId, column: u32, part: &'a Part) {
        let share = self.shares.partition_point(|share| share.node < node);
        self.unattributed = self.unattributed.saturating_add(part.unattributed);
        let lost = &mut self.shares[share].unattributed;
        *lost = lost.saturating_add(part.unattributed);
        if part.partial {
            self.partial.insert(column..column + 1);
        }
        for &row in &part.apportioned {
            self.rows[row as usize].apportioned.insert(column..column + 1);
        }
        self.begin_or_continue(share, part);
        let run = self.run.as_mut().expect("begin_or_continue sets it");
        let mut sums = run.sums.iter_mut().zip(&run.rows);
        let height = self.rows.len() + 1;
        let cells = &mut self.cells[column as usize * height..][..height];
        let (mut blocks, mut before) = (run.blocks.iter().peekable(), 0);
        part.values(|values| {
            for (&value, (sum, &row)) in values.iter().zip(&mut sums) {
                *sum = sum.saturating_add(value);
                let cell = &mut cells[row as usize];
                *cell = cell.saturating_add(value);
            }
            let reached = before + values.len();
            while let Some(&(at, span, role)) = blocks.next_if(|(at, _, _)| *at < reached) {
                let (value, conflict) = (values[at - before], false);
                self.blocks.push(BlockCell { column, span, role, value, conflict });
            }
            before = reached;
        });
        if run.contested {
            self.contested.push((column, share, part));
        }
    }

    /// Continues the current run, or begins the one that a part belongs to.
    fn begin_or_continue(&mut self, share: usize, part: &'a Part) {
        let continues = |run: &SameKeys<'_>| {
            run.share == share
                && Arc::ptr_eq(run.table, &part.table)
                && run.cells.has_keys_of(&part.cells)
        };
        if self.run.as_ref().is_some_and(continues) {
            return;
        }
        self.settle();
        let aside = self.rows.len() as u32;
        let keys = part.keys();
        let (mut rows, mut blocks) = (Vec::with_capacity(keys.len()), Vec::new());
        let mut contested = false;
        for (index, &key) in keys.iter().enumerate() {
            let CellKey { place, source } = self.keys[key as usize];
            let several = self.claimants[key as usize] == Claimants::Several;
            rows.push(match place {
                _ if several && claimed(source).is_some() => {
                    contested = true;
                    aside
                }
                Place::Row(row) => row,
                Place::Block(span) => {
                    blocks.push((index, span, role(source)));
                    aside
                }
            });
        }
        let sums = vec![0; keys.len()];
        let (table, cells) = (&part.table, &part.cells);
        self.run = Some(SameKeys { share, table, cells, keys, rows, contested, blocks, sums });
    }

    /// Adds the current run to the share of its node.
    fn settle(&mut self) {
        let Some(run) = self.run.take() else { return };
        let aside = self.rows.len();
        let share = &mut self.shares[run.share];
        for ((&key, &row), &sum) in run.keys.iter().zip(&run.rows).zip(&run.sums) {
            if (row as usize) < aside {
                share.rows[row as usize].add(role(self.keys[key as usize].source), sum);
            }
        }
        for (index, span, role) in run.blocks {
            share.add_block(self.straddles[span as usize], role, run.sums[index]);
        }
    }

    /// The sums of all parts.
    pub fn finish(mut self) -> Summed {
        self.settle();
        let conflicts = Contest::new(&mut self).settled();
        let height = self.rows.len() + 1;
        for (index, row) in self.rows.iter_mut().enumerate() {
            row.values = self.cells.chunks_exact(height).map(|column| column[index]).collect();
            for role in Role::ALL {
                let of_nodes = self.shares.iter().map(|share| share.rows[index].get(role));
                row.roles.add(role, of_nodes.fold(0, u64::saturating_add));
            }
        }
        let (rows, blocks, partial) = (self.rows, self.blocks, self.partial);
        let unattributed = self.unattributed;
        let shares = self.shares.into_iter().map(ShareSum::finish).collect();
        Summed { rows, blocks, partial, unattributed, conflicts, shares }
    }
}

impl ShareSum {
    fn add_block(&mut self, straddles: bool, role: Role, value: u64) {
        if straddles { &mut self.straddling } else { &mut self.inside }.add(role, value);
    }

    fn finish(self) -> NodeShare {
        let mut roles = self.inside;
        let of_row = |row: &RoleTotals| {
            let each = Role::ALL.map(|role| (role, row.get(role)));
            each.iter().for_each(|&(role, value)| roles.add(role, value));
            each.iter().fold(0u64, |sum, &(_, value)| sum.saturating_add(value))
        };
        let rows: Vec<u64> = self.rows.iter().map(of_row).collect();
        let sum = |roles: RoleTotals| {
            Role::ALL.iter().fold(0, |sum: u64, &role| sum.saturating_add(roles.get(role)))
        };
        let (blocks, straddling) = (sum(self.inside), sum(self.straddling));
        let total = rows.iter().fold(blocks, |sum, &value| sum.saturating_add(value));
        let ShareSum { node, unattributed, .. } = self;
        NodeShare { node, total, roles, rows, blocks, straddling, unattributed }
    }
}

/// The group and term whose writes a key claims.
fn claimed(source: Source) -> Option<(GroupId, Term)> {
    match source {
        Source::LeaderWrite { group, term: Some(term) } => Some((group, term)),
        Source::LeaderWrite { term: None, .. } | Source::LeaderRead | Source::FollowerRead => None,
    }
}

fn role(source: Source) -> Role {
    match source {
        Source::LeaderWrite { .. } => Role::LeaderWrite,
        Source::LeaderRead => Role::LeaderRead,
        Source::FollowerRead => Role::FollowerRead,
    }
}

/// Decides between the claims of several nodes, column by column.
struct Contest<'s, 'a> {
    sums: &'s mut MatrixSums<'a>,
    contested: BTreeMap<(GroupId, Term), BTreeSet<NodeId>>,
    /// By key: the claims in the current column.
    claims: BTreeMap<u32, Claim>,
}

/// The claims to one (place, group, term) in the current column.
struct Claim {
    /// The index of the node that claimed last.
    share: usize,
    /// Its claim.
    current: u64,
    /// The largest claim of the nodes before it, and the index of that node.
    best: (u64, usize),
    /// Several nodes claim it.
    several: bool,
}

impl Claim {
    /// The larger of the last claim and the best before it.
    fn larger(&self) -> (u64, usize) {
        if self.current > self.best.0 { (self.current, self.share) } else { self.best }
    }
}

impl<'s, 'a> Contest<'s, 'a> {
    fn new(sums: &'s mut MatrixSums<'a>) -> Self {
        Contest { sums, contested: BTreeMap::new(), claims: BTreeMap::new() }
    }

    /// Counts the larger claim of each cell, and returns the nodes that conflict.
    fn settled(mut self) -> Vec<Conflict> {
        let mut parts = std::mem::take(&mut self.sums.contested);
        // A stable sort: the incarnations of one node stay in order.
        parts.sort_by_key(|&(column, share, _)| (column, share));
        for (index, &(column, share, part)) in parts.iter().enumerate() {
            self.part(column, share, part);
            if parts.get(index + 1).is_none_or(|&(next, _, _)| next != column) {
                self.settle(column);
            }
        }
        let conflict = |((group, term), nodes): (_, BTreeSet<_>)| Conflict {
            group,
            term,
            nodes: nodes.into_iter().collect(),
        };
        self.contested.into_iter().map(conflict).collect()
    }

    fn part(&mut self, column: u32, share: usize, part: &Part) {
        let keys = part.keys();
        let mut keys = keys.iter();
        part.values(|values| {
            for (&value, &id) in values.iter().zip(&mut keys) {
                let several = self.sums.claimants[id as usize] == Claimants::Several;
                let led = claimed(self.sums.keys[id as usize].source);
                if let (true, Some(led)) = (several, led) {
                    self.claim(id, led, column, share, value);
                }
            }
        });
    }

    fn claim(&mut self, id: u32, led: (GroupId, Term), column: u32, share: usize, value: u64) {
        let first = Claim { share, current: 0, best: (0, share), several: false };
        let claim = self.claims.entry(id).or_insert(first);
        if claim.share != share {
            claim.several = true;
            if let Place::Row(row) = self.sums.keys[id as usize].place {
                self.sums.rows[row as usize].conflict.insert(column..column + 1);
            }
            let nodes = [claim.share, share].map(|index| self.sums.shares[index].node);
            self.contested.entry(led).or_default().extend(nodes);
            (claim.best, claim.share, claim.current) = (claim.larger(), share, 0);
        }
        claim.current = claim.current.saturating_add(value);
    }

    /// Counts the larger claims of the current column.
    fn settle(&mut self, column: u32) {
        let height = self.sums.rows.len() + 1;
        for (id, claim) in std::mem::take(&mut self.claims) {
            let (value, share) = claim.larger();
            match self.sums.keys[id as usize].place {
                Place::Row(row) => {
                    let row = row as usize;
                    let cell = &mut self.sums.cells[column as usize * height + row];
                    *cell = cell.saturating_add(value);
                    self.sums.shares[share].rows[row].add(Role::LeaderWrite, value);
                }
                Place::Block(span) => {
                    let (role, conflict) = (Role::LeaderWrite, claim.several);
                    self.sums.blocks.push(BlockCell { column, span, role, value, conflict });
                    let straddles = self.sums.straddles[span as usize];
                    self.sums.shares[share].add_block(straddles, role, value);
                }
            }
        }
    }
}
