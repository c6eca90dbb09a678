//! Pages of a scan.

use bytes::Bytes;

/// Most rows in one page of a scan.
pub const SCAN_PAGE_ROWS: u32 = 1_024;
/// A page of a scan ends after this many bytes of keys and values.
pub const SCAN_PAGE_BYTES: u32 = 1 << 20;

/// One page's worth of a range, within one route.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScanRange {
    /// First key, inclusive.
    pub start: Bytes,
    /// First key after the range; `None`: unbounded.
    pub end: Option<Bytes>,
    /// Most rows.
    pub max_rows: u32,
    /// The page ends with the row that reaches this many bytes.
    pub max_bytes: u32,
    /// Leave values out.
    pub keys_only: bool,
    /// An earlier page of the scan was counted on this route.
    pub continued: bool,
    /// No client reads it, so it is not counted.
    pub uncounted: bool,
}

/// One row of a scan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Key.
    pub key: Bytes,
    /// Value; empty if only keys were requested.
    pub value: Bytes,
}

/// One page of a scan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// Rows in key order.
    pub rows: Vec<Row>,
    /// Where the next page starts; `None`: the range is done.
    pub next: Option<Bytes>,
}
