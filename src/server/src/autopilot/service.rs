//! The autopilot as clients see it.

use tonic::Status;
use tonic::metadata::MetadataValue;

use keyviz_catalog::{AutopilotMode, Begun, JournalCommand};
use keyviz_core::autopilot::Mode;
use keyviz_core::insight::Act;
use keyviz_proto as proto;
use keyviz_proto::metadata::NOT_APPLIED_METADATA;

use super::Autopilot;
use super::request::act_from_wire;
use super::steps::from;
use super::wire::{act_to_stored, act_to_wire, entry_to_wire, forecast_to_stored, policy_to_wire};
use crate::grpc::findings_wire::forecast_to_wire;
use crate::grpc::route_status::change_status;

/// Entries of an answer where the question does not say.
const DEFAULT_ENTRIES: usize = 64;

/// Most entries of an answer.
const MAX_ENTRIES: u32 = 1_024;

/// Acts of operators under way at a time, at most.
const MAX_UNDER_WAY: usize = 8;

fn not_applied(mut status: Status) -> Status {
    status.metadata_mut().insert(NOT_APPLIED_METADATA, MetadataValue::from_static("true"));
    status
}

impl Autopilot {
    /// What the autopilot does, asked at the node that acts.
    pub(crate) async fn get(&self) -> Result<proto::Autopilot, Status> {
        let leader = self.parts.catalog.group().and_then(|group| group.leader());
        match leader {
            Some(leader) if leader != self.parts.node => {
                self.parts.cluster.peers.autopilot(leader).await
            }
            _ => Ok(self.here().await),
        }
    }

    /// The same, as this node knows.
    pub(crate) async fn here(&self) -> proto::Autopilot {
        self.asked().await;
        let (mode, set) = self.mode();
        let journal = self.journal();
        let leads = self.leads();
        let looked = self.looked.lock().clone();
        let version = self.parts.catalog.applied().hub().table().version();
        let mut reasons = looked.reasons();
        if mode == Mode::Off {
            reasons = vec!["It is switched off.".to_owned()];
        } else if !leads {
            reasons = vec!["It waits: the catalog group has no leader.".to_owned()];
        } else if looked.at_ms == 0 {
            reasons = vec!["It has not looked at the load yet.".to_owned()];
        }
        let now_ms = self.parts.findings.now_ms();
        let own = || journal.entries().filter(|entry| entry.autopilot);
        let recent = own().filter(|entry| entry.started_ms.saturating_add(60_000) > now_ms);
        let under_way = journal.entries().filter(|entry| entry.ended_ms == 0).count();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let advice = looked.decision.acts.iter().map(|planned| proto::ActPreview {
            act: Some(act_to_wire(&planned.act)),
            words: planned.act.words(),
            why: planned.why.clone(),
            forecast: Some(forecast_to_wire(&planned.forecast)),
            refused: String::new(),
            catalog_version: version,
        });
        let nodes = looked.decision.nodes.iter();
        proto::Autopilot {
            mode: mode.name().to_owned(),
            set,
            node: leads.then_some(self.parts.node.0),
            looked_ms: looked.at_ms,
            reasons,
            advice: advice.collect(),
            nodes: nodes.map(|(node, load)| proto::NodeLoad { id: node.0, load: *load }).collect(),
            imbalance: looked.decision.imbalance,
            revision: journal.revision(),
            policy: Some(policy_to_wire(&self.parts.config.policy)),
            acts_last_minute: count(recent.count()),
            under_way: count(under_way),
        }
    }

    async fn check_recorded(&self) -> Result<(), Status> {
        if !self.journal().is_empty() {
            return Ok(());
        }
        let known = self.all_know().await;
        known.map_err(|error| not_applied(Status::failed_precondition(error.to_string())))
    }

    /// Switches the autopilot of the whole cluster.
    pub(crate) async fn set(
        &self,
        request: proto::SetAutopilotRequest,
    ) -> Result<proto::Autopilot, Status> {
        let mode = match Mode::from_name(&request.mode) {
            Some(Mode::Off) => AutopilotMode::Off,
            Some(Mode::Advise) => AutopilotMode::Advise,
            Some(Mode::Act) => AutopilotMode::Act,
            None => {
                let mode = &request.mode;
                let said = format!("mode={mode:.40}: one of off, advise, act");
                return Err(Status::invalid_argument(said));
            }
        };
        self.check_recorded().await?;
        let expected_revision = request.expected_revision;
        let set = JournalCommand::SetMode { mode, expected_revision };
        self.change(&set).await.map_err(change_status)?;
        tracing::info!("the autopilot is switched to {}", request.mode);
        // The node that acts may see the switch a moment later.
        let mut told = self.get().await?;
        told.mode = request.mode;
        told.set = true;
        Ok(told)
    }

