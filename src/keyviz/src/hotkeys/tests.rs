//! Bounds, beside an exact counter.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::column::ColumnHotKeys;
use super::harvest::{CellTotals, KeyHarvester, Recorders};
use super::recorder::{Recorder, Taken};
use super::summary::{NamedKey, Summary};
use super::table::TABLE_KEYS;
use super::{codec, merge};
use keyviz_types::Incarnation;

#[path = "history_tests.rs"]
mod history;

/// `KEYVIZ_CASES` cases, or some.
pub(super) fn cases() -> ProptestConfig {
    let cases = std::env::var("KEYVIZ_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: cases.unwrap_or(16), ..ProptestConfig::default() }
}

/// What happened to each key: operations and bytes.
#[derive(Clone, Default)]
pub(super) struct Exact(HashMap<Vec<u8>, (u64, u64)>);

impl Exact {
    fn add(&mut self, key: &[u8], ops: u64, bytes: u64) {
        let sum = self.0.entry(key.to_vec()).or_default();
        *sum = (sum.0 + ops, sum.1 + bytes);
    }

    fn operations(&self) -> u64 {
        self.0.values().map(|(ops, _)| ops).sum()
    }

    #[track_caller]
    fn check(&self, summary: &Summary) {
        for named in summary.keys() {
            let (lower, upper) = summary.bounds(named);
            let (ops, bytes) = self.0.get(&*named.key).copied().unwrap_or_default();
            assert!(lower <= ops && ops <= upper, "{lower} <= {ops} <= {upper}");
            assert!(named.bytes <= bytes, "{} of {bytes} bytes", named.bytes);
        }
        for (key, (ops, _)) in &self.0 {
            let listed = summary.keys().binary_search_by(|named| (*named.key).cmp(key)).is_ok();
            assert!(listed || *ops <= summary.threshold(), "{ops} > {}", summary.threshold());
        }
    }
}

const SEED: u64 = 7;

/// Keys that share a set of the table.
fn colliding(count: usize) -> Vec<Vec<u8>> {
    let keys = (0u32..).map(|n| format!("c{n}").into_bytes());
    keys.filter(|key| xxh3_64_with_seed(key, SEED).is_multiple_of(256)).take(count).collect()
}

/// A kind of keys; `n` is one of them.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Plain,
    LastByte,
    Colliding,
    OneByte,
    Long,
    Longest,
    EdgeOfInline,
}

fn key(kind: Kind, n: u32, colliding: &[Vec<u8>]) -> Vec<u8> {
    match kind {
        Kind::Plain => format!("user/{n:08}").into_bytes(),
        Kind::LastByte => [&[b'x'; 30][..], &[n as u8]].concat(),
        Kind::Colliding => colliding[n as usize % colliding.len()].clone(),
        Kind::OneByte => vec![n as u8],
        Kind::Long => [&[b'l'; 90][..], &n.to_be_bytes()].concat(),
        Kind::Longest => [&n.to_be_bytes()[..], &[b'w'; 4_092]].concat(),
        Kind::EdgeOfInline => vec![b'e'; 56 + n as usize % 18],
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => Just(Kind::Plain),
        1 => Just(Kind::LastByte),
        2 => Just(Kind::Colliding),
        1 => Just(Kind::OneByte),
        1 => Just(Kind::Long),
        1 => Just(Kind::Longest),
        1 => Just(Kind::EdgeOfInline),
    ]
}

/// A run of operations: its kind, how many keys there are, how many times, and how skewed.
#[derive(Clone, Debug)]
struct Burst {
    kind: Kind,
    keys: u32,
    calls: u32,
    ops: u64,
    skew: u32,
    seed: u64,
    /// Into which recorder.
    shard: usize,
    /// Followed by a harvest.
    harvest: bool,
}

