//! One member's part in a query: both rounds, its checks and its status.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use keyviz_core::copies::HeldCopy;
use keyviz_core::matrix::NodeStatus;
use keyviz_core::query::{ColumnPlan, NodeTotals, RowAxis};
use keyviz_core::wire::{CheckedColumns, PackedColumns};
use keyviz_core::{NodeId, Query};

use super::parts::FanoutParts;
use super::peers::{PeerTotals, RoundError};
use super::work::Asker;

/// A member and its answers so far.
pub(super) struct Member {
    parts: Arc<FanoutParts>,
    node: NodeId,
    status: NodeStatus,
    totals: Option<NodeTotals>,
    copies: Vec<HeldCopy>,
    asked: Instant,
    deadline: Instant,
    /// Of the other members over this node.
    head_start: Duration,
}

/// The request of round two, the same for all members.
#[derive(Clone)]
pub(super) struct Planned {
    pub query: Arc<Query>,
    pub rows: Arc<RowAxis>,
    pub columns: Arc<ColumnPlan>,
    /// The start of the window, if the caller gave one.
    pub asked_from_ms: Option<u64>,
}

impl Member {
    pub(super) fn new(
        parts: Arc<FanoutParts>,
        node: NodeId,
        address: String,
        deadline: Instant,
    ) -> Self {
        let status = NodeStatus { node: Some(node), address, ..NodeStatus::default() };
        let (asked, head_start) = (Instant::now(), Duration::ZERO);
        let copies = Vec::new();
        Member { parts, node, status, totals: None, copies, asked, deadline, head_start }
    }

    /// The same, asked this much later in each round if it is this node.
    pub(super) fn with_head_start(self, head_start: Duration) -> Self {
        Member { head_start, ..self }
    }

    /// Its totals, once received.
    pub(super) fn totals(&self) -> Option<&NodeTotals> {
        self.totals.as_ref()
    }

    /// The same to plan rows with, once: the ranges move out of the member.
    pub(super) fn take_totals(&mut self) -> Option<NodeTotals> {
        let totals = self.totals.as_mut()?;
        let ranges = std::mem::take(&mut totals.ranges);
        Some(NodeTotals { ranges, ..totals.clone() })
    }

    /// The member.
    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    /// What it holds in the names of others.
    pub(super) fn copies(&self) -> &[HeldCopy] {
        &self.copies
    }

    pub(super) fn status(&self) -> &NodeStatus {
        &self.status
    }

    pub(super) fn status_mut(&mut self) -> &mut NodeStatus {
        &mut self.status
    }

    pub(super) fn into_status(self) -> NodeStatus {
        self.status
    }

    /// It is not in the answer, for this reason.
    pub(super) fn fail(&mut self, error: impl ToString) {
        self.status.ok = false;
        self.status.error = Some(error.to_string());
        self.totals = None;
    }

    /// Round one. A member that fails in it is left out of round two.
    pub(super) async fn round_one(mut self, query: Arc<Query>) -> Self {
        let sent_ms = self.parts.local.clock().now_ms();
        let answer = self.ask_totals(query).await;
        let got_ms = self.parts.local.clock().now_ms();
        self.status.latency_ms = millis(self.asked.elapsed());
        let step_ms = self.parts.local.history().config().step_ms;
        match answer {
            Ok(peer) => {
                self.status.clock_skew_ms = skew(sent_ms, got_ms, peer.now_ms);
                if peer.step_ms == step_ms {
                    self.copies = peer.copies;
                    self.totals = Some(peer.totals);
                } else {
                    self.fail(RoundError::Step { theirs_ms: peer.step_ms, ours_ms: step_ms });
                }
            }
            Err(error) => self.fail(error),
        }
        self
    }

    async fn ask_totals(&self, query: Arc<Query>) -> Result<PeerTotals, RoundError> {
        if self.node == self.parts.node {
            self.give_head_start().await;
            let local = &self.parts.local;
            let totals = self.within(local.totals(Asker::Own, query)).await?;
            let step_ms = local.history().config().step_ms;
            let (now_ms, copies) = (local.clock().now_ms(), local.held_copies());
            return Ok(PeerTotals { totals, now_ms, step_ms, copies });
        }
        let range = query.range.clone();
        let peer = self.within(self.parts.peers.totals(self.node, query)).await?;
        self.check_sender(peer.totals.node)?;
        peer.totals.check(&range)?;
        Ok(peer)
    }

