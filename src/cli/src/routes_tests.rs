use super::*;
use bytes::Bytes;

fn list() -> proto::ListRoutesResponse {
    let route = |id, start: &'static [u8], end: Option<&'static [u8]>| proto::Route {
        route_id: id,
        start: Bytes::from_static(start),
        end: end.map(Bytes::from_static),
        group_id: 1 + id % 2,
        leader: (id != 3).then_some(2),
        parents: if id == 1 { vec![] } else { vec![1] },
        created_version: id,
        created_ms: 1_767_182_400_000,
    };
    let routes =
        vec![route(1, b"", Some(b"k")), route(3, b"k", Some(b"m\x1b")), route(4, b"m\x1b", None)];
    proto::ListRoutesResponse { catalog_version: 4, routes, ..Default::default() }
}

fn column(loads: &[(u64, u64)]) -> proto::Matrix {
    let row = |(id, value): &(u64, u64)| proto::Row {
        route_ids: vec![*id],
        route_count: 1,
        values: vec![*value, 1],
        ..proto::Row::default()
    };
    let span = |start_ms, open| proto::Column { start_ms, end_ms: start_ms + 60_000, open };
    proto::Matrix {
        columns: vec![span(1_767_182_400_000, false), span(1_767_182_460_000, true)],
        rows: loads.iter().map(row).collect(),
        ..proto::Matrix::default()
    }
}

fn printed(format: Format) -> String {
    let mut out = Vec::new();
    let load = load::RouteLoads::of(&column(&[(1, 7), (4, 90)]), &column(&[(1, 1_500)]));
    print(&mut out, &list(), load.as_ref(), format).expect("a vector takes everything");
    String::from_utf8(out).expect("output is text")
}

#[test]
fn routes_are_listed_as_a_table() {
    insta::assert_snapshot!(printed(Format::Table));
}

#[test]
fn a_route_of_one_key_says_so_and_is_not_split() {
    let mut list = list();
    list.routes[1].end = Some(Bytes::from_static(b"k\0"));
    let table = table(&list, None).trim_fmt();
    assert!(table.contains(" k        (one key) "), "{table}");
    assert_eq!(route_words(&list.routes[1]), "route 3 k (one key) in group 2");
}

#[test]
fn routes_are_listed_for_programs() {
    insta::assert_snapshot!(printed(Format::Json));
    insta::assert_snapshot!(printed(Format::Csv));
}

#[test]
fn changes_are_told_in_words_and_in_the_names_of_the_protos() {
    let table = list();
    let delta = proto::RouteDelta {
        catalog_version: 5,
        kind: "split\x1b".into(),
        time_ms: 1_767_182_400_000,
        retired: vec![1],
        created: table.routes[1..].to_vec(),
    };
    let snapshot =
        proto::RouteSnapshot { catalog_version: 4, routes: table.routes, more: false, reset: true };
    let mut out = Vec::new();
    for event in [
        Event::Snapshot(snapshot),
        Event::Deltas(proto::RouteDeltas { deltas: vec![delta] }),
        Event::Progress(proto::RouteProgress { catalog_version: 5 }),
    ] {
        let message = proto::WatchRoutesResponse { event: Some(event), ..Default::default() };
        event_lines(&mut out, &message).expect("a vector takes everything");
        output::json_line(&mut out, &WatchJson::new(&message)).expect("a vector takes everything");
    }
    insta::assert_snapshot!(String::from_utf8(out).expect("output is text"));
}
