//! Findings as messages.

use keyviz_core::insight::{Able, Act, Change, Finding, Forecast, GroupPlace, Remedy, Topology};
use keyviz_fanout::FindingsAnswer;
use keyviz_proto as proto;
use keyviz_types::{GroupId, NodeId};

use keyviz_peer::matrix_wire::status_to_wire;

/// What a cluster of this version can do.
pub(super) const ABLE: Able = Able { split: true, merge: true, transfer: true, moves: true };

pub(crate) fn topology(status: &proto::ClusterStatus) -> Topology {
    let serves = |member: &&proto::Member| member.ok && !member.leaving;
    let place = |group: &proto::Group| GroupPlace {
        group: GroupId(group.group_id),
        leader: group.leader.map(NodeId),
        replicas: group
            .replicas
            .iter()
            .filter(|replica| replica.voter && replica.closed.is_empty())
            .map(|replica| NodeId(replica.node_id))
            .collect(),
    };
    let holds = |group: &&proto::Group| group.group_id != GroupId::CATALOG.0;
    Topology {
        nodes: status.members.iter().filter(serves).map(|member| NodeId(member.id)).collect(),
        groups: status.groups.iter().filter(holds).map(place).collect(),
        routes: Vec::new(),
    }
}

pub(super) fn findings_to_wire(answer: FindingsAnswer) -> proto::Findings {
    let acts = [
        ("split", ABLE.split),
        ("merge", ABLE.merge),
        ("transfer-leader", ABLE.transfer),
        ("move", ABLE.moves),
    ];
    proto::Findings {
        findings: answer.findings.into_iter().map(finding_to_wire).collect(),
        resolved: answer.resolved.into_iter().map(finding_to_wire).collect(),
        omitted: answer.omitted,
        from_ms: answer.from_ms,
        to_ms: answer.to_ms,
        columns: answer.columns,
        partial_columns: answer.partial_columns,
        rate: answer.rate,
        catalog_version: answer.catalog_version,
        nodes: answer.nodes.into_iter().map(status_to_wire).collect(),
        responded: answer.responded,
        expected: answer.expected,
        acts: acts.iter().filter(|(_, able)| *able).map(|(act, _)| (*act).to_owned()).collect(),
    }
}

fn finding_to_wire(finding: Finding) -> proto::Finding {
    let fact = |fact: keyviz_core::insight::Fact| proto::Fact {
        name: fact.name.to_owned(),
        value: fact.value,
        level: fact.level,
    };
    proto::Finding {
        id: finding.id.to_string(),
        kind: finding.kind.name().to_owned(),
        start: finding.range.start,
        end: finding.range.end,
        key: finding.key,
        groups: finding.groups.iter().map(|group| group.0).collect(),
        nodes: finding.nodes.iter().map(|node| node.0).collect(),
        share: finding.share,
        rate: finding.rate,
        since_ms: finding.since.at_ms,
        since_earliest_ms: finding.since.earliest_ms,
        since_latest_ms: finding.since.latest_ms,
        summary: finding.summary,
        advice: finding.advice,
        facts: finding.facts.into_iter().map(fact).collect(),
        sparkline: finding.sparkline,
        confidence: finding.confidence,
        remedies: finding.remedies.into_iter().map(remedy_to_wire).collect(),
        resolved_ms: finding.resolved_ms,
    }
}

fn remedy_to_wire(remedy: Remedy) -> proto::Remedy {
    let words = remedy.act.words();
    let forecast = Some(forecast_to_wire(&remedy.forecast));
    let of_range = |act: &str, range: keyviz_types::KeyRange| proto::Remedy {
        act: act.to_owned(),
        start: Some(range.start),
        end: range.end,
        ..Default::default()
    };
    let told = match remedy.act {
        Act::Split { at } => {
            proto::Remedy { act: "split".to_owned(), at: Some(at), ..Default::default() }
        }
        Act::SplitAndMove { at, range, to } => {
            proto::Remedy { at: Some(at), group: Some(to.0), ..of_range("split-and-move", range) }
        }
        Act::Move { range, to } => proto::Remedy { group: Some(to.0), ..of_range("move", range) },
        Act::TransferLeader { group, to } => proto::Remedy {
            act: "transfer-leader".to_owned(),
            group: Some(group.0),
            node: Some(to.0),
            ..Default::default()
        },
        Act::ReadFromFollowers { range } => of_range("read-from-followers", range),
        Act::Merge { range } => of_range("merge", range),
    };
    proto::Remedy { words, forecast, ..told }
}

pub(crate) fn forecast_to_wire(forecast: &Forecast) -> proto::Forecast {
    let change = |id: u64, change: &Change| proto::LoadChange {
        id,
        before: change.before,
        after: change.after,
    };
    let hottest = forecast.hottest_node();
    proto::Forecast {
        nodes: forecast.nodes.iter().map(|(node, of)| change(node.0, of)).collect(),
        groups: forecast.groups.iter().map(|(group, of)| change(group.0, of)).collect(),
        unplaced: forecast.unplaced,
        hottest_before: hottest.before,
        hottest_after: hottest.after,
        imbalance_before: forecast.imbalance.before,
        imbalance_after: forecast.imbalance.after,
        routes_saved: forecast.routes_saved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_do_not_answer_and_the_catalog_serve_nothing() {
        let member = |id, ok, leaving| proto::Member { id, ok, leaving, ..Default::default() };
        let replica = |node_id, voter, closed: &str| proto::Replica {
            node_id,
            voter,
            closed: closed.to_owned(),
            ..Default::default()
        };
        let group = |group_id, leader| proto::Group {
            group_id,
            leader,
            replicas: vec![replica(1, true, ""), replica(2, false, ""), replica(3, true, "lost")],
            ..Default::default()
        };
        let found = topology(&proto::ClusterStatus {
            members: vec![member(1, true, false), member(2, false, false), member(3, true, true)],
            groups: vec![group(GroupId::CATALOG.0, Some(1)), group(7, None)],
            ..Default::default()
        });
        assert_eq!(found.nodes, [NodeId(1)]);
        let replicas = vec![NodeId(1)];
        assert_eq!(found.groups, [GroupPlace { group: GroupId(7), leader: None, replicas }]);
    }
}