fn bursts() -> impl Strategy<Value = Vec<Burst>> {
    let burst = (
        kinds(),
        prop_oneof![1u32..20, 20u32..20_000],
        1u32..1_500,
        1u64..4,
        0u32..4,
        any::<u64>(),
        0usize..3,
        any::<bool>(),
    );
    let burst = burst.prop_map(|(kind, keys, calls, ops, skew, seed, shard, harvest)| Burst {
        kind,
        keys,
        calls,
        ops,
        skew,
        seed,
        shard,
        harvest,
    });
    prop::collection::vec(burst, 1..8)
}

impl Burst {
    fn each(&self, colliding: &[Vec<u8>], mut call: impl FnMut(&[u8], u64, u64)) {
        let mut state = self.seed | 1;
        for _ in 0..self.calls {
            let mut n = u32::MAX;
            for _ in 0..=self.skew {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                n = n.min((state >> 16) as u32 % self.keys);
            }
            let key = key(self.kind, n, colliding);
            call(&key, self.ops, key.len() as u64 * self.ops);
        }
    }
}

proptest! {
    #![proptest_config(cases())]

    /// The law of the summary: whatever is recorded by however many threads, harvested whenever,
    /// and merged, the bounds hold and every key above the threshold is listed.
    #[test]
    fn bounds_hold_for_any_keys_and_harvests(bursts in bursts(), most in 1usize..3_000) {
        let colliding = colliding(60);
        let shards: Vec<_> =
            (0..3).map(|_| Some(Arc::new(Recorders::new(SEED)))).collect();
        let mut harvester = KeyHarvester::default();
        let (mut exact, mut since, mut all) =
            (Exact::default(), Exact::default(), ColumnHotKeys::default());
        for burst in &bursts {
            let recorders = shards[burst.shard].as_ref().expect("it is there");
            burst.each(&colliding, |key, ops, bytes| {
                recorders.writes.record(key, ops, bytes);
                exact.add(key, ops, bytes);
                since.add(key, ops, bytes);
            });
            let cells = CellTotals { named: [0, since.operations()], unnamed: [0; 2] };
            let mut copy = harvester.clone();
            let sums = copy.peek(&shards);
            since.check(&copy.finish(sums, &cells).writes);
            if burst.harvest {
                let sums = harvester.take(&shards);
                let harvest = harvester.finish(sums, &cells);
                since.check(&harvest.writes);
                prop_assert!(harvest.reads.is_empty());
                prop_assert_eq!(harvest.writes.operations(), since.operations());
                all.append(&harvest);
                since = Exact::default();
            }
        }
        let cells = CellTotals { named: [0, since.operations()], unnamed: [0; 2] };
        let sums = harvester.take(&shards);
        all.append(&harvester.finish(sums, &cells));
        prop_assert_eq!(all.writes.operations(), exact.operations());
        exact.check(&all.writes);
        all.prune_to_matter();
        exact.check(&all.writes);
        all.prune(most);
        prop_assert!(all.len() <= most);
        exact.check(&all.writes);
        let lower: u64 = all.writes.keys().iter().map(|named| all.writes.bounds(named).0).sum();
        prop_assert!(lower <= exact.operations());
    }

    /// Summaries of disjoint streams add to the same sum in any order, and pruning keeps bounds.
    #[test]
    fn bounds_merges_are_commutative_and_associative(
        bursts in prop::collection::vec(bursts(), 3), most in 1usize..200,
    ) {
        let colliding = colliding(60);
        let mut exact = Exact::default();
        let summaries: Vec<Summary> = bursts.iter().map(|bursts| {
            let (recorder, mut taken) = (Recorder::new(SEED), Taken::default());
            for burst in bursts {
                burst.each(&colliding, |key, ops, bytes| {
                    recorder.record(key, ops, bytes);
                    exact.add(key, ops, bytes);
                });
            }
            recorder.take(&mut taken)
        }).collect();
        let sum = |order: [usize; 3]| {
            let mut sum = summaries[order[0]].clone();
            sum.add(&summaries[order[1]]);
            sum.add(&summaries[order[2]]);
            sum
        };
        let in_order = sum([0, 1, 2]);
        exact.check(&in_order);
        for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            prop_assert_eq!(&sum(order), &in_order);
        }
        let mut right = summaries[1].clone();
        right.add(&summaries[2]);
        let mut grouped = summaries[0].clone();
        grouped.add(&right);
        prop_assert_eq!(&grouped, &in_order);
        // Pruned at each step, as columns and folds are.
        let mut pruned = Summary::default();
        for summary in &summaries {
            let mut summary = summary.clone();
            summary.prune(most);
            pruned.add(&summary);
            pruned.prune(most);
        }
        exact.check(&pruned);
    }

    #[test]
    fn hot_keys_read_back_as_they_were_stored(bursts in bursts(), early in 0u64..9) {
        let colliding = colliding(60);
        let recorders = Recorders::new(SEED);
        for burst in &bursts {
            burst.each(&colliding, |key, ops, bytes| match burst.shard {
                0 => recorders.reads.record(key, ops, bytes),
                _ => recorders.writes.record(key, ops, bytes),
            });
        }
        let read = |recorder: &Recorder| {
            recorder.take(&mut Taken::default()).with_edges(early, early / 2)
        };
        let (reads, writes) = (read(&recorders.reads), read(&recorders.writes));
        let missing = early == 0;
        let hot_keys = ColumnHotKeys { reads, writes, missing };
        let mut stored = Vec::new();
        codec::put_part(Incarnation(early), &hot_keys, &mut stored);
        let input = &mut &stored[..];
        prop_assert_eq!(codec::take_part(input), Some((Incarnation(early), hot_keys)));
        prop_assert!(input.is_empty());
        for length in 0..stored.len().min(300) {
            prop_assert_eq!(codec::take_part(&mut &stored[..length]), None);
        }
    }
}

