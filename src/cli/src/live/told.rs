//! What the tasks of a live heatmap tell it.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use ratatui::crossterm::event::Event;

use crate::CliError;
use keyviz_proto as proto;

/// Maximum length of a default window.
pub(super) const MOST_LAST: Duration = Duration::from_secs(3_600);

/// A matrix and the data shown beside it.
pub(super) struct Whole {
    pub(super) matrix: proto::Matrix,
    pub(super) leaders: HashMap<u64, u64>,
    /// First keys of all routes, if they changed.
    pub(super) bounds: Option<Vec<Bytes>>,
}

/// Messages of the tasks. Answers carry the number of their query.
pub(super) enum Told {
    Key(Event),
    Whole(u64, Box<Result<Whole, CliError>>),
    Columns(u64, Box<proto::ColumnsUpdate>),
    StreamOver(u64, String),
    /// The hot keys of a cell, in words.
    Hot(Box<proto::GetHotKeysRequest>, String),
    /// What stands out, in words; empty: not known.
    Found(u64, String),
}
