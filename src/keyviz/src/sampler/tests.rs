use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::*;
use crate::sampler::layout::Bucket;
use keyviz_types::{KeyRange, RouteId};

#[path = "model_tests.rs"]
mod model;

fn route(id: u64, start: &str, end: Option<&str>, group: u64) -> RouteSpec {
    RouteSpec {
        id: RouteId::new(id).expect("test ids are not 0"),
        range: KeyRange {
            start: Bytes::copy_from_slice(start.as_bytes()),
            end: end.map(|end| Bytes::copy_from_slice(end.as_bytes())),
        },
        group: GroupId(group),
    }
}

/// Routes that begin at the start of the key space and at each of `starts`.
fn table(first_id: u64, starts: &[&str], groups: u64) -> Vec<RouteSpec> {
    let mut all = vec![""];
    all.extend(starts);
    (0..all.len())
        .map(|n| route(first_id + n as u64, all[n], all.get(n + 1).copied(), n as u64 % groups + 1))
        .collect()
}

fn sampler(config: SamplerConfig) -> Sampler {
    Sampler::new(config).expect("the test's settings are inside their bounds")
}

fn small() -> SamplerConfig {
    SamplerConfig { shards: 4, ..SamplerConfig::default() }
}

fn write(sampler: &Sampler, key: &str, bytes: u64) {
    let epoch = sampler.epoch();
    let located = epoch.locate(key.as_bytes()).expect("routes were published");
    sampler.record_write(&epoch, located, key.as_bytes(), 1, bytes);
}

fn total(harvest: &Harvest) -> Counts {
    let mut sum = Counts::ZERO;
    for (_, counts) in harvest.segments.iter().flat_map(|segment| &segment.cells) {
        sum.add(counts);
    }
    sum
}

