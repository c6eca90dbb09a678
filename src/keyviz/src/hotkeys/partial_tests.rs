//! Columns of which the keys are not known: the bounds say so.

use super::*;

#[test]
fn honest_partiality_a_history_of_before_hot_keys_says_so() {
    let mut node = Node::new();
    node.run(&Step::Load { keys: 9, calls: 500, skew: 1, seed: 3, op: false });
    node.run(&Step::Wait { ms: STEP_MS });
    // As a folder of an earlier version.
    node.stored.retain(|key, _| !crate::history::archive::is_hot_keys(key));
    node.history = History::new(config(), NodeId(1), Incarnation(2), node.now_ms).expect("valid");
    let opened = Archive::open(&node.stored);
    assert!(opened.damaged.is_empty());
    let _ = node.history.restore(opened.columns);
    let window = Window { from_ms: START_MS, to_ms: START_MS + STEP_MS };
    let part = node.query(window, KeyRange::all(), Series::Writes);
    assert!(part.partial && part.keys.is_empty());
    assert_eq!((part.threshold, part.operations), (500, 500));
}

#[test]
fn honest_partiality_stored_hot_keys_of_other_operations_are_left() {
    let of = |calls, seed| {
        let mut node = Node::new();
        node.run(&Step::Load { keys: 9, calls, skew: 1, seed, op: false });
        node.run(&Step::Wait { ms: STEP_MS });
        node
    };
    let (mut node, other) = (of(500, 3), of(499, 4));
    let names = |(key, _): &(&Vec<u8>, &Vec<u8>)| crate::history::archive::is_hot_keys(key);
    for (key, record) in other.stored.iter().filter(names) {
        assert!(node.stored.insert(key.clone(), record.clone()).is_some(), "the same column");
    }
    node.history = History::new(config(), NodeId(1), Incarnation(2), node.now_ms).expect("valid");
    let _ = node.history.restore(Archive::open(&node.stored).columns);
    let window = Window { from_ms: START_MS, to_ms: START_MS + STEP_MS };
    let part = node.query(window, KeyRange::all(), Series::Writes);
    assert!(part.partial && part.keys.is_empty());
    assert_eq!((part.threshold, part.operations), (500, 500));
}

#[test]
fn honest_partiality_harvests_without_hot_keys_widen_the_bounds_of_their_column() {
    for first in [true, false] {
        let mut node = Node::new();
        let load = |seed| Step::Load { keys: 9, calls: 500, skew: 1, seed, op: false };
        for (seed, known) in [(5, first), (6, !first), (7, first)] {
            node.run(&load(seed));
            let mut harvest = node.sampler.harvest();
            harvest.hot_keys = harvest.hot_keys.filter(|_| known);
            let _ = node.history.add(node.now_ms, harvest);
        }
        node.check();
        let window = Window { from_ms: START_MS, to_ms: START_MS + STEP_MS };
        let part = node.query(window, KeyRange::all(), Series::Writes);
        assert!(part.partial && part.threshold >= 500, "{}", part.threshold);
    }
}
