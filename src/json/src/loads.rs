//! Rankings and loads as JSON.

use serde::Serialize;

use super::ids::NodeIdJson;
use super::list::{HasJson, List};
use super::names::rank_name;
use super::text::Key;
use keyviz_proto as proto;
use keyviz_proto::load::Of;

/// A [`proto::TopRanges`] as JSON.
#[derive(Serialize)]
pub struct TopRangesJson<'a> {
    rank: &'static str,
    from_ms: u64,
    to_ms: u64,
    before_from_ms: u64,
    ranges: List<'a, proto::TopRange>,
    total: RatesJson,
    before: RatesJson,
    omitted: u64,
    catalog_version: u64,
    partial: bool,
    nodes: List<'a, proto::NodeStatus>,
    responded: u32,
    expected: u32,
}

impl<'a> From<&'a proto::TopRanges> for TopRangesJson<'a> {
    fn from(top: &'a proto::TopRanges) -> Self {
        TopRangesJson {
            rank: rank_name(top.rank()),
            from_ms: top.from_ms,
            to_ms: top.to_ms,
            before_from_ms: top.before_from_ms,
            ranges: List(&top.ranges),
            total: RatesJson::of(top.total),
            before: RatesJson::of(top.before),
            omitted: top.omitted,
            catalog_version: top.catalog_version,
            partial: top.partial,
            nodes: List(&top.nodes),
            responded: top.responded,
            expected: top.expected,
        }
    }
}

#[derive(Serialize)]
struct RatesJson {
    reads: f64,
    writes: f64,
    read_bytes: f64,
    write_bytes: f64,
    cost: f64,
}

impl RatesJson {
    fn of(rates: Option<proto::Rates>) -> Self {
        let proto::Rates { reads, writes, read_bytes, write_bytes, cost } =
            rates.unwrap_or_default();
        RatesJson { reads, writes, read_bytes, write_bytes, cost }
    }
}

#[derive(Serialize)]
pub struct TopRangeJson<'a> {
    start: Key<'a>,
    end: Option<Key<'a>>,
    label: &'a str,
    route_ids: &'a [u64],
    route_count: u64,
    group_id: Option<u64>,
    leader: Option<NodeIdJson>,
    rates: RatesJson,
    before: RatesJson,
    share: f64,
    trend: Option<f64>,
    since_ms: u64,
    since_earlier: bool,
    together: bool,
}

impl HasJson for proto::TopRange {
    type Json<'a> = TopRangeJson<'a>;

    fn json(&self) -> TopRangeJson<'_> {
        TopRangeJson {
            start: Key(&self.start),
            end: self.end.as_deref().map(Key),
            label: &self.label,
            route_ids: &self.route_ids,
            route_count: self.route_count,
            group_id: self.group_id,
            leader: self.leader.map(NodeIdJson),
            rates: RatesJson::of(self.rates),
            before: RatesJson::of(self.before),
            share: self.share,
            trend: self.trend,
            since_ms: self.since_ms,
            since_earlier: self.since_earlier,
            together: self.together,
        }
    }
}

/// All parts of [`proto::Loads`] as one JSON object.
#[derive(Serialize)]
pub struct LoadsJson<'a> {
    loads: List<'a, proto::Load>,
    shared: List<'a, proto::SharedLoad>,
    from_ms: u64,
    to_ms: u64,
    total: CountsJson,
    straddling: CountsJson,
    unattributed: CountsJson,
    catalog_version: u64,
    cluster_id: &'a str,
    partial: bool,
    nodes: List<'a, proto::NodeStatus>,
    responded: u32,
    expected: u32,
}

impl<'a> LoadsJson<'a> {
    /// An answer with its summary; `None`: the summary is missing.
    pub fn of(loads: &'a proto::Loads) -> Option<Self> {
        let summary = loads.summary.as_ref()?;
        Some(LoadsJson {
            loads: List(&loads.loads),
            shared: List(&loads.shared),
            from_ms: summary.from_ms,
            to_ms: summary.to_ms,
            total: CountsJson::of(summary.total),
            straddling: CountsJson::of(summary.straddling),
            unattributed: CountsJson::of(summary.unattributed),
            catalog_version: summary.catalog_version,
            cluster_id: &summary.cluster_id,
            partial: summary.partial,
            nodes: List(&summary.nodes),
            responded: summary.responded,
            expected: summary.expected,
        })
    }
}

#[derive(Serialize)]
struct CountsJson {
    reads: u64,
    writes: u64,
    read_bytes: u64,
    write_bytes: u64,
}

impl CountsJson {
    fn of(counts: Option<proto::Counts>) -> Self {
        let proto::Counts { reads, writes, read_bytes, write_bytes } = counts.unwrap_or_default();
        CountsJson { reads, writes, read_bytes, write_bytes }
    }
}

#[derive(Serialize)]
pub struct LoadJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    route_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<Key<'a>>,
    /// Null at the end of the key space; only where there is a start.
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<Option<Key<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<NodeIdJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_id: Option<NodeIdJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<Key<'a>>,
    #[serde(flatten)]
    counts: CountsJson,
}

impl HasJson for proto::Load {
    type Json<'a> = LoadJson<'a>;

    fn json(&self) -> LoadJson<'_> {
        let mut json = LoadJson {
            route_id: None,
            start: self.start.as_deref().map(Key),
            end: self.start.is_some().then(|| self.end.as_deref().map(Key)),
            group_id: self.in_group,
            leader: self.leader.map(NodeIdJson),
            node_id: None,
            prefix: None,
            counts: CountsJson::of(self.counts),
        };
        match &self.of {
            Some(Of::RouteId(id)) => json.route_id = Some(*id),
            Some(Of::GroupId(id)) => json.group_id = Some(*id),
            Some(Of::NodeId(id)) => json.node_id = Some(NodeIdJson(*id)),
            Some(Of::Prefix(prefix)) => json.prefix = Some(Key(prefix)),
            None => {}
        }
        json
    }
}

#[derive(Serialize)]
pub struct SharedLoadJson<'a> {
    start: Key<'a>,
    end: Option<Key<'a>>,
    #[serde(flatten)]
    counts: CountsJson,
}

impl HasJson for proto::SharedLoad {
    type Json<'a> = SharedLoadJson<'a>;

    fn json(&self) -> SharedLoadJson<'_> {
        SharedLoadJson {
            start: Key(&self.start),
            end: self.end.as_deref().map(Key),
            counts: CountsJson::of(self.counts),
        }
    }
}
