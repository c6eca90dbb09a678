//! Findings as JSON.

use serde::Serialize;

use super::ids::{NodeIdJson, NodeIdsJson};
use super::list::{HasJson, List};
use super::text::Key;
use keyviz_proto as proto;

/// A [`proto::Findings`] as JSON.
#[derive(Serialize)]
pub struct FindingsJson<'a> {
    findings: List<'a, proto::Finding>,
    resolved: List<'a, proto::Finding>,
    omitted: u64,
    from_ms: u64,
    to_ms: u64,
    columns: u32,
    partial_columns: u32,
    rate: f64,
    catalog_version: u64,
    responded: u32,
    expected: u32,
    silent: Vec<Silent<'a>>,
    acts: &'a [String],
}

/// A member that did not answer.
#[derive(Serialize)]
struct Silent<'a> {
    id: NodeIdJson,
    address: &'a str,
    error: &'a str,
}

impl<'a> From<&'a proto::Findings> for FindingsJson<'a> {
    fn from(found: &'a proto::Findings) -> Self {
        let silent = |node: &'a proto::NodeStatus| Silent {
            id: NodeIdJson(node.id),
            address: &node.address,
            error: &node.error,
        };
        FindingsJson {
            findings: List(&found.findings),
            resolved: List(&found.resolved),
            omitted: found.omitted,
            from_ms: found.from_ms,
            to_ms: found.to_ms,
            columns: found.columns,
            partial_columns: found.partial_columns,
            rate: found.rate,
            catalog_version: found.catalog_version,
            responded: found.responded,
            expected: found.expected,
            silent: found.nodes.iter().filter(|node| !node.ok).map(silent).collect(),
            acts: &found.acts,
        }
    }
}

#[derive(Serialize)]
pub struct FindingJson<'a> {
    id: &'a str,
    kind: &'a str,
    start: Key<'a>,
    end: Option<Key<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Key<'a>>,
    groups: &'a [u64],
    nodes: NodeIdsJson<'a>,
    share: f64,
    rate: f64,
    since_ms: u64,
    since_earliest_ms: Option<u64>,
    since_latest_ms: u64,
    resolved_ms: Option<u64>,
    confidence: f64,
    summary: &'a str,
    advice: &'a str,
    facts: List<'a, proto::Fact>,
    sparkline: &'a [u64],
    remedies: List<'a, proto::Remedy>,
}

impl HasJson for proto::Finding {
    type Json<'a> = FindingJson<'a>;

    fn json(&self) -> FindingJson<'_> {
        FindingJson {
            id: &self.id,
            kind: &self.kind,
            start: Key(&self.start),
            end: self.end.as_deref().map(Key),
            key: self.key.as_deref().map(Key),
            groups: &self.groups,
            nodes: NodeIdsJson(&self.nodes),
            share: self.share,
            rate: self.rate,
            since_ms: self.since_ms,
            since_earliest_ms: self.since_earliest_ms,
            since_latest_ms: self.since_latest_ms,
            resolved_ms: self.resolved_ms,
            confidence: self.confidence,
            summary: &self.summary,
            advice: &self.advice,
            facts: List(&self.facts),
            sparkline: &self.sparkline,
            remedies: List(&self.remedies),
        }
    }
}

#[derive(Serialize)]
pub struct FactJson<'a> {
    name: &'a str,
    value: f64,
    level: Option<f64>,
}

impl HasJson for proto::Fact {
    type Json<'a> = FactJson<'a>;

    fn json(&self) -> FactJson<'_> {
        FactJson { name: &self.name, value: self.value, level: self.level }
    }
}

#[derive(Serialize)]
pub struct RemedyJson<'a> {
    act: &'a str,
    words: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Key<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<Key<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<Key<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<NodeIdJson>,
    forecast: Option<ForecastJson<'a>>,
}

impl HasJson for proto::Remedy {
    type Json<'a> = RemedyJson<'a>;

    fn json(&self) -> RemedyJson<'_> {
        RemedyJson {
            act: &self.act,
            words: &self.words,
            at: self.at.as_deref().map(Key),
            start: self.start.as_deref().map(Key),
            end: self.end.as_deref().map(Key),
            group: self.group,
            node: self.node.map(NodeIdJson),
            forecast: self.forecast.as_ref().map(ForecastJson::from),
        }
    }
}

#[derive(Serialize)]
pub struct ForecastJson<'a> {
    nodes: List<'a, proto::LoadChange>,
    groups: List<'a, proto::LoadChange>,
    unplaced: f64,
    hottest_before: f64,
    hottest_after: f64,
    imbalance_before: f64,
    imbalance_after: f64,
    routes_saved: u64,
}

impl<'a> From<&'a proto::Forecast> for ForecastJson<'a> {
    fn from(forecast: &'a proto::Forecast) -> Self {
        ForecastJson {
            nodes: List(&forecast.nodes),
            groups: List(&forecast.groups),
            unplaced: forecast.unplaced,
            hottest_before: forecast.hottest_before,
            hottest_after: forecast.hottest_after,
            imbalance_before: forecast.imbalance_before,
            imbalance_after: forecast.imbalance_after,
            routes_saved: forecast.routes_saved,
        }
    }
}

#[derive(Serialize)]
pub struct LoadChangeJson {
    id: NodeIdJson,
    before: f64,
    after: f64,
}

impl HasJson for proto::LoadChange {
    type Json<'a> = LoadChangeJson;

    fn json(&self) -> LoadChangeJson {
        LoadChangeJson { id: NodeIdJson(self.id), before: self.before, after: self.after }
    }
}
