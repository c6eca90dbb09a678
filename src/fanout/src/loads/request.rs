//! The question for loads, its answer and its errors.

use std::sync::Arc;

use bytes::Bytes;

use keyviz_core::matrix::NodeStatus;
use keyviz_core::{GroupId, KeyRange, NodeId, RouteId, Series};

use crate::request::{Axis, MatrixError, MatrixRequest};

/// Most ids that a question names.
pub const MAX_LOAD_IDS: usize = 100_000;
/// Most prefixes that a question names.
pub const MAX_PREFIXES: usize = 1_024;
/// Most parts of a key that a prefix has.
pub const MAX_PREFIX_DEPTH: u32 = 16;
/// Most bytes of a delimiter.
pub const MAX_DELIMITER_BYTES: usize = 16;

/// All series, in the order of [`LoadCounts`].
pub const SERIES: [Series; 4] =
    [Series::Reads, Series::Writes, Series::ReadBytes, Series::WriteBytes];

/// What loads are summed by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grouping {
    /// The routes of now.
    Route,
    /// The Raft groups that hold them.
    Group,
    /// The nodes that lead these groups.
    Leader,
    /// The nodes that counted.
    Node,
    /// Beginnings of keys.
    Prefix,
}

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadsRequest {
    /// What loads are summed by.
    pub by: Grouping,
    /// Unix milliseconds, inclusive; `None`: an hour before the end.
    pub from_ms: Option<u64>,
    /// Unix milliseconds, exclusive; `None`: the end of the last closed column.
    pub to_ms: Option<u64>,
    /// First key.
    pub start: Bytes,
    /// First key after; `None`: unbounded.
    pub end: Option<Bytes>,
    /// Only these; empty: all with load.
    pub ids: Vec<u64>,
    /// Parts of a key that a prefix has; 0: one.
    pub prefix_depth: u32,
    /// What parts a key; empty: a slash.
    pub delimiter: Bytes,
    /// Exactly these prefixes; empty: they are found.
    pub prefixes: Vec<Bytes>,
}

/// Of reads, writes, read bytes, write bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LoadCounts(pub [u64; 4]);

impl LoadCounts {
    pub(super) fn add(&mut self, series: usize, value: u64) {
        self.0[series] = self.0[series].saturating_add(value);
    }

    pub(super) fn is_zero(&self) -> bool {
        self.0 == [0; 4]
    }
}

/// Whose load it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LoadOf {
    /// A route.
    Route(RouteId),
    /// A Raft group.
    Group(GroupId),
    /// A node: that leads, or that counted.
    Node(NodeId),
    /// A beginning of keys.
    Prefix(Bytes),
}

impl LoadOf {
    pub(super) fn id(&self) -> Option<u64> {
        match self {
            LoadOf::Route(id) => Some(id.get()),
            LoadOf::Group(group) => Some(group.0),
            LoadOf::Node(node) => Some(node.0),
            LoadOf::Prefix(_) => None,
        }
    }
}

/// One load.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadEntry {
    /// Whose it is.
    pub of: LoadOf,
    /// What was counted.
    pub counts: LoadCounts,
    /// By route: its keys and its group.
    pub route: Option<(KeyRange, GroupId)>,
}

/// A part of an answer.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct LoadsPart {
    /// Loads.
    pub loads: Vec<LoadEntry>,
    /// What was counted for these keys together, or for keys of nobody that is listed.
    pub shared: Vec<(KeyRange, LoadCounts)>,
    /// In the last part.
    pub summary: Option<LoadsSummary>,
}

/// What all parts say together.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct LoadsSummary {
    /// The window, in whole columns.
    pub from_ms: u64,
    /// Its end.
    pub to_ms: u64,
    /// Of all loads and all that is shared.
    pub total: LoadCounts,
    /// Counted together with keys or time beyond those asked for.
    pub straddling: LoadCounts,
    /// Without a route.
    pub unattributed: LoadCounts,
    /// The version of the routes.
    pub catalog_version: u64,
    /// Counts may be missing.
    pub partial: bool,
    /// The status of each member.
    pub nodes: Vec<NodeStatus>,
    /// Members that answered every question.
    pub responded: u32,
    /// Members that were asked.
    pub expected: u32,
}