fn assert_well_formed(harvest: &Harvest) {
    for segment in &harvest.segments {
        assert!(!segment.cells.is_empty());
        assert!(segment.cells.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(segment.cells.iter().all(|(slot, counts)| {
            (*slot as usize) < segment.layout.slots.len() && !counts.is_zero()
        }));
    }
}

/// Counts by (slot's start key, group, term).
type Cells = BTreeMap<(Bytes, GroupId, Option<Term>), Counts>;

fn cells(harvest: &Harvest) -> Cells {
    assert_well_formed(harvest);
    let mut all = Cells::new();
    for segment in &harvest.segments {
        for (slot, counts) in &segment.cells {
            let slot = &segment.layout.slots[*slot as usize];
            all.entry((slot.range.start.clone(), slot.group, slot.lead)).or_default().add(counts);
        }
    }
    all
}

#[test]
fn nothing_is_located_before_routes_are_published() {
    let sampler = sampler(small());
    assert_eq!(sampler.epoch().locate(b"a"), None);
    assert_eq!(sampler.epoch().catalog_version(), 0);
    assert_eq!(sampler.epoch().routes_overlapping(&KeyRange::all()).count(), 0);
    assert!(sampler.harvest().segments.is_empty());
}

#[test]
fn a_record_is_in_the_next_harvest_and_only_there() {
    let sampler = sampler(small());
    sampler.publish_routes(1, table(1, &["m"], 2)).unwrap();
    write(&sampler, "a", 10);
    write(&sampler, "z", 5);
    let epoch = sampler.epoch();
    epoch.record_read(epoch.locate(b"z").unwrap(), b"z", 2, 7);

    let peeked = cells(&sampler.peek());
    let harvested = cells(&sampler.harvest());
    assert_eq!(peeked, harvested);
    let z = Counts { reads: 2, writes: 1, read_bytes: 7, write_bytes: 5 };
    assert_eq!(harvested[&(Bytes::from("m"), GroupId(2), None)], z);
    assert_eq!(harvested[&(Bytes::new(), GroupId(1), None)].writes, 1);
    assert!(sampler.harvest().segments.is_empty());
    assert!(sampler.peek().segments.is_empty());
}

#[test]
fn tables_with_faults_are_refused_and_the_published_one_stays() {
    let sampler = sampler(small());
    sampler.publish_routes(1, table(1, &["m"], 1)).unwrap();
    let id = |id| RouteId::new(id).unwrap();
    let cases = [
        (vec![], LayoutError::Empty),
        (vec![route(1, "a", None, 1)], LayoutError::NoStart { first: id(1) }),
        (vec![route(1, "", Some("m"), 1)], LayoutError::NoEnd { last: id(1) }),
        (
            vec![route(1, "", Some("m"), 1), route(2, "n", None, 1)],
            LayoutError::NotContiguous { left: id(1), right: id(2) },
        ),
        (
            vec![route(1, "", Some("m"), 1), route(2, "l", None, 1)],
            LayoutError::NotContiguous { left: id(1), right: id(2) },
        ),
        (
            vec![route(1, "", None, 1), route(2, "m", None, 1)],
            LayoutError::NotContiguous { left: id(1), right: id(2) },
        ),
        (
            vec![route(1, "", Some(""), 1), route(2, "", None, 1)],
            LayoutError::NotContiguous { left: id(1), right: id(2) },
        ),
        (
            vec![route(1, "", Some("m"), 1), route(1, "m", None, 1)],
            LayoutError::Duplicate { id: id(1) },
        ),
    ];
    for (routes, error) in cases {
        assert_eq!(sampler.publish_routes(2, routes), Err(error));
    }
    assert_eq!(sampler.epoch().catalog_version(), 1);
    assert_eq!(sampler.stats().epochs_published, 1);
}

#[test]
fn only_a_change_publishes_an_epoch() {
    let sampler = sampler(small());
    sampler.publish_routes(3, table(1, &["m"], 2)).unwrap();
    sampler.publish_routes(3, table(1, &["m"], 2)).unwrap();
    sampler.publish_routes(2, table(9, &["c"], 2)).unwrap();
    assert_eq!(sampler.stats().epochs_published, 1);
    sampler.set_leader_terms(&[(GroupId(1), Some(Term(4))), (GroupId(2), None)]);
    sampler.set_leader_terms(&[(GroupId(1), Some(Term(4)))]);
    sampler.set_leader_terms(&[(GroupId(2), None)]);
    assert_eq!(sampler.stats().epochs_published, 2);
    let epoch = sampler.epoch();
    assert_eq!(epoch.lead(GroupId(1)), Some(Term(4)));
    assert_eq!(epoch.lead(GroupId(2)), None);
    assert_eq!(epoch.layout().slots[0].lead, Some(Term(4)));
    assert_eq!(epoch.layout().slots[1].lead, None);
}

#[test]
fn once_a_count_belongs_to_the_term_of_its_epoch() {
    let sampler = sampler(small());
    sampler.publish_routes(1, table(1, &[], 1)).unwrap();
    sampler.set_leader_terms(&[(GroupId(1), Some(Term(1)))]);
    let proposed_under = sampler.epoch_full();
    let located = proposed_under.locate(b"k").unwrap();
    sampler.set_leader_terms(&[(GroupId(1), Some(Term(2)))]);
    write(&sampler, "k", 3);
    sampler.record_write(&proposed_under, located, b"k", 1, 5);
    let harvested = cells(&sampler.harvest());
    assert_eq!(harvested[&(Bytes::new(), GroupId(1), Some(Term(1)))].write_bytes, 5);
    assert_eq!(harvested[&(Bytes::new(), GroupId(1), Some(Term(2)))].write_bytes, 3);
}

#[test]
fn an_epoch_is_drained_as_long_as_somebody_holds_it() {
    let sampler = sampler(small());
    sampler.publish_routes(1, table(1, &[], 1)).unwrap();
    let held = sampler.epoch_full();
    let located = held.locate(b"k").unwrap();
    for version in 2..6 {
        sampler.publish_routes(version, table(1, &[], 1)).unwrap();
        sampler.epoch();
        let _ = sampler.harvest();
        assert_eq!(sampler.stats().draining, 1);
    }
    for bytes in [5, 7] {
        sampler.record_write(&held, located, b"k", 1, bytes);
        let harvest = sampler.harvest();
        assert_eq!(harvest.segments[0].layout.catalog_version, 1);
        assert_eq!(total(&harvest).write_bytes, bytes);
    }
    sampler.record_write(&held, located, b"k", 1, 9);
    drop(held);
    assert_eq!(total(&sampler.harvest()).write_bytes, 9);
    assert_eq!(sampler.stats().draining, 0);
}

#[test]
fn bounds_a_storm_of_epochs_between_two_harvests_keeps_no_counters() {
    let sampler = sampler(small());
    sampler.publish_routes(1, table(1, &["m"], 2)).unwrap();
    write(&sampler, "a", 1);
    let of_one_epoch = sampler.stats().counter_bytes;
    for term in 1..500 {
        sampler.set_leader_terms(&[(GroupId(1), Some(Term(term)))]);
        write(&sampler, "a", 1);
        assert!(sampler.stats().counter_bytes <= 2 * of_one_epoch);
        assert!(sampler.stats().draining <= 1);
    }
    assert_eq!(total(&sampler.peek()).writes, 500);
    let harvest = sampler.harvest();
    assert_eq!(cells(&harvest).len(), 500, "a term each");
    assert_eq!(total(&harvest).writes, 500);
}

#[test]
fn a_guard_holds_its_epoch_and_rest_lets_it_go() {
    let sampler = sampler(small());
    sampler.publish_routes(1, table(1, &[], 1)).unwrap();
    let guard = sampler.epoch();
    let located = guard.locate(b"k").unwrap();
    sampler.set_leader_terms(&[(GroupId(1), Some(Term(1)))]);
    let _ = sampler.harvest();
    assert_eq!(sampler.stats().draining, 1);
    guard.record_read(located, b"k", 1, 4);
    drop(guard);
    sampler.rest();
    assert_eq!(total(&sampler.harvest()).read_bytes, 4);
    assert_eq!(sampler.stats().draining, 0);
}

#[test]
fn arc_swap_counts_outstanding_guards_when_the_writer_swaps() {
    let first = std::sync::Arc::new(1);
    let published = arc_swap::ArcSwap::new(std::sync::Arc::clone(&first));
    let guards: Vec<_> = (0..20).map(|_| published.load()).collect();
    published.store(std::sync::Arc::new(2));
    assert_eq!(std::sync::Arc::strong_count(&first), 1 + guards.len());
    drop(guards);
    assert_eq!(std::sync::Arc::strong_count(&first), 1);
}

#[test]
fn once_a_late_count_keeps_its_own_term() {
    let sampler = sampler(small());
    sampler.publish_routes(1, table(1, &["m"], 2)).unwrap();
    sampler.set_leader_terms(&[(GroupId(1), Some(Term(5)))]);
    let epoch = sampler.epoch_full();
    let a = epoch.locate(b"a").unwrap();
    let z = epoch.locate(b"z").unwrap();
    sampler.record_late(Op::Write, &epoch, a, b"a", Some(Term(4)), 1, 10);
    sampler.record_late(Op::Write, &epoch, a, b"a", Some(Term(3)), 1, 20);
    sampler.record_late(Op::Write, &epoch, a, b"a", Some(Term(5)), 1, 40);
    sampler.record_late(Op::Read, &epoch, z, b"z", Some(Term(4)), 1, 80);
    sampler.record_late(Op::Write, &epoch, a, b"a", Some(Term(4)), 0, 0);
    let peeked = cells(&sampler.peek());
    let harvest = sampler.harvest();
    for segment in &harvest.segments {
        assert_eq!(segment.layout.slots.len(), 2, "a late layout covers the key space too");
    }
    let harvested = cells(&harvest);
    assert_eq!(peeked, harvested);
    let bytes = |start: &'static str, group, term| {
        let counts = &harvested[&(Bytes::from(start), GroupId(group), Some(Term(term)))];
        counts.write_bytes + counts.read_bytes
    };
    assert_eq!(bytes("", 1, 4), 10);
    assert_eq!(bytes("", 1, 3), 20);
    assert_eq!(bytes("", 1, 5), 40);
    assert_eq!(bytes("m", 2, 4), 80);
    assert_eq!(harvested.len(), 4);
    assert!(sampler.harvest().segments.is_empty());
}

