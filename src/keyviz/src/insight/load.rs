//! What is asked about: counts by range and time, and where the ranges are served.

use bytes::Bytes;

use super::keyspace::widths;
use crate::matrix::{Matrix, Row};
use crate::query::{ColumnSet, ColumnSpan, Role};
use crate::sampler::Series;
use keyviz_types::{GroupId, KeyRange, NodeId, RouteSpec};

/// Most rows of a load.
pub const MAX_LOAD_ROWS: usize = 1_025;
/// Most columns of a load.
pub const MAX_LOAD_COLUMNS: usize = 2_048;
/// Most named keys that are looked at: the hottest.
pub const MAX_NAMED_KEYS: usize = 1_000;

/// Counts by key range and time. A node fills it from its own history, a cluster from its merged
/// matrices.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Load {
    /// Oldest first, without overlap.
    pub columns: Vec<ColumnSpan>,
    /// Columns that may miss counts.
    pub partial: ColumnSet,
    /// In key order, without overlap.
    pub rows: Vec<LoadRow>,
}

/// The counts of one key range, by column. A list that is empty is not known and counts as zero.
#[derive(Clone, PartialEq, Debug)]
pub struct LoadRow {
    /// Keys.
    pub range: KeyRange,
    /// The group that serves them; `None`: several, or that of the topology's routes.
    pub group: Option<GroupId>,
    /// Reads served, by any replica.
    pub reads: Vec<u64>,
    /// Those of them that followers served.
    pub follower_reads: Vec<u64>,
    /// Writes proposed.
    pub writes: Vec<u64>,
    /// Bytes of the reads.
    pub read_bytes: Vec<u64>,
    /// Bytes of the writes.
    pub write_bytes: Vec<u64>,
    /// Compare-and-swaps that failed because the value had changed.
    pub conflicts: Vec<u64>,
}

impl LoadRow {
    /// A row of which nothing is known.
    pub fn new(range: KeyRange) -> Self {
        LoadRow {
            range,
            group: None,
            reads: Vec::new(),
            follower_reads: Vec::new(),
            writes: Vec::new(),
            read_bytes: Vec::new(),
            write_bytes: Vec::new(),
            conflicts: Vec::new(),
        }
    }

    /// All counts.
    pub(super) fn lists_mut(&mut self) -> [&mut Vec<u64>; 6] {
        let LoadRow { reads, follower_reads, writes, read_bytes, write_bytes, conflicts, .. } =
            self;
        [reads, follower_reads, writes, read_bytes, write_bytes, conflicts]
    }
}

/// A key with a name of its own, and bounds of its count in the time of the load.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedKey {
    /// The key.
    pub key: Bytes,
    /// Reads or writes.
    pub series: Series,
    /// It had at least so many operations.
    pub lower: u64,
    /// And at most so many.
    pub upper: u64,
    /// Operations for certain, by column of the load; empty where only the sum is known.
    pub values: Vec<u64>,
}

/// Where ranges are served.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Topology {
    /// The members that can serve.
    pub nodes: Vec<NodeId>,
    /// The groups that hold data.
    pub groups: Vec<GroupPlace>,
    /// In key order; may be empty, and then nothing is said of routes.
    pub routes: Vec<RouteSpec>,
}

/// Where one group is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupPlace {
    /// The group.
    pub group: GroupId,
    /// The node that leads it, if one does.
    pub leader: Option<NodeId>,
    /// The nodes that hold a replica, the leader too.
    pub replicas: Vec<NodeId>,
}

impl Topology {
    /// The place of a group.
    pub fn place(&self, group: GroupId) -> Option<&GroupPlace> {
        self.groups.iter().find(|place| place.group == group)
    }

    /// The group of a range that lies in one route.
    pub(super) fn group_of(&self, range: &KeyRange) -> Option<GroupId> {
        let at = self.routes.partition_point(|route| route.range.start <= range.start);
        let route = self.routes.get(at.checked_sub(1)?)?;
        within(range, &route.range).then_some(route.group)
    }
}

/// Whether all keys of `inner` are in `outer`.
pub(crate) fn within(inner: &KeyRange, outer: &KeyRange) -> bool {
    let ends = match (&inner.end, &outer.end) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(inner), Some(outer)) => inner <= outer,
    };
    outer.start <= inner.start && ends
}