/// Why there are no loads.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LoadsError {
    /// There is no matrix.
    #[error(transparent)]
    Matrix(#[from] MatrixError),
    /// Too many ids.
    #[error("{0} ids are named; at most {MAX_LOAD_IDS} may be")]
    TooManyIds(usize),
    /// Ids of prefixes.
    #[error("ids name routes, groups or nodes; name prefixes in `prefixes`")]
    IdsOfPrefixes,
    /// What concerns prefixes, with another grouping.
    #[error("prefix_depth, delimiter and prefixes are for loads by prefix")]
    NotByPrefix,
    /// Too many parts of a key.
    #[error("prefix_depth is {0}; it is at most {MAX_PREFIX_DEPTH}")]
    TooDeep(u32),
    /// A long delimiter.
    #[error("the delimiter has {0} bytes; it has at most {MAX_DELIMITER_BYTES}")]
    DelimiterTooLong(usize),
    /// Too many prefixes.
    #[error("{0} prefixes are named; at most {MAX_PREFIXES} may be")]
    TooManyPrefixes(usize),
    /// A prefix that is empty or longer than a key.
    #[error("prefix {0} is empty or longer than a key may be")]
    Prefix(usize),
    /// A prefix within another.
    #[error("prefix {0} begins with another prefix or is named twice")]
    Nested(usize),
}

impl LoadsRequest {
    /// Checks what a matrix does not check.
    ///
    /// # Errors
    /// Names what is wrong and the limit.
    pub fn check(&self) -> Result<(), LoadsError> {
        if self.ids.len() > MAX_LOAD_IDS {
            return Err(LoadsError::TooManyIds(self.ids.len()));
        }
        let about_prefixes =
            self.prefix_depth > 0 || !self.delimiter.is_empty() || !self.prefixes.is_empty();
        match self.by {
            Grouping::Prefix if !self.ids.is_empty() => return Err(LoadsError::IdsOfPrefixes),
            Grouping::Prefix => {}
            _ if about_prefixes => return Err(LoadsError::NotByPrefix),
            _ => {}
        }
        if self.prefix_depth > MAX_PREFIX_DEPTH {
            return Err(LoadsError::TooDeep(self.prefix_depth));
        }
        if self.delimiter.len() > MAX_DELIMITER_BYTES {
            return Err(LoadsError::DelimiterTooLong(self.delimiter.len()));
        }
        if self.prefixes.len() > MAX_PREFIXES {
            return Err(LoadsError::TooManyPrefixes(self.prefixes.len()));
        }
        let odd = |key: &Bytes| key.is_empty() || key.len() > keyviz_types::MAX_KEY_BYTES;
        if let Some(index) = self.prefixes.iter().position(odd) {
            return Err(LoadsError::Prefix(index));
        }
        let mut sorted: Vec<(&Bytes, usize)> =
            self.prefixes.iter().enumerate().map(|(index, key)| (key, index)).collect();
        sorted.sort_unstable();
        let nested = sorted.windows(2).find(|pair| pair[1].0.starts_with(pair[0].0));
        nested.map_or(Ok(()), |pair| Err(LoadsError::Nested(pair[1].1)))
    }

    pub(super) fn matrix(&self, series: Series) -> MatrixRequest {
        MatrixRequest {
            series,
            role: None,
            from_ms: self.from_ms,
            to_ms: self.to_ms,
            start: self.start.clone(),
            end: self.end.clone(),
            max_rows: 0,
            max_columns: 1,
            axis: Axis::Now,
            spread: false,
            boundaries: Arc::default(),
            by_route: false,
            sources: false,
        }
    }
}
