//! Beginning and ending acts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;

use keyviz_catalog::{
    ActState, Begun, EntryId, JournalCommand, JournalEntry, JournalError, LayoutAct,
};
use keyviz_catalog_group::CatalogChangeError;
use keyviz_core::autopilot::{Decision, Mode, Planned};
use keyviz_core::insight::Topology;
use keyviz_peer::snapshot::STATUS_DEADLINE;
use keyviz_types::{GroupId, NodeId};

use super::Autopilot;
use super::steps::from;
use super::wire::{act_to_stored, forecast_to_stored};

/// A change of the journal takes so long at most.
pub(super) const CHANGE_WITHIN: Duration = Duration::from_secs(5);

/// The pause before the end of an act is recorded again.
const AGAIN: Duration = Duration::from_millis(500);

/// Why nothing may be recorded.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Unknown {
    #[error(
        "before the first entry of the journal all members must answer and be of a version that \
         knows it; node {node} runs version {version}, which does not"
    )]
    Version { node: NodeId, version: String },
    #[error(
        "before the first entry of the journal all members must answer and be of a version that \
         knows it; node {node} does not answer: {reason}"
    )]
    Silent { node: NodeId, reason: String },
}

impl Autopilot {
    /// Begins what was decided on, as of the journal that it was decided on.
    pub(super) async fn begin(&self, decision: Decision) {
        if self.journal().is_empty() {
            if let Err(error) = self.all_know().await {
                tracing::debug!("the autopilot waits: {error}");
                self.looked.lock().trouble = Some(format!("It waits: {error}."));
                return;
            }
            // From here on the acts of operators are entered, too.
            if let Err(error) = self.change(&JournalCommand::Open).await {
                tracing::warn!("the journal could not be opened: {error}");
                return;
            }
        }
        let topology = match self.parts.cluster.status().await {
            Ok(status) => self.topology(&status),
            Err(_) => return,
        };
        for planned in decision.acts {
            let words = planned.act.words();
            let undoes = planned.undoes;
            match self.begin_one(planned, &topology).await {
                Ok(id) => tracing::info!(id, "the autopilot acts: {words}"),
                Err(CatalogChangeError::JournalRefused(JournalError::NotActing)) => return,
                Err(error) => {
                    tracing::warn!("the autopilot did not act ({words}): {error}");
                    return;
                }
            }
            if undoes.is_some() {
                self.counters.undone.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    async fn begin_one(
        &self,
        planned: Planned,
        topology: &Topology,
    ) -> Result<EntryId, CatalogChangeError> {
        let (from_group, from_node) = from(&planned.act, topology);
        let begun = Begun {
            autopilot: true,
            by_default: self.parts.config.mode == Mode::Act,
            expected_revision: self.journal().revision(),
            act: act_to_stored(&planned.act).unwrap_or_else(|| unreachable!("it is planned")),
            why: planned.why,
            finding: String::new(),
            request_id: String::new(),
            from_group,
            from_node,
            forecast: Some(forecast_to_stored(&planned.forecast)),
            undoes: planned.undoes.unwrap_or(0),
            done: false,
            time_ms: 0,
        };
        self.change(&JournalCommand::Begin { begun: Box::new(begun) }).await
    }

    pub(super) async fn change(
        &self,
        command: &JournalCommand,
    ) -> Result<EntryId, CatalogChangeError> {
        self.parts.catalog.change_journal(command, CHANGE_WITHIN).await
    }

    /// Before the first entry: a version that does not know the journal could not apply it. After
    /// it such a version cannot open the catalog, so nobody needs to be asked again.
    pub(super) async fn all_know(&self) -> Result<(), Unknown> {
        let cluster = &self.parts.cluster;
        let members = cluster.directory.members();
        let others = members.keys().copied().filter(|node| *node != self.parts.node);
        let asked = others.map(|node| async move {
            match cluster.peers.node_status(node, STATUS_DEADLINE).await {
                Ok(status) if status.keeps_journal => Ok(()),
                Ok(status) => Err(Unknown::Version { node, version: status.version }),
                Err(reason) => Err(Unknown::Silent { node, reason: reason.to_string() }),
            }
        });
        join_all(asked).await.into_iter().collect()
    }

    /// Enters a transfer that somebody asked for and that was made, if the journal was opened. It
    /// is made whether it can be entered or not.
    pub(crate) fn enter_transfer(
        self: &Arc<Self>,
        group: GroupId,
        before: Option<NodeId>,
        to: NodeId,
    ) {
        if self.journal().is_empty() || before == Some(to) || group == GroupId::CATALOG {
            return;
        }
        let begun = Begun {
            autopilot: false,
            by_default: false,
            expected_revision: 0,
            act: LayoutAct::TransferLeader { group, to },
            why: String::new(),
            finding: String::new(),
            request_id: String::new(),
            from_group: Some(group),
            from_node: before,
            forecast: None,
            undoes: 0,
            done: true,
            time_ms: 0,
        };
        let autopilot = Arc::clone(self);
        tokio::spawn(async move {
            let begin = JournalCommand::Begin { begun: Box::new(begun) };
            if let Err(error) = autopilot.change(&begin).await {
                tracing::warn!(%group, "a transfer is not in the journal: {error}");
            }
        });
    }

    /// Takes an act to its end, and records that.
    pub(super) async fn carry_out(&self, entry: &JournalEntry) {
        let made = self.make(entry).await;
        let (state, version) = match made {
            Ok(version) => (ActState::Done, version),
            Err(failure) => (ActState::Failed { reason: failure.to_string() }, 0),
        };
        let id = entry.id;
        if let ActState::Failed { reason } = &state {
            tracing::warn!(id, "an act was not done: {reason}");
        }
        let counter = match state {
            ActState::Done => &self.counters.done,
            _ => &self.counters.failed,
        };
        let end = JournalCommand::End { id, state, version, time_ms: 0 };
        loop {
            match self.change(&end).await {
                Ok(_) => {
                    counter.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Err(CatalogChangeError::JournalRefused(_)) => return,
                Err(error) => tracing::warn!(id, "the end of an act was not recorded: {error}"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}
