//! What copies and a long history cost with 10,000 busy routes. Figures are printed; run with
//! `cargo test --release -p keyviz-core --lib copies::cost -- --ignored --nocapture`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::tests::Memory;
use super::*;
use crate::history::*;
use crate::sampler::*;
use crate::*;

const ROUTES: u64 = 10_000;
const STEP: u64 = 60_000;
const NOW: u64 = 480_000 * 3_600_000;
const ALL: Window = Window { from_ms: 0, to_ms: u64::MAX };

fn layout() -> Arc<Layout> {
    let key = |route: u64| bytes::Bytes::from(format!("table/{route:06}"));
    let slot = |route: u64| Slot {
        range: KeyRange {
            start: if route == 0 { bytes::Bytes::new() } else { key(route) },
            end: (route + 1 < ROUTES).then(|| key(route + 1)),
        },
        bucket: Bucket::Route(RouteId::new(route + 1).expect("above 0")),
        group: GroupId(1 + route % 4),
        lead: (route.is_multiple_of(4)).then_some(Term(3)),
    };
    Arc::new(Layout { catalog_version: 1, slots: (0..ROUTES).map(slot).collect() })
}

/// The `share`th part of some 60 operations of each route, half of them reads.
fn harvest(layout: &Arc<Layout>, seed: &mut u64, share: u64) -> Harvest {
    let mut next = || {
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Of a second of a minute: none or one.
        (*seed >> 33) % (60 / share + 1)
    };
    let cells = (0..ROUTES as u32).map(|slot| {
        let (reads, writes) = (next() + u64::from(share == 1), next());
        let counts = Counts {
            reads,
            writes,
            read_bytes: reads * 120 + next(),
            write_bytes: writes * 130 + next(),
        };
        (slot, counts)
    });
    let cells = cells.filter(|(_, counts)| !counts.is_zero()).collect();
    let segments = vec![Segment { layout: Arc::clone(layout), cells }];
    Harvest { segments, unattributed: Counts::ZERO, hot_keys: None }
}

#[test]
#[ignore = "measures"]
fn bounds_the_cost_of_copies_at_10_000_busy_routes() {
    let layout = layout();
    for step_ms in [STEP, 1_000] {
        let config = HistoryConfig { step_ms, ..HistoryConfig::default() };
        let history = History::new(config, NodeId(3), Incarnation(1), NOW).expect("valid");
        let copies = Copies::new(NodeId(1), step_ms, 1 << 30, 1);
        copies.open(Arc::new(Memory::default())).expect("memory works");
        let inventory = copies.inventory(NodeId(3)).expect("open");
        let mut outbox = Outbox::new(&inventory, &[]);
        let (mut seed, mut sending, mut taking) = (7, Duration::ZERO, Duration::ZERO);
        let (mut closed_bytes, mut open_bytes, mut seconds) = (0u64, 0u64, 0u64);
        let mut opens = 0u64;
        let shares = step_ms / 1_000;
        for column in 0..10u64 {
            for second in 0..shares {
                let now_ms = NOW + column * step_ms + (second + 1) * 1_000;
                let _ = history.add(now_ms, harvest(&layout, &mut seed, shares.max(1)));
                seconds += 1;
                let began = Instant::now();
                let held = history.inspect(ALL);
                let open = history.checkpoint();
                let mut parcels = Vec::new();
                while let Some(parcel) = outbox.next(&held, open.id(), 0, 1 << 20) {
                    parcels.push((true, parcel.clone()));
                    outbox.stored(parcel);
                }
                // As the pace lets it: the open column every third second.
                if seconds.is_multiple_of(3) {
                    parcels.push((false, outbox.open(&open)));
                }
                sending += began.elapsed();
                for (is_closed, parcel) in parcels {
                    let push = CopyPush {
                        node: NodeId(3),
                        incarnation: Incarnation(1),
                        step_ms,
                        complete_to_ms: Some(now_ms),
                        left_ms: None,
                        forgotten_before_ms: 0,
                        records: parcel.records.clone(),
                        removed: parcel.removed.clone(),
                    };
                    match is_closed {
                        true => closed_bytes += push.bytes() as u64,
                        false => {
                            open_bytes += push.bytes() as u64;
                            opens += 1;
                        }
                    }
                    let began = Instant::now();
                    copies.take(push, now_ms).expect("sound");
                    taking += began.elapsed();
                }
            }
        }
        assert!(closed_bytes > 0, "columns with counts are sent");
        let of_core = |time: Duration| 100.0 * time.as_secs_f64() / seconds as f64;
        println!(
            "step {step_ms} ms: closed {} bytes/s, open column {} bytes, per holder; sending \
             {:.2}% and taking {:.2}% of a core",
            closed_bytes / seconds,
            open_bytes / opens.max(1),
            of_core(sending),
            of_core(taking)
        );
    }
}

#[test]
#[ignore = "measures: 28 days of minutes"]
fn bounds_28_days_of_10_000_busy_routes_within_the_default_bytes() {
    let layout = layout();
    let config = HistoryConfig::default();
    let history = History::new(config, NodeId(3), Incarnation(1), NOW).expect("valid");
    let mut seed = 7;
    // The same column again and again, but for its time: what is measured is bytes.
    let some: Vec<Harvest> = (0..16).map(|_| harvest(&layout, &mut seed, 1)).collect();
    let began = Instant::now();
    for minute in 0..28 * 1_440u64 {
        let counted = some[(minute % 16) as usize].clone();
        let _ = history.add(NOW + (minute + 1) * STEP, counted);
    }
    let held = history.holdings();
    let mut by_length: BTreeMap<u64, (usize, u64)> = BTreeMap::new();
    for column in history.inspect(ALL) {
        let entry = by_length.entry(column.end_ms() - column.start_ms()).or_insert((0, u64::MAX));
        entry.0 += 1;
        entry.1 = entry.1.min(column.start_ms());
    }
    let end_ms = NOW + 28 * 1_440 * STEP;
    for (length_ms, (columns, oldest_ms)) in &by_length {
        let hours = (end_ms - oldest_ms) / 3_600_000;
        println!("columns of {length_ms} ms: {columns}, the oldest {hours} hours old");
    }
    println!(
        "{} bytes of {}, hot keys apart; forgotten before {} ms; {:?}",
        held.bytes,
        config.bytes,
        held.forgotten_before_ms,
        began.elapsed()
    );
    assert_eq!(held.forgotten_before_ms, 0, "28 days are kept");
}
