//! What keeps the autopilot from acting.

use super::cost::Present;
use super::input::Input;
use super::reason::{LEAST_COLUMNS, Reason};
use keyviz_types::{GroupId, NodeId};

/// What keeps anything from being done.
pub(super) fn obstacles(input: &Input<'_>, present: &Present) -> Vec<Reason> {
    let health = input.health;
    let mut reasons = Vec::new();
    let nodes = |nodes: &Vec<NodeId>| (!nodes.is_empty()).then(|| nodes.clone());
    let groups = |groups: &Vec<GroupId>| (!groups.is_empty()).then(|| groups.clone());
    reasons.extend(nodes(&health.missing).map(Reason::Missing));
    reasons.extend(groups(&health.leaderless).map(Reason::Leaderless));
    reasons.extend(groups(&health.lagging).map(Reason::Lagging));
    reasons.extend(nodes(&health.scarce).map(Reason::Scarce));
    reasons.extend(health.replicas_move.then_some(Reason::ReplicasMove));
    reasons.extend((health.partial || present.partial).then_some(Reason::Partial));
    if present.columns < LEAST_COLUMNS {
        reasons.push(Reason::FewColumns { columns: present.columns });
    }
    reasons
}
