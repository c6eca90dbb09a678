//! Tests of the module.

use super::*;

fn status() -> proto::ClusterStatus {
    let member = |id: u64, ok: bool| proto::Member {
        id,
        address: format!("127.0.0.1:740{id}"),
        http: if id == 1 { "127.0.0.1:7501".into() } else { String::new() },
        ok,
        error: if ok { String::new() } else { "connection refused\x1b[0m".into() },
        catalog_version: 3,
        version: "0.1.0".into(),
        voter: true,
        uptime_ms: 61_500,
        latency_ms: 2,
        leaving: id == 2,
        not_ready: String::new(),
        warning: String::new(),
        read_only: if id == 1 { "the disk of /data is full".into() } else { String::new() },
    };
    let replica = |node_id, role: &str, lag| proto::Replica {
        node_id,
        voter: true,
        role: role.into(),
        last_log_index: 12,
        applied_index: 10,
        lag,
        snapshot_rows: (node_id == 2).then_some(120_000),
        closed: String::new(),
    };
    let group = |group_id, leader| proto::Group {
        group_id,
        leader,
        term: 2,
        routes: group_id * 4,
        replicas: vec![
            replica(1, "leader", Some(0)),
            replica(2, "follower", None),
            replica(3, "", None),
        ],
    };
    proto::ClusterStatus {
        cluster_id: "c0ffee".into(),
        catalog_version: 3,
        members: vec![member(1, true), member(2, true), member(3, false)],
        groups: vec![group(0, Some(1)), group(1, None)],
        moves: vec![proto::Move {
            group_id: 1,
            from: vec![1, 2, 3],
            to: vec![1, 3, 4],
            copied_index: Some(10),
            last_index: Some(12),
            received_bytes: 0,
        }],
        moves_left: Some(3),
        moves_waiting: 1,
        replication: 3,
        leaders_due: true,
        removed: String::new(),
        route_moves: vec![proto::RouteMove {
            move_id: 3,
            route_id: 7,
            from_group: 1,
            to_group: 2,
            phase: "copying".into(),
            started_ms: 1_000,
            ..Default::default()
        }],
    }
}

#[test]
fn a_member_that_does_not_answer_is_shown_with_its_reason() {
    let mut out = Vec::new();
    print_tables(&mut out, &status()).expect("a vector takes everything");
    insta::assert_snapshot!(String::from_utf8(out).expect("output is text"));
}

#[test]
fn the_status_for_programs_has_the_names_of_the_protos() {
    let json = serde_json::to_string_pretty(&ClusterJson::from(&status()));
    insta::assert_snapshot!(json.expect("it has no map with odd keys"));
}