#[test]
fn a_place_of_another_epoch_is_searched_again() {
    let one = sampler(small());
    let other = sampler(small());
    one.publish_routes(1, table(1, &["b", "c", "d"], 1)).unwrap();
    other.publish_routes(1, table(1, &["m"], 1)).unwrap();
    let located = one.epoch().locate(b"z").unwrap();
    let epoch = other.epoch();
    other.record_write(&epoch, located, b"z", 1, 1);
    assert_eq!(cells(&other.harvest())[&(Bytes::from("m"), GroupId(1), None)].writes, 1);
    let empty = sampler(small());
    empty.record_write(&empty.epoch(), located, b"z", 1, 6);
    assert_eq!(empty.harvest().unattributed.write_bytes, 6);
}

#[test]
fn a_sampler_that_is_off_locates_and_counts_nothing() {
    let sampler = sampler(SamplerConfig { enabled: false, ..small() });
    sampler.publish_routes(1, table(1, &["m"], 1)).unwrap();
    write(&sampler, "z", 1);
    let epoch = sampler.epoch();
    let located = epoch.locate(b"z").unwrap();
    assert_eq!(epoch.route(located).id.get(), 2);
    epoch.record_read(located, b"z", 1, 1);
    sampler.record_late(Op::Write, &epoch, located, b"z", Some(Term(1)), 1, 1);
    sampler.count_unattributed(Op::Write, 1);
    let harvest = sampler.harvest();
    assert!(harvest.segments.is_empty() && harvest.unattributed.is_zero());
    assert_eq!(sampler.stats().counter_bytes, 0);
}