    /// The newest entries of the journal.
    pub(crate) fn log(
        &self,
        request: proto::AutopilotLogRequest,
    ) -> Result<proto::Journal, Status> {
        if request.limit > MAX_ENTRIES {
            let said = format!("limit={}: at most {MAX_ENTRIES}", request.limit);
            return Err(Status::invalid_argument(said));
        }
        let most = match request.limit {
            0 => DEFAULT_ENTRIES,
            limit => limit as usize,
        };
        let journal = self.journal();
        let before = if request.before == 0 { u64::MAX } else { request.before };
        let mut entries = journal.entries().rev().filter(|entry| entry.id < before);
        let told = entries.by_ref().take(most).map(|entry| entry_to_wire(entry)).collect();
        let more = entries.next().is_some();
        Ok(proto::Journal { entries: told, more, revision: journal.revision() })
    }

    /// What an act would do.
    pub(crate) async fn preview(
        &self,
        request: proto::ActRequest,
    ) -> Result<proto::ActPreview, Status> {
        let act = act_from_wire(request.act)?;
        let looked = self.try_act(act).await?;
        let why = match &looked.act {
            Act::Split { .. } => {
                "A split by itself moves no load: both sides stay with the same leader.".to_owned()
            }
            _ => String::new(),
        };
        Ok(proto::ActPreview {
            words: looked.act.words(),
            act: Some(act_to_wire(&looked.act)),
            why,
            forecast: Some(forecast_to_wire(&looked.forecast)),
            refused: looked.refused.unwrap_or_default(),
            catalog_version: self.parts.catalog.applied().hub().table().version(),
        })
    }

    /// What is asked for, without keys.
    pub(crate) fn named(request: &proto::ActRequest) -> String {
        let Ok(act) = act_from_wire(request.act.clone()) else { return "unknown".to_owned() };
        let act = act_to_wire(&act);
        let id = |what: &str, id: Option<u64>| {
            id.map_or_else(String::new, |id| format!(" to {what} {id}"))
        };
        match act.act.as_str() {
            "transfer-leader" => {
                format!("transfer group {}{}", act.group.unwrap_or(0), id("node", act.node))
            }
            name => format!("{name}{}", id("group", act.group)),
        }
    }

    /// Begins an act that somebody asks for.
    pub(crate) async fn act(
        &self,
        request: proto::ActRequest,
    ) -> Result<proto::JournalEntry, Status> {
        let act = act_from_wire(request.act)?;
        let ours = self.parts.cluster.directory.cluster_id();
        if !request.cluster_id.is_empty() && request.cluster_id != ours.as_str() {
            let said = "the act is for another cluster, or for this one before it was restored";
            return Err(not_applied(Status::failed_precondition(said)));
        }
        if let Some(entry) = self.journal().of_request(&request.request_id)
            && act_to_stored(&act).as_ref() == Some(&entry.act)
        {
            return Ok(entry_to_wire(entry));
        }
        let current = self.parts.catalog.applied().hub().table().version();
        if request.expected_version != 0 && request.expected_version != current {
            return Err(not_applied(Status::aborted(format!(
                "the catalog is at version {current}, not {}; look at the routes again",
                request.expected_version
            ))));
        }
        let under_way = self
            .journal()
            .entries()
            .filter(|entry| entry.begun && !entry.autopilot && entry.ended_ms == 0)
            .count();
        if under_way >= MAX_UNDER_WAY {
            let said = format!("{MAX_UNDER_WAY} acts are under way, the most at a time");
            return Err(not_applied(Status::resource_exhausted(said)));
        }
        self.check_recorded().await?;
        let looked = self.try_act(act).await?;
        let stored = act_to_stored(&looked.act).filter(|_| looked.refused.is_none());
        let Some(stored) = stored else {
            let said = looked.refused.unwrap_or_default();
            return Err(not_applied(Status::failed_precondition(said)));
        };
        let (from_group, from_node) = from(&looked.act, &looked.topology);
        let begun = Begun {
            autopilot: false,
            by_default: false,
            expected_revision: 0,
            act: stored,
            why: String::new(),
            finding: request.finding,
            request_id: request.request_id,
            from_group,
            from_node,
            forecast: Some(forecast_to_stored(&looked.forecast)),
            undoes: 0,
            done: false,
            time_ms: 0,
        };
        let begin = JournalCommand::Begin { begun: Box::new(begun) };
        let id = self.change(&begin).await.map_err(change_status)?;
        let entry = self.journal().get(id).map(|entry| entry_to_wire(entry));
        entry.ok_or_else(|| {
            Status::unavailable(format!(
                "the act has begun as number {id} of the journal, which this node has not applied \
                 yet"
            ))
        })
    }
}
