//! Acts that operators ask for: what they would do, and why one cannot be done.

use keyviz_catalog::check_boundary;
use keyviz_core::autopilot::forecast;
use keyviz_core::insight::{Act, Forecast, Topology};
use keyviz_proto as proto;
use keyviz_types::{GroupId, KeyRange, NodeId, RouteSpec};
use tonic::Status;

use super::Autopilot;
use super::steps::{shares, whole_routes};

/// Columns that a preview replays.
const COLUMNS: u64 = 6;

/// An act that was looked at.
pub(super) struct Looked {
    pub act: Act,
    pub topology: Topology,
    pub forecast: Forecast,
    /// Why it cannot be done.
    pub refused: Option<String>,
}

/// The act of a request.
pub(super) fn act_from_wire(act: Option<proto::Act>) -> Result<Act, Status> {
    let missing = |field: &str| Status::invalid_argument(format!("act: {field} is missing"));
    let act = act.ok_or_else(|| missing("the act"))?;
    let range = |act: &proto::Act| KeyRange {
        start: act.start.clone().unwrap_or_default(),
        end: act.end.clone(),
    };
    let at = || act.at.clone().ok_or_else(|| missing("at"));
    let group = || act.group.map(GroupId).ok_or_else(|| missing("group"));
    let found = match act.act.as_str() {
        "split" => Act::Split { at: at()? },
        "split-and-move" => Act::SplitAndMove { at: at()?, range: range(&act), to: group()? },
        "move" => Act::Move { range: range(&act), to: group()? },
        "transfer-leader" => {
            let to = act.node.map(NodeId).ok_or_else(|| missing("node"))?;
            Act::TransferLeader { group: group()?, to }
        }
        "merge" => Act::Merge { range: range(&act) },
        "read-from-followers" => Act::ReadFromFollowers { range: range(&act) },
        other => {
            return Err(Status::invalid_argument(format!(
                "act={other:.40}: one of split, split-and-move, move, transfer-leader, merge"
            )));
        }
    };
    if let Act::Split { at } | Act::SplitAndMove { at, .. } = &found {
        let bad = |error| Status::invalid_argument(format!("at: {error}"));
        check_boundary(at).map_err(bad)?;
    }
    if let Act::SplitAndMove { range, .. } | Act::Move { range, .. } | Act::Merge { range } = &found
        && range.is_empty()
    {
        return Err(Status::invalid_argument("the range is empty: its end is not after its start"));
    }
    Ok(found)
}

impl Autopilot {
    /// What an act would do, decided on the present layout.
    pub(super) async fn try_act(&self, act: Act) -> Result<Looked, Status> {
        let status = self.parts.cluster.status().await?;
        let topology = self.topology(&status);
        let refused = refusal(&act, &topology);
        let columns = self.parts.findings.last_columns(COLUMNS).await;
        let columns = columns
            .map_err(|error| Status::unavailable(format!("the load could not be read: {error}")))?;
        let forecast = forecast(&columns.load, &topology, &act, columns.now_ms);
        Ok(Looked { act, topology, forecast, refused })
    }
}

/// Why an act cannot be done, in words.
fn refusal(act: &Act, topology: &Topology) -> Option<String> {
    let group_exists = |group: &GroupId| topology.place(*group).is_some();
    let no_group = |group: &GroupId| format!("there is no data group {group}");
    let routes = |range: &KeyRange| whole_routes(&topology.routes, range);
    const NOT_WHOLE: &str = "the keys are not those of whole routes; split first";
    match act {
        Act::Split { at } => {
            let begins = topology.routes.iter().any(|route| route.range.start == *at);
            begins.then(|| "a route begins at that key already".to_owned())
        }
        Act::SplitAndMove { at, range, to } => {
            let side = range.start == *at || range.end.as_ref() == Some(at);
            // Beyond the cut, the side reaches to the bounds of the route.
            let mut cut = topology.routes.clone();
            split(&mut cut, at);
            match whole_routes(&cut, range) {
                _ if !group_exists(to) => Some(no_group(to)),
                _ if !side => Some("the key to split at is no bound of the keys".to_owned()),
                None => Some("the keys are not one side of the split".to_owned()),
                Some(routes) if routes.iter().all(|route| route.group == *to) => {
                    Some(format!("the keys are in group {to} already"))
                }
                Some(_) => None,
            }
        }
        Act::Move { to, .. } if !group_exists(to) => Some(no_group(to)),
        Act::Move { range, to } => match routes(range) {
            None => Some(NOT_WHOLE.to_owned()),
            Some(routes) if routes.iter().all(|route| route.group == *to) => {
                Some(format!("the keys are in group {to} already"))
            }
            Some(_) => None,
        },
        Act::TransferLeader { group, to } => match topology.place(*group) {
            None => Some(no_group(group)),
            Some(place) if place.leader == Some(*to) => {
                Some(format!("node {to} leads group {group} already"))
            }
            Some(place) if !place.replicas.contains(to) => {
                Some(format!("node {to} has no replica of group {group}"))
            }
            Some(_) => None,
        },
        Act::Merge { range } => match routes(range) {
            None => Some(NOT_WHOLE.to_owned()),
            Some(routes) if routes.len() < 2 => Some("the keys are one route already".to_owned()),
            Some(routes) if routes.iter().any(|route| route.group != routes[0].group) => {
                Some("the routes are in several groups; move them into one first".to_owned())
            }
            Some(_) => None,
        },
        Act::ReadFromFollowers { .. } => Some(
            "programs decide where they read: with consistency `stale`, or through any replica"
                .to_owned(),
        ),
    }
}

