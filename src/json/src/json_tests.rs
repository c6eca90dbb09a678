use bytes::Bytes;

use super::*;
use keyviz_proto as proto;
use proptest::prelude::*;

#[test]
fn keys_are_text_where_they_show_as_text() {
    assert_eq!(key_text(b""), "");
    assert_eq!(key_text("naïve 鍵 \"q\"".as_bytes()), "naïve 鍵 \"q\"");
    assert_eq!(key_text(b"a\n"), "hex:610a");
    assert_eq!(key_text(b"\x1b[2J"), "hex:1b5b324a");
    assert_eq!(key_text("a\u{202e}".as_bytes()), "hex:61e280ae");
    assert_eq!(key_text(b"\xff"), "hex:ff");
    assert_eq!(key_text(b"hex:61"), "hex:6865783a3631");
    assert_eq!(value_text(b"a\n\tb"), "a\n\tb");
    assert_eq!(value_text(b"a\r"), "hex:610d");
}

proptest! {
    #[test]
    fn every_key_survives_its_text(key in prop::collection::vec(any::<u8>(), 0..40)) {
        prop_assert_eq!(parse_key(&key_text(&key)), Ok(Bytes::from(key.clone())));
        prop_assert_eq!(parse_key(&value_text(&key)), Ok(Bytes::from(key)));
    }

    #[test]
    fn every_text_key_survives_its_text(key in "(hex:)?\\PC{0,20}") {
        prop_assert_eq!(parse_key(&key_text(key.as_bytes())), Ok(Bytes::from(key)));
    }
}

#[test]
fn broken_hexadecimal_is_refused() {
    assert_eq!(parse_key("hex:0g"), Err(KeyTextError::NotHex { found: 'g' }));
    assert_eq!(parse_key("hex:é"), Err(KeyTextError::NotHex { found: 'é' }));
    assert_eq!(parse_key("hex:abc"), Err(KeyTextError::OddDigits { digits: 3 }));
    assert_eq!(parse_key("hex:AbfF"), Ok(Bytes::from_static(b"\xab\xff")));
}

#[test]
fn names_of_series_and_roles_can_be_read_back() {
    for series in [
        proto::Series::Reads,
        proto::Series::Writes,
        proto::Series::ReadBytes,
        proto::Series::WriteBytes,
    ] {
        assert_eq!(series_from_name(series_name(series)), Some(series));
    }
    for role in [
        proto::Role::Unspecified,
        proto::Role::LeaderWrite,
        proto::Role::LeaderRead,
        proto::Role::FollowerRead,
    ] {
        assert_eq!(role_from_name(role_name(role)), Some(role));
    }
    assert_eq!((series_from_name("ops"), role_from_name("")), (None, None));
}

#[test]
fn a_matrix_has_the_names_of_the_protos() {
    let matrix = proto::Matrix {
        series: proto::Series::WriteBytes.into(),
        catalog_version: 4,
        columns: vec![proto::Column { start_ms: 1, end_ms: 2, open: true }],
        rows: vec![
            proto::Row {
                bucket_id: "route:1".into(),
                end: Some(Bytes::from_static(b"k\x00")),
                label: "…k".into(),
                route_ids: vec![1],
                route_count: 1,
                roles: Some(proto::RoleTotals {
                    leader_write: 7,
                    leader_read: 0,
                    follower_read: 0,
                }),
                group_id: Some(2),
                values: vec![7],
                partial: vec![0],
                ..proto::Row::default()
            },
            proto::Row {
                bucket_id: "virtual:2-ab".into(),
                start: Bytes::from_static(b"k\x00"),
                aggregate: true,
                route_ids_truncated: true,
                values: vec![0],
                ..proto::Row::default()
            },
        ],
        total: 7,
        unattributed: 0,
        nodes: vec![proto::NodeStatus {
            id: 1,
            address: "a:1".into(),
            ok: true,
            clock_skew_ms: -3,
            columns: 9,
            incarnation: 5,
            oldest_ms: None,
            ..proto::NodeStatus::default()
        }],
        responded: 1,
        expected: 1,
        saturated: false,
        events: vec![proto::RouteEvent {
            time_ms: 1,
            kind: "split".into(),
            catalog_version: 4,
            retired: vec![1],
            created: vec![2, 3],
            key: Bytes::from_static(b"k\x00"),
            ..proto::RouteEvent::default()
        }],
        events_truncated: false,
        axis: proto::Axis::Now.into(),
        conflicts: vec![proto::Conflict { group_id: 2, term: 3, nodes: vec![1, 4] }],
        by_node: vec![proto::NodeShare {
            id: 1,
            total: 7,
            roles: Some(proto::RoleTotals { leader_write: 7, leader_read: 0, follower_read: 0 }),
            rows: vec![7, 0],
            unattributed: 0,
            blocks: 5,
            straddling: 800,
        }],
        blocks: vec![
            proto::Block {
                row_count: 2,
                column_count: 1,
                value: 5,
                end: Some(Bytes::from_static(b"m")),
                conflict: true,
                ..proto::Block::default()
            },
            proto::Block {
                first_row: 1,
                row_count: 1,
                column_count: 1,
                value: 800,
                start: Bytes::from_static(b"k\x00"),
                straddling: true,
                start_ms: Some(0),
                end_ms: Some(2),
                ..proto::Block::default()
            },
        ],
        straddling_total: 800,
        boundaries: vec![Bytes::from_static(b"k\x00")],
        axis_id: "00000000000000ab".into(),
        axis_gain: Some(1.5),
        ..Default::default()
    };
    let json = serde_json::to_string_pretty(&MatrixJson::from(&matrix));
    insta::assert_snapshot!(json.expect("it has no map with odd keys"));
}

#[test]
fn an_id_of_a_node_keeps_its_digits_for_readers_that_round() {
    let text = |ids: &[u64]| serde_json::to_string(&NodeIdsJson(ids)).expect("ids are JSON");
    assert_eq!(text(&[1, (1 << 53) - 1]), "[1,9007199254740991]");
    assert_eq!(text(&[1 << 53, u64::MAX]), r#"["9007199254740992","18446744073709551615"]"#);
    let group = proto::Group { leader: Some(u64::MAX), ..proto::Group::default() };
    let member = proto::Member { id: u64::MAX - 1, ..proto::Member::default() };
    let status =
        proto::ClusterStatus { groups: vec![group], members: vec![member], ..Default::default() };
    let json = serde_json::to_value(ClusterJson::from(&status)).expect("a status is JSON");
    assert_eq!(json["groups"][0]["leader"], "18446744073709551615");
    assert_eq!(json["members"][0]["id"], "18446744073709551614");
}
