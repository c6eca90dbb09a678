use super::*;

fn route(route_id: u64, start: &'static str) -> Route {
    Route { route_id, start: Bytes::from(start), ..Route::default() }
}

fn table() -> RouteTable {
    let mut table = RouteTable::default();
    table.replace(3, vec![route(1, ""), route(2, "m")]);
    table
}

fn delta(catalog_version: u64, retired: &[u64], created: Vec<Route>) -> RouteDelta {
    let retired = retired.to_vec();
    RouteDelta { catalog_version, retired, created, ..RouteDelta::default() }
}

fn ids(table: &RouteTable) -> Vec<u64> {
    table.iter().map(|route| route.route_id).collect()
}

#[test]
fn a_table_finds_the_route_of_a_key_and_follows_changes() {
    let mut table = table();
    let id = |table: &RouteTable, key: &[u8]| table.route_of(key).map(|route| route.route_id);
    assert_eq!(
        (id(&table, b""), id(&table, b"lzz"), id(&table, b"m")),
        (Some(1), Some(1), Some(2))
    );
    table.apply(&delta(4, &[2], vec![route(3, "m"), route(4, "t")])).expect("a split");
    assert_eq!((ids(&table), id(&table, b"tt")), (vec![1, 3, 4], Some(4)));
    table.apply(&delta(5, &[1, 3], vec![route(5, "")])).expect("a merge");
    assert_eq!((ids(&table), table.version()), (vec![5, 4], 5));
    assert_eq!(RouteTable::default().route_of(b"a"), None);
}

#[test]
fn a_change_that_does_not_follow_is_refused() {
    assert!(table().apply(&delta(5, &[2], vec![route(3, "m")])).is_err(), "version 4 is missing");
    assert!(table().apply(&delta(4, &[9], vec![route(3, "m")])).is_err(), "route 9 is unknown");
    assert!(table().apply(&delta(4, &[2], vec![route(3, "")])).is_err(), "two routes at one key");
}
