use std::collections::BTreeSet;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;

fn starts(keys: impl IntoIterator<Item = Vec<u8>>) -> Vec<Bytes> {
    let mut all: BTreeSet<Vec<u8>> = keys.into_iter().collect();
    all.insert(Vec::new());
    all.into_iter().map(Bytes::from).collect()
}

fn plain(starts: &[Bytes], key: &[u8]) -> Option<usize> {
    starts.partition_point(|start| start.as_ref() <= key).checked_sub(1)
}

/// Looks up every start key, the keys just below and above it, and `others`.
fn assert_finds_like_a_plain_search(starts: &[Bytes], others: &[Vec<u8>]) {
    let locator = Locator::new(starts);
    let near = starts.iter().flat_map(|start| {
        let mut above = start.to_vec();
        above.push(0);
        let mut longer = start.to_vec();
        longer.extend([255; 9]);
        let below = start[..start.len().saturating_sub(1)].to_vec();
        let mut less = start.to_vec();
        if let Some(last) = less.last_mut() {
            *last = last.wrapping_sub(1);
        }
        [start.to_vec(), above, longer, below, less]
    });
    for key in near.chain(others.iter().cloned()) {
        assert_eq!(locator.find(&key), plain(starts, &key), "{key:?} in {starts:?}");
    }
}

#[test]
fn an_empty_index_finds_nothing_and_one_entry_everything() {
    assert_eq!(Locator::new(&[]).find(b"a"), None);
    assert_eq!(Locator::new(&[Bytes::new()]).find(b"a"), Some(0));
    assert_eq!(Locator::new(&[Bytes::new()]).find(b""), Some(0));
}

#[test]
fn all_subsets_of_a_small_domain_are_searched_rightly() {
    // Keys of zeros around the edge of a window, where padding and real zeros meet.
    let domain: Vec<Vec<u8>> = [1, 2, 7, 8, 9, 16, 17]
        .iter()
        .flat_map(|&len| {
            let mut one = vec![0; len];
            one[len - 1] = 1;
            [vec![0; len], one]
        })
        .chain([vec![255; 8], vec![255; 9]])
        .collect();
    for subset in (0..1u32 << domain.len()).step_by(7) {
        let chosen = domain.iter().enumerate().filter(|(n, _)| subset >> n & 1 == 1);
        let starts = starts(chosen.map(|(_, key)| key.clone()));
        let locator = Locator::new(&starts);
        for key in &domain {
            assert_eq!(locator.find(key), plain(&starts, key), "{key:?} in {starts:?}");
        }
    }
}

#[test]
fn the_greatest_key_and_the_least_window_are_found() {
    let all = starts([vec![255; 4096], vec![255; 8], vec![0; 8], vec![0], vec![255; 7]]);
    assert_finds_like_a_plain_search(&all, &[vec![255; 5000], vec![0; 3], vec![]]);
}

#[test]
fn keys_that_nest_to_the_longest_length_are_found() {
    let all = starts((1..600).map(|n| vec![b'a'; n * 7]));
    assert_finds_like_a_plain_search(&all, &[vec![b'a'; 5000], vec![b'b'], vec![b'a'; 4000]]);
}

/// Few byte values and lengths around the window make ties likely.
fn narrow_key() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(0u8), Just(1), Just(b'a'), Just(255)], 0..20)
}

fn prefixed_key() -> impl Strategy<Value = Vec<u8>> {
    let prefix = prop_oneof![Just(vec![]), Just(vec![b'p'; 8]), Just(vec![b'p'; 40])];
    (prefix, vec(any::<u8>(), 0..12)).prop_map(|(mut key, tail)| {
        key.extend(tail);
        key
    })
}

proptest! {
    #[test]
    fn any_key_is_found_like_by_a_plain_search(
        keys in prop_oneof![
            btree_set(narrow_key(), 0..80),
            btree_set(prefixed_key(), 0..80),
            btree_set(vec(any::<u8>(), 0..200), 0..80),
        ],
        others in vec(prop_oneof![narrow_key(), prefixed_key()], 0..40),
    ) {
        assert_finds_like_a_plain_search(&starts(keys), &others);
    }
}
