//! The four numbers that every cell holds, and the pieces in which they leave the sampler.

use std::sync::Arc;

use super::layout::Layout;
use crate::hotkeys::column::ColumnHotKeys;

/// One of the four series.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Series {
    /// Read operations served.
    Reads,
    /// Write operations proposed (deletes are writes).
    Writes,
    /// Bytes of reads: those returned.
    ReadBytes,
    /// Bytes of writes: key plus value as transferred.
    WriteBytes,
}

impl Series {
    /// All series, in the order in which [`Counts`] holds them.
    pub const ALL: [Series; 4] =
        [Series::Reads, Series::Writes, Series::ReadBytes, Series::WriteBytes];
}

/// Operations and bytes of one cell. Sums saturate: a counter at its limit stays there.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Read operations.
    pub reads: u64,
    /// Write operations.
    pub writes: u64,
    /// Bytes returned by reads.
    pub read_bytes: u64,
    /// Key and value bytes of writes.
    pub write_bytes: u64,
}

impl Counts {
    /// Nothing counted.
    pub const ZERO: Counts = Counts { reads: 0, writes: 0, read_bytes: 0, write_bytes: 0 };

    /// The value of one series.
    pub const fn get(&self, series: Series) -> u64 {
        match series {
            Series::Reads => self.reads,
            Series::Writes => self.writes,
            Series::ReadBytes => self.read_bytes,
            Series::WriteBytes => self.write_bytes,
        }
    }

    /// Whether nothing was counted.
    pub const fn is_zero(&self) -> bool {
        self.reads == 0 && self.writes == 0 && self.read_bytes == 0 && self.write_bytes == 0
    }

    /// Adds `other`, saturating.
    pub fn add(&mut self, other: &Counts) {
        self.reads = self.reads.saturating_add(other.reads);
        self.writes = self.writes.saturating_add(other.writes);
        self.read_bytes = self.read_bytes.saturating_add(other.read_bytes);
        self.write_bytes = self.write_bytes.saturating_add(other.write_bytes);
    }
}

/// What was counted under one layout between two flushes: its non-zero cells.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The layout that the cells' slots index.
    pub layout: Arc<Layout>,
    /// (slot, counts), by ascending slot, each slot at most once, no zero cell.
    pub cells: Vec<(u32, Counts)>,
}

/// Everything that a sampler handed over at one flush (or shows of the time since the last one).
#[derive(Clone, Default, Debug)]
#[must_use = "counts of a harvest that is dropped are lost: give it to History::add"]
pub struct Harvest {
    /// One segment for each layout that counted something.
    pub segments: Vec<Segment>,
    /// Operations that no published table could attribute; zero in every healthy run.
    pub unattributed: Counts,
    /// Which keys they were of, as far as is known; `None`: nobody looked.
    pub hot_keys: Option<Arc<ColumnHotKeys>>,
}