fn split(routes: &mut Vec<RouteSpec>, at: &bytes::Bytes) {
    let inside = |route: &RouteSpec| route.range.start < *at && route.range.contains(at);
    let Some(found) = routes.iter().position(inside) else { return };
    let mut right = routes[found].clone();
    routes[found].range.end = Some(at.clone());
    right.range.start = at.clone();
    debug_assert!(!shares(&routes[found].range, &right.range), "they touch");
    routes.insert(found + 1, right);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use keyviz_core::insight::GroupPlace;
    use keyviz_types::RouteId;

    fn range(start: &'static str, end: Option<&'static str>) -> KeyRange {
        KeyRange { start: Bytes::from(start), end: end.map(Bytes::from) }
    }

    fn topology() -> Topology {
        let place = |group| GroupPlace {
            group: GroupId(group),
            leader: Some(NodeId(group)),
            replicas: vec![NodeId(1), NodeId(2)],
        };
        let route = |id, range, group| RouteSpec {
            id: RouteId::new(id).expect("not 0"),
            range,
            group: GroupId(group),
        };
        Topology {
            nodes: vec![NodeId(1), NodeId(2), NodeId(3)],
            groups: vec![place(1), place(2)],
            routes: vec![
                route(1, range("", Some("g")), 1),
                route(2, range("g", Some("m")), 1),
                route(3, range("m", None), 2),
            ],
        }
    }

    #[test]
    fn acts_bounded_and_proven_what_cannot_be_done_is_said_before_it_is_tried() {
        let why = |act: Act| refusal(&act, &topology());
        let says = |act: Act, word: &str| {
            let said = why(act.clone());
            assert!(said.as_ref().is_some_and(|said| said.contains(word)), "{act:?}: {said:?}");
        };
        let (one, two, nine) = (GroupId(1), GroupId(2), GroupId(9));
        says(Act::Split { at: "g".into() }, "begins");
        assert_eq!(why(Act::Split { at: "h".into() }), None);
        says(Act::Move { range: range("g", Some("m")), to: nine }, "no data group");
        says(Act::Move { range: range("h", Some("m")), to: two }, "whole routes");
        says(Act::Move { range: range("g", Some("m")), to: one }, "already");
        assert_eq!(why(Act::Move { range: range("", Some("m")), to: two }), None);
        let side = |at: &'static str, range| Act::SplitAndMove { at: at.into(), range, to: two };
        assert_eq!(why(side("h", range("h", Some("m")))), None);
        assert_eq!(why(side("h", range("g", Some("h")))), None);
        says(side("h", range("h", Some("l"))), "one side");
        says(side("h", range("g", Some("m"))), "no bound");
        says(Act::TransferLeader { group: one, to: NodeId(1) }, "already");
        says(Act::TransferLeader { group: one, to: NodeId(3) }, "no replica");
        assert_eq!(why(Act::TransferLeader { group: one, to: NodeId(2) }), None);
        assert_eq!(why(Act::Merge { range: range("", Some("m")) }), None);
        says(Act::Merge { range: range("g", None) }, "several groups");
        says(Act::Merge { range: range("g", Some("m")) }, "one route");
        says(Act::ReadFromFollowers { range: KeyRange::all() }, "programs decide");
    }

    #[test]
    fn bad_input_of_acts_is_refused_by_name() {
        let of = |act: &str| proto::Act { act: act.to_owned(), ..Default::default() };
        let said =
            |act: proto::Act| act_from_wire(Some(act)).expect_err("bad").message().to_owned();
        assert!(act_from_wire(None).is_err());
        assert!(said(of("explode")).contains("one of split"));
        assert!(said(of("split")).contains("at is missing"));
        assert!(said(of("move")).contains("group is missing"));
        let transfer = proto::Act { group: Some(1), ..of("transfer-leader") };
        assert!(said(transfer).contains("node is missing"));
        let reserved = proto::Act { at: Some(Bytes::from_static(b"\0x")), ..of("split") };
        assert!(said(reserved).contains("reserved"));
        let empty = proto::Act { start: Some("b".into()), end: Some("a".into()), ..of("merge") };
        assert!(said(empty).contains("empty"));
    }
}