    /// Round two, for a member that answered round one.
    pub(super) async fn round_two(mut self, planned: Planned) -> (Self, Vec<CheckedColumns>) {
        let Some(totals) = self.totals.take() else { return (self, Vec::new()) };
        if let Err(error) = unplanned(&totals, &planned) {
            self.fail(error);
            return (self, Vec::new());
        }
        let answer = self.ask_columns(&planned).await;
        self.status.latency_ms = millis(self.asked.elapsed());
        let parts = match answer {
            Ok(parts) => parts,
            Err(error) => {
                self.fail(error);
                return (self, Vec::new());
            }
        };
        self.status.ok = true;
        self.status.columns = totals.columns;
        self.status.oldest_ms = Some(totals.oldest_ms);
        self.status.open_ms = Some(totals.open_ms);
        self.status.newest_ms = Some(totals.newest_ms).filter(|newest_ms| *newest_ms > 0);
        self.status.incarnation = Some(totals.incarnation);
        (self, parts)
    }

    async fn ask_columns(&self, planned: &Planned) -> Result<Vec<CheckedColumns>, RoundError> {
        let Planned { query, rows, columns, .. } = planned.clone();
        let sound = |part: PackedColumns| {
            part.checked(&planned.rows, &planned.columns).map_err(RoundError::from)
        };
        if self.node == self.parts.node {
            self.give_head_start().await;
            let parts = {
                let own = self.parts.local.columns(Asker::Own, query, rows, columns, true);
                self.within(own).await?
            };
            return parts.into_iter().map(|part| sound(part.into())).collect();
        }
        let asked = self.parts.peers.columns(self.node, query, rows, columns);
        let parts = self.within(asked).await?;
        for part in &parts {
            self.check_sender(part.held_by)?;
        }
        parts.into_iter().map(sound).collect()
    }

    async fn give_head_start(&self) {
        if !self.head_start.is_zero() {
            tokio::time::sleep(self.head_start).await;
        }
    }

    /// Two members under one address are one node, which speaks for itself only.
    fn check_sender(&self, sender: NodeId) -> Result<(), RoundError> {
        if sender == self.node { Ok(()) } else { Err(RoundError::OtherNode(sender)) }
    }

    async fn within<T, E: Into<RoundError>>(
        &self,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, RoundError> {
        match timeout_at(self.deadline, answer).await {
            Ok(answer) => answer.map_err(Into::into),
            Err(_) => Err(RoundError::Deadline(self.parts.deadline)),
        }
    }
}

/// Fails if a member that was late in round one holds columns of the window that are older than
/// those of all members in time, and so not in the plan.
fn unplanned(totals: &NodeTotals, planned: &Planned) -> Result<(), RoundError> {
    let first_ms = planned.columns.columns().first().map(|first| first.start_ms);
    let asked_before = |at_ms: u64| planned.asked_from_ms.is_some_and(|from_ms| from_ms < at_ms);
    match first_ms {
        Some(first_ms) if totals.oldest_ms < first_ms && asked_before(first_ms) => {
            Err(RoundError::Unplanned)
        }
        _ => Ok(()),
    }
}

/// A peer's clock less ours, taken at the middle of the round trip.
pub(super) fn skew(sent_ms: u64, got_ms: u64, theirs_ms: u64) -> i64 {
    let ours = i128::from(sent_ms) + (i128::from(got_ms) - i128::from(sent_ms)) / 2;
    let skew = i128::from(theirs_ms) - ours;
    i64::try_from(skew).unwrap_or(if skew > 0 { i64::MAX } else { i64::MIN })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skew_is_measured_at_the_middle_of_the_round_trip() {
        assert_eq!(skew(100, 200, 150), 0);
        assert_eq!(skew(100, 200, 1_150), 1_000);
        assert_eq!(skew(5_000, 5_010, 0), -5_005);
        assert_eq!(skew(0, 0, u64::MAX), i64::MAX);
        // A clock that was set back between the two readings.
        assert_eq!(skew(200, 100, 150), 0);
    }
}
