use proptest::prelude::*;

use super::*;

fn samples(keys: &[&str]) -> Vec<Sample> {
    let mut all: Vec<_> = keys
        .iter()
        .map(|key| Sample { key: Bytes::copy_from_slice(key.as_bytes()), weight: 1 })
        .collect();
    all.sort();
    all
}

fn piece(start: &'static str, end: Option<&'static str>, load: u64) -> Piece {
    Piece { route: 0, start: start.into(), end: end.map(Bytes::from), load }
}

fn starts(pieces: &[Piece]) -> Vec<&str> {
    pieces.iter().map(|piece| std::str::from_utf8(&piece.start).expect("text")).collect()
}

#[test]
fn a_hot_piece_is_cut_at_its_quantiles_by_the_shortest_keys() {
    let keys: Vec<String> = (0..40).map(|n| format!("user/profile/{n:02}/x")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let cut = refine(vec![piece("", None, 4_000)], &samples(&keys), 1_000);
    assert_eq!(starts(&cut), ["", "user/profile/1", "user/profile/2", "user/profile/3"]);
    assert!(cut.iter().all(|piece| piece.load == 1_000));
    assert_eq!(cut[1].end.as_deref(), Some(&b"user/profile/2"[..]));
}

#[test]
fn a_piece_is_left_alone_when_it_is_not_hot_or_not_known() {
    let known = samples(&["a", "b", "c", "d", "e", "f", "g", "h"]);
    let warm = vec![piece("", None, 2_000)];
    assert_eq!(refine(warm.clone(), &known, 1_000), warm);
    let hot = vec![piece("", None, 9_000)];
    assert_eq!(refine(hot.clone(), &known[..7], 1_000), hot);
    assert_eq!(refine(hot, &known, 1_000).len(), 2);
}

#[test]
fn a_key_that_is_hot_by_itself_gets_a_piece_of_its_own() {
    let mut keys = vec!["hot"; 30];
    keys.extend(["a", "b", "c", "x", "y", "z"]);
    let cut = refine(vec![piece("", None, 9_000)], &samples(&keys), 1_000);
    assert_eq!(starts(&cut), ["", "hot", "hot\0"]);
    // Alone in its piece, nothing more can be cut.
    let only = samples(&["hot"; 30]);
    let alone = vec![piece("hot", Some("hot\0"), 9_000)];
    assert_eq!(refine(alone.clone(), &only, 1_000), alone);
    let parted = ["", "hot", "hot\0"];
    assert_eq!(starts(&refine(vec![piece("", None, 9_000)], &only, 1_000)), parted);
    // Also where an earlier plan gave it a piece with some other keys.
    let wide = vec![piece("h", Some("hot\0"), 9_000)];
    assert_eq!(starts(&refine(wide, &only, 1_000)), ["h", "hot"]);
    // Hot neighbours, and one that is the least key after the other.
    let neighbours = samples(&[&["a"; 20][..], &["a\0"; 20], &["c"; 20]].concat());
    let cut = refine(vec![piece("", None, 9_000)], &neighbours, 2_000);
    assert_eq!(starts(&cut), ["", "a", "a\0", "a\0\0", "c", "c\0"]);
}

#[test]
fn bounds_the_coldest_neighbours_of_a_route_join_when_slots_run_out() {
    let mut pieces = vec![
        piece("", Some("b"), 5),
        piece("b", Some("c"), 1),
        piece("c", Some("d"), 2),
        piece("d", None, 0),
    ];
    pieces[3].route = 1;
    let joined = fit(pieces.clone(), 3);
    assert_eq!(joined, [piece("", Some("b"), 5), piece("b", Some("d"), 3), pieces[3].clone()]);
    assert_eq!(fit(pieces.clone(), 1).len(), 2, "routes never join here");
    assert_eq!(fit(pieces.clone(), 4), pieces);
}

#[test]
fn the_quantum_is_an_even_share_but_never_noise() {
    assert_eq!(quantum(1_000_000, 1_000, 1_000_000), 1_000);
    assert_eq!(quantum(1_000_000, 1_000, 80), 100_000);
    assert_eq!(quantum(10, 1_000, 0), 10);
    assert_eq!(quantum(0, 1_000, 0), 1);
    assert_eq!(quantum(u64::MAX, 0, 0), u64::MAX);
}

proptest! {
    #[test]
    fn cuts_ascend_inside_the_piece_and_part_the_samples_evenly(
        keys in proptest::collection::vec("[ab]{0,6}", 8..200),
        load in 1..100_000u64,
        quantum in 1..10_000u64,
        bounds in proptest::collection::btree_set("[ab]{1,6}", 0..3),
    ) {
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let all = samples(&keys);
        let mut bounds: Vec<Bytes> = bounds.into_iter().map(Bytes::from).collect();
        bounds.truncate(2);
        let end = (bounds.len() == 2).then(|| bounds[1].clone());
        let start = bounds.first().cloned().unwrap_or_default();
        let whole = Piece { route: 3, start: start.clone(), end: end.clone(), load };
        let parts = refine(vec![whole], &all, quantum);
        prop_assert_eq!(&parts[0].start, &start);
        prop_assert_eq!(&parts[parts.len() - 1].end, &end);
        for pair in parts.windows(2) {
            prop_assert_eq!(pair[0].end.as_ref(), Some(&pair[1].start));
        }
        for part in &parts {
            prop_assert!(part.end.as_ref().is_none_or(|end| part.start < *end));
            prop_assert!(part.load <= load && part.route == 3);
        }
        prop_assert!(parts.len() as u64 <= (2 * load / quantum).max(1) + 1);
    }
}
