//! Hot keys as JSON.

use serde::Serialize;

use super::list::{HasJson, List};
use super::names::series_name;
use super::text::Key;
use keyviz_proto as proto;

/// A [`proto::HotKeys`] as JSON.
#[derive(Serialize)]
pub struct HotKeysJson<'a> {
    series: &'static str,
    from_ms: u64,
    to_ms: u64,
    keys: List<'a, proto::HotKey>,
    threshold: u64,
    max_error: u64,
    operations: u64,
    partial: bool,
    hashed: bool,
    nodes: List<'a, proto::NodeStatus>,
    responded: u32,
    expected: u32,
}

impl<'a> From<&'a proto::HotKeys> for HotKeysJson<'a> {
    fn from(hot_keys: &'a proto::HotKeys) -> Self {
        HotKeysJson {
            series: series_name(hot_keys.series()),
            from_ms: hot_keys.from_ms,
            to_ms: hot_keys.to_ms,
            keys: List(&hot_keys.keys),
            threshold: hot_keys.threshold,
            max_error: hot_keys.max_error,
            operations: hot_keys.operations,
            partial: hot_keys.partial,
            hashed: hot_keys.hashed,
            nodes: List(&hot_keys.nodes),
            responded: hot_keys.responded,
            expected: hot_keys.expected,
        }
    }
}

#[derive(Serialize)]
pub(super) struct HotKeyJson<'a> {
    key: Key<'a>,
    lower: u64,
    upper: u64,
    share: f64,
    bytes: u64,
    first_ms: u64,
    last_ms: u64,
    #[serde(skip_serializing_if = "<[u64]>::is_empty")]
    points: &'a [u64],
    #[serde(skip_serializing_if = "Option::is_none")]
    by_node: Option<List<'a, proto::HotKeyNode>>,
}

impl HasJson for proto::HotKey {
    type Json<'a> = HotKeyJson<'a>;

    fn json(&self) -> HotKeyJson<'_> {
        HotKeyJson {
            key: Key(&self.key),
            lower: self.lower,
            upper: self.upper,
            share: self.share,
            bytes: self.bytes,
            first_ms: self.first_ms,
            last_ms: self.last_ms,
            points: &self.points,
            by_node: (!self.nodes.is_empty()).then_some(List(&self.nodes)),
        }
    }
}

#[derive(Serialize)]
pub(super) struct HotKeyNodeJson {
    id: u64,
    lower: u64,
    upper: u64,
}

impl HasJson for proto::HotKeyNode {
    type Json<'a> = HotKeyNodeJson;

    fn json(&self) -> HotKeyNodeJson {
        HotKeyNodeJson { id: self.id, lower: self.lower, upper: self.upper }
    }
}