#[test]
fn unattributed_operations_are_handed_over_once() {
    let sampler = sampler(small());
    sampler.count_unattributed(Op::Write, 30);
    assert_eq!(sampler.peek().unattributed.write_bytes, 30);
    assert_eq!(sampler.harvest().unattributed.writes, 1);
    assert!(sampler.harvest().unattributed.is_zero());
}

#[test]
fn ranges_are_cut_at_the_routes_that_they_touch() {
    let sampler = sampler(small());
    sampler.publish_routes(1, table(1, &["b", "d", "f"], 2)).unwrap();
    let epoch = sampler.epoch();
    let cut = |start: &str, end: Option<&str>| -> Vec<(u64, String, Option<String>)> {
        let text = |key: &Bytes| String::from_utf8(key.to_vec()).unwrap();
        epoch
            .routes_overlapping(&route(1, start, end, 1).range)
            .map(|overlap| {
                let range = overlap.range;
                let id = epoch.route(overlap.located).id.get();
                (id, text(&range.start), range.end.as_ref().map(text))
            })
            .collect()
    };
    let part = |id, start: &str, end: Option<&str>| (id, start.into(), end.map(String::from));
    assert_eq!(cut("c", Some("d")), [part(2, "c", Some("d"))]);
    assert_eq!(cut("c", Some("da")), [part(2, "c", Some("d")), part(3, "d", Some("da"))]);
    assert_eq!(cut("e", None), [part(3, "e", Some("f")), part(4, "f", None)]);
    assert_eq!(cut("", None).len(), 4);
    assert_eq!(cut("c", Some("c")), []);
    assert_eq!(cut("x", Some("c")), []);
}

#[test]
fn bounds_more_routes_than_slots_share_aggregates_that_know_their_members() {
    let starts: Vec<String> = (1..1000).map(|n| format!("k{n:04}")).collect();
    let starts: Vec<&str> = starts.iter().map(String::as_str).collect();
    let config = SamplerConfig { max_tracked_routes: 40, max_member_routes_per_slot: 3, ..small() };
    let sampler = sampler(config);
    sampler.publish_routes(1, table(1, &starts, 2)).unwrap();
    let epoch = sampler.epoch();
    let slots = &epoch.layout().slots;
    assert!(sampler.stats().slots <= 80);
    let mut members = 0;
    for pair in slots.chunks(2) {
        assert_eq!(pair[0].range, pair[1].range, "one slot a group over the same range");
        assert_eq!((pair[0].group, pair[1].group), (GroupId(1), GroupId(2)));
        let Bucket::Aggregate(named) = &pair[0].bucket else { panic!("all must share") };
        assert!(named.first.len() == 3 && named.count > 3);
        members += named.count;
    }
    assert_eq!(members, 1000);
    for route in epoch.routes().iter() {
        let located = epoch.locate(&route.range.start).unwrap();
        assert_eq!(epoch.route(located).id, route.id);
        let slot = &slots[located.slot() as usize];
        assert!(slot.group == route.group && slot.range.contains(&route.range.start));
    }
}