/// Whether two ranges share keys.
pub(crate) fn overlap(left: &KeyRange, right: &KeyRange) -> bool {
    let before = |a: &KeyRange, b: &KeyRange| a.end.as_ref().is_some_and(|end| *end <= b.start);
    !before(left, right) && !before(right, left)
}

/// Why a load cannot be judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LoadError {
    /// Too many rows or columns.
    #[error(
        "{rows} rows of {columns} columns: at most {MAX_LOAD_ROWS} of {MAX_LOAD_COLUMNS} are \
         judged; ask for fewer"
    )]
    TooLarge {
        /// Rows.
        rows: usize,
        /// Columns.
        columns: usize,
    },
    /// A column is empty, or begins before the one before has ended.
    #[error("column {index} is empty or overlaps the one before")]
    Column {
        /// Its index.
        index: usize,
    },
    /// A row is empty, or begins before the one before has ended.
    #[error("row {index} is empty or overlaps the one before")]
    Row {
        /// Its index.
        index: usize,
    },
    /// A row does not have one value a column.
    #[error("row {index} has another number of values than there are columns")]
    Values {
        /// Its index.
        index: usize,
    },
    /// Matrices of different rows or columns.
    #[error("the matrices differ in rows or columns; ask all on the same boundaries and window")]
    Axes,
}

impl Load {
    /// The load of matrices on the same axes: one a series, and one of the reads of followers.
    /// Blocks inside the axes are divided evenly; those that straddle are left out.
    pub fn of(matrices: &[Matrix]) -> Result<Load, LoadError> {
        let Some(first) = matrices.first() else { return Ok(Load::default()) };
        let row = |row: &Row| LoadRow { group: row.group, ..LoadRow::new(row.range.clone()) };
        let mut load = Load {
            columns: first.columns.clone(),
            partial: ColumnSet::new(),
            rows: first.rows.iter().map(row).collect(),
        };
        for matrix in matrices {
            let same_rows = matrix.rows.len() == load.rows.len()
                && matrix.rows.iter().zip(&load.rows).all(|(a, b)| a.range == b.range);
            let same_columns = matrix.columns.len() == load.columns.len()
                && matrix.columns.iter().zip(&load.columns).all(|(a, b)| {
                    // One may have ended between two questions.
                    (a.start_ms, a.end_ms) == (b.start_ms, b.end_ms)
                });
            if !same_rows || !same_columns {
                return Err(LoadError::Axes);
            }
            let mut matrix = matrix.clone();
            matrix.spread();
            for (known, row) in load.rows.iter_mut().zip(matrix.rows) {
                load.partial.insert_all(&row.partial);
                match (matrix.series, matrix.role) {
                    (Series::Reads, Some(Role::FollowerRead)) => known.follower_reads = row.values,
                    (Series::Reads, _) => known.reads = row.values,
                    (Series::Writes, _) => known.writes = row.values,
                    (Series::ReadBytes, _) => known.read_bytes = row.values,
                    (Series::WriteBytes, _) => known.write_bytes = row.values,
                }
            }
        }
        load.check()?;
        Ok(load)
    }

    /// Forgets the first columns.
    pub fn drop_first(&mut self, columns: usize) {
        let columns = columns.min(self.columns.len());
        self.columns.drain(..columns);
        let mut partial = ColumnSet::new();
        for at in 0..self.columns.len() as u32 {
            if self.partial.contains(at + columns as u32) {
                partial.insert(at..at + 1);
            }
        }
        self.partial = partial;
        for list in self.rows.iter_mut().flat_map(LoadRow::lists_mut) {
            list.drain(..columns.min(list.len()));
        }
    }

    /// Errors where the load is not as described.
    pub fn check(&self) -> Result<(), LoadError> {
        let (rows, columns) = (self.rows.len(), self.columns.len());
        if rows > MAX_LOAD_ROWS || columns > MAX_LOAD_COLUMNS {
            return Err(LoadError::TooLarge { rows, columns });
        }
        for (index, column) in self.columns.iter().enumerate() {
            let follows = index == 0 || self.columns[index - 1].end_ms <= column.start_ms;
            if column.start_ms >= column.end_ms || !follows {
                return Err(LoadError::Column { index });
            }
        }
        for (index, row) in self.rows.iter().enumerate() {
            let before = index.checked_sub(1).map(|before| &self.rows[before].range);
            let follows = before.is_none_or(|before| {
                before.end.as_ref().is_some_and(|end| *end <= row.range.start)
            });
            if row.range.is_empty() || !follows {
                return Err(LoadError::Row { index });
            }
            let lists = [
                &row.reads,
                &row.follower_reads,
                &row.writes,
                &row.read_bytes,
                &row.write_bytes,
                &row.conflicts,
            ];
            if lists.iter().any(|list| !list.is_empty() && list.len() != columns) {
                return Err(LoadError::Values { index });
            }
        }
        Ok(())
    }
}

