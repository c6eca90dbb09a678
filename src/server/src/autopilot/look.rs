//! What is decided on: the load, the layout, and what may be wrong.

use keyviz_catalog::{ActState, JournalEntry, LayoutAct};
use keyviz_core::autopilot::{By, Cold, Decision, Health, Input, Past, State, decide, present};
use keyviz_core::insight::Topology;
use keyviz_fanout::FindingsError;
use keyviz_proto as proto;
use keyviz_types::{GroupId, NodeId};
use tonic::Status;

use super::Autopilot;
use super::wire::act_from_stored;
use crate::grpc::findings_wire::topology;

/// Columns of a look.
const COLUMNS: u64 = 6;

/// Entries of its leader's log that a replica has not applied, from which on its group lags.
const LAGS: u64 = 20_000;

/// Why there was no look.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookError {
    #[error(transparent)]
    Findings(#[from] FindingsError),
    #[error("{}", .0.message())]
    Status(#[from] Status),
}

impl Autopilot {
    /// What to do at present, and when that was.
    pub(super) async fn look(&self, cold: &mut Cold) -> Result<(Decision, u64), LookError> {
        let columns = self.parts.findings.last_columns(COLUMNS).await?;
        let status = self.parts.cluster.status().await?;
        let journal = self.journal();
        let past: Vec<Past> = journal.entries().filter_map(|entry| past(entry)).collect();
        let mut health = health(&status);
        health.partial = columns.partial;
        let own = |moving: &&proto::RouteMove| {
            journal
                .entries()
                .any(|entry| entry.state == ActState::UnderWay && moves_to(entry, moving.to_group))
        };
        let others = status
            .route_moves
            .iter()
            .filter(|moving| matches!(moving.phase.as_str(), "copying" | "sealing"));
        let others = others.filter(|moving| !own(moving)).count();
        health.other_moves = u32::try_from(others).unwrap_or(u32::MAX);
        let topology = self.topology(&status);
        let now_ms = columns.now_ms;
        if !columns.partial {
            cold.observe(&present(&columns.load, now_ms), &topology, now_ms);
        }
        let decision = decide(&Input {
            load: &columns.load,
            topology: &topology,
            health: &health,
            journal: &past,
            cold,
            policy: &self.parts.config.policy,
            now_ms,
        });
        Ok((decision, now_ms))
    }

    /// Members, groups, leaders and routes.
    pub(super) fn topology(&self, status: &proto::ClusterStatus) -> Topology {
        Topology { routes: self.parts.findings.routes(), ..topology(status) }
    }
}

/// Whether a move to a group may be a step of an act. Which of two moves to one group is whose does
/// not matter here.
fn moves_to(entry: &JournalEntry, group: u64) -> bool {
    match &entry.act {
        LayoutAct::Move { to, .. } | LayoutAct::SplitAndMove { to, .. } => to.0 == group,
        _ => false,
    }
}

fn health(status: &proto::ClusterStatus) -> Health {
    let nodes = |wrong: fn(&proto::Member) -> bool| {
        status.members.iter().filter(move |member| wrong(member)).map(|member| NodeId(member.id))
    };
    let groups = |wrong: fn(&proto::Group) -> bool| {
        status.groups.iter().filter(move |group| wrong(group)).map(|group| GroupId(group.group_id))
    };
    Health {
        missing: nodes(|member| !member.ok || !member.not_ready.is_empty()).collect(),
        leaderless: groups(|group| group.leader.is_none()).collect(),
        lagging: groups(|group| group.replicas.iter().any(lags)).collect(),
        scarce: nodes(|member| !member.read_only.is_empty()).collect(),
        replicas_move: !status.moves.is_empty()
            || status.leaders_due
            || status.members.iter().any(|member| member.leaving),
        partial: false,
        other_moves: 0,
    }
}

fn lags(replica: &proto::Replica) -> bool {
    !replica.closed.is_empty() || replica.lag.is_some_and(|lag| lag > LAGS)
}

/// An entry of the journal as what is decided on.
pub(super) fn past(entry: &JournalEntry) -> Option<Past> {
    Some(Past {
        id: entry.id,
        by: if entry.autopilot { By::Autopilot } else { By::Operator },
        act: act_from_stored(&entry.act),
        from_group: entry.from_group,
        from_node: entry.from_node,
        state: match entry.state {
            ActState::UnderWay => State::UnderWay,
            ActState::Done => State::Done,
            ActState::Failed { .. } => State::Failed,
        },
        started_ms: entry.started_ms,
        ended_ms: (entry.ended_ms > 0).then_some(entry.ended_ms),
        worse: entry.outcome.as_ref().is_some_and(|outcome| outcome.worse),
        undone: entry.undone_by > 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acts_bounded_and_proven_what_is_wrong_is_seen_in_the_status() {
        let member = |id, ok: bool, not_ready: &str, read_only: &str| proto::Member {
            id,
            ok,
            not_ready: not_ready.to_owned(),
            read_only: read_only.to_owned(),
            ..Default::default()
        };
        let replica = |lag| proto::Replica { lag, ..Default::default() };
        let group = |group_id, leader, lag| proto::Group {
            group_id,
            leader,
            replicas: vec![replica(Some(0)), replica(lag)],
            ..Default::default()
        };
        let status = proto::ClusterStatus {
            members: vec![
                member(1, true, "", ""),
                member(2, false, "", ""),
                member(3, true, "no quorum", ""),
                member(4, true, "", "the disk is full"),
            ],
            groups: vec![
                group(0, Some(1), Some(9)),
                group(1, None, None),
                group(2, Some(1), Some(LAGS + 1)),
            ],
            leaders_due: true,
            ..Default::default()
        };
        let found = health(&status);
        assert_eq!(found.missing, [NodeId(2), NodeId(3)]);
        assert_eq!(found.scarce, [NodeId(4)]);
        assert_eq!((found.leaderless, found.lagging), (vec![GroupId(1)], vec![GroupId(2)]));
        assert!(found.replicas_move);
        let sound = proto::ClusterStatus {
            members: vec![member(1, true, "", "")],
            groups: vec![group(0, Some(1), Some(5))],
            ..Default::default()
        };
        assert_eq!(health(&sound), Health::default());
    }
}