#[test]
fn a_sampler_with_fewer_slots_than_groups_has_one_slot_a_group() {
    let starts: Vec<String> = (1..20).map(|n| format!("k{n:04}")).collect();
    let starts: Vec<&str> = starts.iter().map(String::as_str).collect();
    let sampler = sampler(SamplerConfig { resolution_slots: 2, ..small() });
    sampler.publish_routes(1, table(1, &starts, 5)).unwrap();
    assert_eq!(sampler.stats().slots, 5);
}

#[test]
fn shards_return_when_threads_end_and_keep_their_counts() {
    let sampler = sampler(SamplerConfig { shards: 1, ..small() });
    sampler.publish_routes(1, table(1, &[], 1)).unwrap();
    for _ in 0..20 {
        // Only an explicit join waits for the thread's locals, which hold the lease.
        std::thread::scope(|scope| {
            scope.spawn(|| write(&sampler, "k", 1)).join().expect("the writer does not panic")
        });
    }
    assert_eq!(sampler.stats().overflow_records, 0, "the one shard was handed on");
    assert_eq!(total(&sampler.harvest()).writes, 20);
}

#[test]
fn two_samplers_of_one_thread_do_not_mix() {
    let samplers = [sampler(small()), sampler(small()), sampler(small())];
    for sampler in &samplers {
        sampler.publish_routes(1, table(1, &["m"], 1)).unwrap();
    }
    for (times, sampler) in samplers.iter().enumerate() {
        (0..=times).for_each(|_| write(sampler, "k", 1));
    }
    let writes: Vec<_> = samplers.iter().map(|sampler| total(&sampler.harvest()).writes).collect();
    assert_eq!(writes, [1, 2, 3]);
}

/// Recorders, a publisher, a harvester and a peeker at once, with more recorders than shards.
#[test]
fn conservation_holds_while_epochs_change_under_the_recorders() {
    const THREADS: u64 = 6;
    const RECORDS: u64 = 20_000;
    let sampler = sampler(SamplerConfig { shards: 3, ..small() });
    sampler.publish_routes(1, table(1, &["k5"], 2)).unwrap();
    let done = AtomicBool::new(false);
    let mut sum = Counts::ZERO;
    std::thread::scope(|scope| {
        let recorders: Vec<_> = (0..THREADS)
            .map(|thread| {
                let sampler = &sampler;
                scope.spawn(move || {
                    let mut kept = sampler.epoch_full();
                    for n in 0..RECORDS {
                        let key = format!("k{}", (n + thread) % 10);
                        if n % 97 == 0 {
                            kept = sampler.epoch_full();
                        }
                        if n % 3 == 0 {
                            let located = kept.locate(key.as_bytes()).unwrap();
                            sampler.record_read(&kept, located, key.as_bytes(), 1, 2);
                        } else {
                            write(sampler, &key, 3);
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut version = 1;
            while !done.load(Ordering::Relaxed) {
                version += 1;
                let starts: &[&str] = if version % 2 == 0 { &["k3", "k7"] } else { &["k5"] };
                sampler.publish_routes(version, table(version * 3, starts, 2)).unwrap();
                sampler.set_leader_terms(&[(GroupId(1), Some(Term(version)))]);
                sampler.replan();
                std::thread::yield_now();
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert_well_formed(&sampler.peek());
            }
        });
        while !recorders.iter().all(|recorder| recorder.is_finished()) {
            let harvest = sampler.harvest();
            assert_well_formed(&harvest);
            sum.add(&total(&harvest));
        }
        done.store(true, Ordering::Relaxed);
        // Only an explicit join waits for the threads' locals, which hold epochs.
        recorders.into_iter().for_each(|recorder| recorder.join().expect("recorders do not panic"));
    });
    sum.add(&total(&sampler.harvest()));
    let reads = THREADS * RECORDS.div_ceil(3);
    let writes = THREADS * RECORDS - reads;
    let expected = Counts { reads, writes, read_bytes: 2 * reads, write_bytes: 3 * writes };
    assert_eq!(sum, expected);
    assert_eq!(sampler.stats().draining, 0, "everybody let go");
}