fn recorded(calls: impl Iterator<Item = Vec<u8>>) -> (Exact, Summary) {
    let (recorder, mut exact) = (Recorder::new(SEED), Exact::default());
    for key in calls {
        recorder.record(&key, 1, 1);
        exact.add(&key, 1, 1);
    }
    let summary = recorder.take(&mut Taken::default());
    exact.check(&summary);
    (exact, summary)
}

#[test]
fn bounds_a_million_distinct_keys_hide_no_hot_one() {
    let calls = (0..1_000_000u32).flat_map(|n| {
        let hot = (n % 500 == 0).then(|| b"hot".to_vec());
        hot.into_iter().chain([format!("cold/{n}").into_bytes()])
    });
    let (exact, summary) = recorded(calls);
    let hot = summary.keys().iter().find(|named| *named.key == *b"hot").expect("2,000 of them");
    let (lower, upper) = summary.bounds(hot);
    assert!(lower <= 2_000 && 2_000 <= upper);
    let most = exact.operations() / 1_000;
    assert!(summary.threshold() <= most, "{} > {most}", summary.threshold());
}

#[test]
fn bounds_the_threshold_is_below_a_thousandth_for_the_hardest_streams() {
    // As many keys as can have just over a thousandth each, and a uniform and a mixed stream.
    let equal = (0..1_200_000u32).map(|n| format!("k{}", n % 999).into_bytes());
    let uniform = (0..1_000_000u32).map(|n| {
        format!("u{}", u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44).into_bytes()
    });
    let mixed = (0..1_000_000u32)
        .map(|n| format!("m{}", if n % 2 == 0 { n % 500 } else { n }).into_bytes());
    let streams: [Box<dyn Iterator<Item = Vec<u8>>>; 3] =
        [Box::new(equal), Box::new(uniform), Box::new(mixed)];
    for stream in streams {
        let (exact, mut summary) = recorded(stream);
        let most = exact.operations() / 1_000;
        assert!(summary.threshold() <= most, "{} > {most}", summary.threshold());
        summary.prune_to_matter();
        exact.check(&summary);
        assert!(summary.threshold() <= most, "kept: {} > {most}", summary.threshold());
    }
}