/// Counts that a row should have in a column, so that chance is small beside what happens.
const CERTAIN: f64 = 16.0;
/// Part of all counts from which on a row of one key stays by itself.
const OWN_ROW: f64 = 0.03;
/// Times the density of a row from which on its neighbour is another thing.
const UNLIKE: f64 = 4.0;

/// Rows that are put together.
struct Pending {
    row: LoadRow,
    count: f64,
    width: f64,
}

impl Load {
    /// The same counts in fewer rows, and the part of the key space that each has: neighbours of
    /// one route and of a similar density share a row until it has [`CERTAIN`] counts a column. A
    /// row of one key that is hot by itself stays.
    pub(super) fn coarse(&self, topology: &Topology) -> (Load, Vec<f64>) {
        let ranges: Vec<KeyRange> = self.rows.iter().map(|row| row.range.clone()).collect();
        let counts: Vec<f64> = self.rows.iter().map(LoadRow::count).collect();
        let used: Vec<bool> = counts.iter().map(|&count| count > 0.0).collect();
        let widths = widths(&ranges, &used);
        let enough = CERTAIN * self.columns.len() as f64;
        let begins = |key: &Bytes| {
            let at = topology.routes.binary_search_by(|route| route.range.start.cmp(key));
            at.is_ok()
        };
        let own = OWN_ROW * counts.iter().sum::<f64>();
        let (mut rows, mut wide): (Vec<LoadRow>, Vec<f64>) = Default::default();
        let mut pending: Option<Pending> = None;
        for ((row, count), width) in self.rows.iter().zip(counts).zip(widths) {
            let alone = is_one_key(&row.range) && count >= own;
            let joins = pending.as_ref().is_some_and(|before| {
                let adjacent = before.row.range.end.as_ref() == Some(&row.range.start);
                let mut density = [before.count / before.width, count / width];
                density.sort_by(f64::total_cmp);
                // Of few counts the density is chance; of no width there is none.
                let sure = before.count.min(count) >= 8.0 && before.width.min(width) > 0.0;
                let unlike = sure && density[1] > UNLIKE * density[0];
                let one = alone || is_one_key(&before.row.range) && before.count >= own;
                let same = before.row.group == row.group && !begins(&row.range.start);
                adjacent && same && before.count < enough && count < enough && !one && !unlike
            });
            match &mut pending {
                Some(before) if joins => before.add(row, count, width),
                _ => {
                    if let Some(done) = pending.take() {
                        rows.push(done.row);
                        wide.push(done.width);
                    }
                    pending = Some(Pending { row: row.clone(), count, width });
                }
            }
        }
        if let Some(done) = pending {
            rows.push(done.row);
            wide.push(done.width);
        }
        (Load { columns: self.columns.clone(), partial: self.partial.clone(), rows }, wide)
    }
}

impl Pending {
    fn add(&mut self, row: &LoadRow, count: f64, width: f64) {
        self.row.range.end = row.range.end.clone();
        let mut other = row.clone();
        for (list, more) in self.row.lists_mut().into_iter().zip(other.lists_mut()) {
            if list.len() < more.len() {
                std::mem::swap(list, more);
            }
            list.iter_mut().zip(more).for_each(|(sum, value)| *sum = sum.saturating_add(*value));
        }
        (self.count, self.width) = (self.count + count, self.width + width);
    }
}

impl LoadRow {
    /// Operations of all columns.
    fn count(&self) -> f64 {
        self.reads.iter().chain(&self.writes).map(|&value| value as f64).sum()
    }
}

/// Whether a range holds one key: none lies between a key and the same with a zero byte added.
pub(crate) fn is_one_key(range: &KeyRange) -> bool {
    let KeyRange { start, end } = range;
    end.as_ref().is_some_and(|end| {
        end.len() == start.len() + 1 && end.starts_with(start) && end.ends_with(&[0])
    })
}
