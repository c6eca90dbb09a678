//! The autopilot, acts and the journal as JSON.

use serde::Serialize;

use super::findings::ForecastJson;
use super::ids::NodeIdJson;
use super::list::{HasJson, List};
use super::text::Key;
use keyviz_proto as proto;

/// A [`proto::Autopilot`] as JSON.
#[derive(Serialize)]
pub struct AutopilotJson<'a> {
    mode: &'a str,
    set: bool,
    node: Option<NodeIdJson>,
    looked_ms: u64,
    reasons: &'a [String],
    advice: List<'a, proto::ActPreview>,
    nodes: List<'a, proto::NodeLoad>,
    imbalance: f64,
    revision: u64,
    policy: Option<PolicyJson<'a>>,
    acts_last_minute: u32,
    under_way: u32,
}

impl<'a> From<&'a proto::Autopilot> for AutopilotJson<'a> {
    fn from(told: &'a proto::Autopilot) -> Self {
        AutopilotJson {
            mode: &told.mode,
            set: told.set,
            node: told.node.map(NodeIdJson),
            looked_ms: told.looked_ms,
            reasons: &told.reasons,
            advice: List(&told.advice),
            nodes: List(&told.nodes),
            imbalance: told.imbalance,
            revision: told.revision,
            policy: told.policy.as_ref().map(PolicyJson::from),
            acts_last_minute: told.acts_last_minute,
            under_way: told.under_way,
        }
    }
}

#[derive(Serialize)]
pub struct NodeLoadJson {
    id: NodeIdJson,
    load: f64,
}

impl HasJson for proto::NodeLoad {
    type Json<'a> = NodeLoadJson;

    fn json(&self) -> NodeLoadJson {
        NodeLoadJson { id: NodeIdJson(self.id), load: self.load }
    }
}

#[derive(Serialize)]
struct PolicyJson<'a> {
    acts_per_minute: u32,
    move_bytes: u64,
    moves: u32,
    cool_down_ms: u64,
    act_above: f64,
    until: f64,
    least_load: f64,
    merge_after_ms: u64,
    max_routes: u64,
    merge: &'a str,
}

impl<'a> From<&'a proto::AutopilotPolicy> for PolicyJson<'a> {
    fn from(policy: &'a proto::AutopilotPolicy) -> Self {
        PolicyJson {
            acts_per_minute: policy.acts_per_minute,
            move_bytes: policy.move_bytes,
            moves: policy.moves,
            cool_down_ms: policy.cool_down_ms,
            act_above: policy.act_above,
            until: policy.until,
            least_load: policy.least_load,
            merge_after_ms: policy.merge_after_ms,
            max_routes: policy.max_routes,
            merge: &policy.merge,
        }
    }
}

#[derive(Serialize)]
struct ActJson<'a> {
    act: &'a str,
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
}

impl<'a> From<&'a proto::Act> for ActJson<'a> {
    fn from(act: &'a proto::Act) -> Self {
        ActJson {
            act: &act.act,
            at: act.at.as_deref().map(Key),
            start: act.start.as_deref().map(Key),
            end: act.end.as_deref().map(Key),
            group: act.group,
            node: act.node.map(NodeIdJson),
        }
    }
}

/// A [`proto::ActPreview`] as JSON.
#[derive(Serialize)]
pub struct ActPreviewJson<'a> {
    act: Option<ActJson<'a>>,
    words: &'a str,
    why: &'a str,
    forecast: Option<ForecastJson<'a>>,
    refused: &'a str,
    catalog_version: u64,
}

impl<'a> From<&'a proto::ActPreview> for ActPreviewJson<'a> {
    fn from(preview: &'a proto::ActPreview) -> Self {
        ActPreviewJson {
            act: preview.act.as_ref().map(ActJson::from),
            words: &preview.words,
            why: &preview.why,
            forecast: preview.forecast.as_ref().map(ForecastJson::from),
            refused: &preview.refused,
            catalog_version: preview.catalog_version,
        }
    }
}

impl HasJson for proto::ActPreview {
    type Json<'a> = ActPreviewJson<'a>;

    fn json(&self) -> ActPreviewJson<'_> {
        self.into()
    }
}

/// A [`proto::Journal`] as JSON.
#[derive(Serialize)]
pub struct JournalJson<'a> {
    entries: List<'a, proto::JournalEntry>,
    more: bool,
    revision: u64,
}

impl<'a> From<&'a proto::Journal> for JournalJson<'a> {
    fn from(journal: &'a proto::Journal) -> Self {
        JournalJson {
            entries: List(&journal.entries),
            more: journal.more,
            revision: journal.revision,
        }
    }
}

/// A [`proto::JournalEntry`] as JSON.
#[derive(Serialize)]
pub struct JournalEntryJson<'a> {
    id: u64,
    by: &'a str,
    act: Option<ActJson<'a>>,
    words: &'a str,
    why: &'a str,
    finding: &'a str,
    state: &'a str,
    failure: &'a str,
    started_ms: u64,
    ended_ms: u64,
    forecast: Option<ForecastJson<'a>>,
    outcome: Option<OutcomeJson<'a>>,
    undoes: u64,
    undone_by: u64,
    catalog_version: u64,
}

impl<'a> From<&'a proto::JournalEntry> for JournalEntryJson<'a> {
    fn from(entry: &'a proto::JournalEntry) -> Self {
        JournalEntryJson {
            id: entry.id,
            by: &entry.by,
            act: entry.act.as_ref().map(ActJson::from),
            words: &entry.words,
            why: &entry.why,
            finding: &entry.finding,
            state: &entry.state,
            failure: &entry.failure,
            started_ms: entry.started_ms,
            ended_ms: entry.ended_ms,
            forecast: entry.forecast.as_ref().map(ForecastJson::from),
            outcome: entry.outcome.as_ref().map(OutcomeJson::from),
            undoes: entry.undoes,
            undone_by: entry.undone_by,
            catalog_version: entry.catalog_version,
        }
    }
}

impl HasJson for proto::JournalEntry {
    type Json<'a> = JournalEntryJson<'a>;

    fn json(&self) -> JournalEntryJson<'_> {
        self.into()
    }
}

#[derive(Serialize)]
struct OutcomeJson<'a> {
    from_ms: u64,
    to_ms: u64,
    nodes: List<'a, proto::LoadChange>,
    hottest_before: f64,
    hottest_after: f64,
    imbalance_before: f64,
    imbalance_after: f64,
    imbalance_without: f64,
    rate_before: f64,
    rate_after: f64,
    worse: bool,
    missing: &'a str,
}

impl<'a> From<&'a proto::ActOutcome> for OutcomeJson<'a> {
    fn from(outcome: &'a proto::ActOutcome) -> Self {
        OutcomeJson {
            from_ms: outcome.from_ms,
            to_ms: outcome.to_ms,
            nodes: List(&outcome.nodes),
            hottest_before: outcome.hottest_before,
            hottest_after: outcome.hottest_after,
            imbalance_before: outcome.imbalance_before,
            imbalance_after: outcome.imbalance_after,
            imbalance_without: outcome.imbalance_without,
            rate_before: outcome.rate_before,
            rate_after: outcome.rate_after,
            worse: outcome.worse,
            missing: &outcome.missing,
        }
    }
}