#[test]
fn few_keys_are_exact_of_any_length() {
    for length in [0, 1, 7, 8, 9, 63, 64, 65, 72, 4_096] {
        let calls = (0..100u8).map(|n| [&vec![b'z'; length][..], &[n % 10]].concat());
        let calls = calls.map(|key| key[key.len().saturating_sub(4_096)..].to_vec());
        let (exact, summary) = recorded(calls);
        assert_eq!(summary.threshold(), 0, "{length}");
        assert_eq!(summary.keys().len(), exact.0.len());
        assert!(summary.keys().iter().all(|named| summary.bounds(named) == (10, 10)));
    }
    let (_, one) = recorded(std::iter::repeat_n(b"only".to_vec(), 5_000));
    assert_eq!(one.bounds(&one.keys()[0]), (5_000, 5_000));
}

#[test]
fn bounds_long_keys_beyond_the_arena_are_named_when_they_are_hot() {
    // Fills the arena with keys that come once, then one that is hot.
    let once = (0..200u32).map(|n| key(Kind::Longest, n, &[]));
    let hot = std::iter::repeat_n(key(Kind::Longest, 1_000, &[]), 3_000);
    let (_, summary) = recorded(once.chain(hot));
    assert!(summary.keys().iter().any(|named| named.counted == 3_000));
    // A key over the limit of keys has no name, and is no fault.
    let (_, summary) = recorded(std::iter::once(vec![1; 5_000]));
    assert_eq!((summary.threshold(), summary.keys().len()), (1, 0));
}

#[test]
fn bounds_hold_while_threads_record_and_a_flusher_harvests() {
    use crate::{GroupId, KeyRange, RouteId, RouteSpec, Sampler, SamplerConfig};
    let sampler = Arc::new(Sampler::new(SamplerConfig::default()).expect("valid"));
    let route = RouteSpec { id: RouteId::FIRST, range: KeyRange::all(), group: GroupId(1) };
    sampler.publish_routes(1, [route]).expect("a table");
    let threads: Vec<_> = (0..2u64)
        .map(|thread| {
            let sampler = Arc::clone(&sampler);
            std::thread::spawn(move || {
                for n in 0..300_000u64 {
                    let n = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(thread) >> 48;
                    let key = (n & (n >> 3)).to_be_bytes();
                    sampler.with_epoch(|epoch| {
                        let located = epoch.locate(&key).expect("published");
                        epoch.record_write(located, &key, 1, 8);
                    });
                }
            })
        })
        .collect();
    let mut all = ColumnHotKeys::default();
    let mut harvests = 0;
    let mut harvest = || {
        let _ = sampler.peek();
        let harvest = sampler.harvest();
        let cells: u64 = harvest.segments.iter().flat_map(|s| &s.cells).map(|c| c.1.writes).sum();
        let hot_keys = harvest.hot_keys.expect("they are on");
        let writes = &hot_keys.writes;
        let lower: u64 = writes.keys().iter().map(|named| writes.bounds(named).0).sum();
        assert!(lower <= cells, "conservation: {lower} of {cells}");
        all.append(&hot_keys);
        harvests += 1;
    };
    while threads.iter().any(|thread| !thread.is_finished()) {
        harvest();
    }
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    harvest();
    harvest();
    let mut exact = Exact::default();
    for thread in 0..2u64 {
        for n in 0..300_000u64 {
            let n = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(thread) >> 48;
            exact.add(&(n & (n >> 3)).to_be_bytes(), 1, 8);
        }
    }
    assert_eq!(all.writes.operations(), exact.operations(), "{harvests} harvests");
    exact.check(&all.writes);
}

#[test]
fn the_bytes_of_a_table_are_what_the_handbook_says() {
    assert_eq!(TABLE_KEYS, 4_096);
    let bytes = Recorders::bytes();
    assert!((2 << 20..=17 << 17).contains(&bytes), "{bytes}");
}

#[test]
fn a_damaged_list_of_keys_is_refused() {
    let named = |key: &[u8], counted| NamedKey { key: key.into(), counted, missed: 0, bytes: 0 };
    let parts = |keys| Summary::from_parts(keys, [2, 0, 0, 0, 9]);
    assert!(parts(vec![named(b"a", 2), named(b"b", 3)]).is_some());
    assert!(parts(vec![named(b"b", 3), named(b"a", 3)]).is_none(), "out of order");
    assert!(parts(vec![named(b"a", 3), named(b"a", 3)]).is_none(), "twice");
}

mod answers {
    use super::*;
    use crate::NodeId;
    use crate::hotkeys::{HotKeysPart, KeyBounds, PartError, hashed_name};

    fn bounds(key: &'static str, lower: u64, upper: u64) -> KeyBounds {
        let key = Bytes::from(key);
        KeyBounds { key, lower, upper, first_ms: 5, last_ms: 9, ..KeyBounds::default() }
    }

    fn part(node: u64, keys: Vec<KeyBounds>, threshold: u64) -> HotKeysPart {
        HotKeysPart {
            node: NodeId(node),
            held_by: NodeId(node),
            keys,
            threshold,
            operations: 100,
            partial: false,
            columns: 1,
        }
    }

    #[test]
    fn bounds_of_nodes_add_and_the_cut_keys_are_under_the_threshold() {
        let one = part(1, vec![bounds("a", 10, 12), bounds("b", 20, 20)], 3);
        let two = part(2, vec![bounds("b", 5, 6), bounds("c", 7, 9)], 4);
        let merged = merge(vec![one.clone(), two.clone()], 2);
        let keys: Vec<_> = merged
            .keys
            .iter()
            .map(|key| (&*key.bounds.key, key.bounds.lower, key.bounds.upper))
            .collect();
        assert_eq!(keys, [(&b"b"[..], 25, 26), (&b"a"[..], 10, 16)]);
        // c had up to 9 at two, and up to 3 at one.
        assert_eq!((merged.threshold, merged.max_error, merged.operations), (12, 6, 200));
        assert_eq!(merged.keys[0].share, 0.125);
        assert_eq!(merge(vec![two, one], 2), merged);
    }

    #[test]
    fn once_a_node_that_several_answer_for_counts_once() {
        let own = part(3, vec![bounds("a", 10, 10)], 0);
        let kept = |held_by, columns| HotKeysPart {
            held_by: NodeId(held_by),
            columns,
            ..part(3, vec![bounds("a", 9, 9)], 0)
        };
        let lower = |parts: Vec<HotKeysPart>| merge(parts, 9).keys[0].bounds.lower;
        assert_eq!(lower(vec![kept(1, 5), own.clone(), kept(2, 5)]), 10);
        assert_eq!(lower(vec![kept(1, 5), kept(2, 5)]), 9);
    }

    #[test]
    fn a_part_that_no_node_sends_is_refused() {
        let check = |keys| part(1, keys, 3).check(0);
        assert_eq!(check(vec![bounds("a", 1, 2), bounds("b", 1, 2)]), Ok(()));
        let out_of_order = Err(PartError::OutOfOrder { index: 1 });
        assert_eq!(check(vec![bounds("b", 1, 2), bounds("a", 1, 2)]), out_of_order);
        assert_eq!(check(vec![bounds("a", 3, 2)]), Err(PartError::Bounds { index: 0 }));
        assert_eq!(
            part(1, vec![bounds("a", 1, 1)], 0).check(2),
            Err(PartError::Bounds { index: 0 })
        );
    }

    #[test]
    fn hashes_are_the_same_on_all_nodes_and_say_nothing_of_the_order_of_keys() {
        assert_eq!(hashed_name("salt", b"k"), hashed_name("salt", b"k"));
        assert_ne!(hashed_name("salt", b"k"), hashed_name("other", b"k"));
        let hashed = part(1, vec![bounds("a", 1, 1), bounds("b", 1, 1)], 0).hashed("salt");
        assert_eq!(hashed.check(0), Ok(()));
        assert!(hashed.keys.iter().all(|key| key.key.starts_with(b"#") && key.key.len() == 33));
    }
}
