//! What can happen to the three nodes, and how they are set up.

use keyviz_core::{history::*, sampler::*};
use proptest::prelude::*;

pub(crate) const NODES: usize = 3;
pub(crate) const GROUPS: u64 = 2;
const HOUR_MS: i64 = 3_600_000;
const YEAR_MS: i64 = 365 * 24 * HOUR_MS;

#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Calls on a key; a write goes to the leader, a read to `node`.
    Record {
        key: Vec<u8>,
        node: usize,
        op: Op,
        ops: u64,
        bytes: u64,
    },
    /// Many calls on few keys, from which a re-plan learns.
    Burst {
        key: Vec<u8>,
        calls: u64,
    },
    /// Time passes, in eighths of a step; nodes flush and re-plan at each boundary.
    Pass {
        eighths: u64,
    },
    /// All clocks are set, back or forward.
    Jump {
        by_ms: i64,
    },
    Flush {
        node: usize,
    },
    Replan {
        node: usize,
    },
    /// `late`: a node that hears of it only at its next flush.
    Split {
        key: Vec<u8>,
        late: Option<usize>,
    },
    Merge {
        at: usize,
        late: Option<usize>,
    },
    Lead {
        group: u64,
        node: usize,
    },
    /// From here on the node records under the epoch that it has now, as a call that takes long
    /// does.
    Hold {
        node: usize,
    },
    Release {
        node: usize,
    },
    /// A stop in good order and a start.
    Restart {
        node: usize,
    },
    /// A death and a start: what was not stored is lost.
    Kill {
        node: usize,
    },
    /// A node hands over what it has counted and starts again: both tell of it.
    HandOver {
        from: usize,
        to: usize,
    },
    /// Somebody asks for a matrix.
    Query,
}

pub(crate) fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(prop_oneof![Just(0u8), Just(255u8), b'a'..=b'e'], 0..4),
        1 => (0u8..8).prop_map(|last| [&[b'p'; 40][..], &[last]].concat()),
        1 => any::<u8>().prop_map(|byte| vec![byte; 4_096]),
    ]
}

pub(crate) fn actions() -> impl Strategy<Value = Vec<Action>> {
    let node = || 0..NODES;
    let late = || prop::option::of(0..NODES);
    let op = prop_oneof![Just(Op::Read), Just(Op::Write)];
    let jump = prop::sample::select(vec![-HOUR_MS, -HOUR_MS / 60, HOUR_MS, YEAR_MS]);
    let action = prop_oneof![
        14 => (key(), node(), op, 1u64..20, 0u64..2_000).prop_map(
            |(key, node, op, ops, bytes)| Action::Record { key, node, op, ops, bytes }),
        1 => (key(), 50u64..400).prop_map(|(key, calls)| Action::Burst { key, calls }),
        5 => (1u64..20).prop_map(|eighths| Action::Pass { eighths }),
        1 => (24u64..120).prop_map(|eighths| Action::Pass { eighths }),
        1 => jump.prop_map(|by_ms| Action::Jump { by_ms }),
        1 => node().prop_map(|node| Action::Flush { node }),
        1 => node().prop_map(|node| Action::Replan { node }),
        3 => (key(), late()).prop_map(|(key, late)| Action::Split { key, late }),
        2 => (0usize..8, late()).prop_map(|(at, late)| Action::Merge { at, late }),
        2 => (1..=GROUPS, node()).prop_map(|(group, node)| Action::Lead { group, node }),
        1 => node().prop_map(|node| Action::Hold { node }),
        1 => node().prop_map(|node| Action::Release { node }),
        1 => node().prop_map(|node| Action::Restart { node }),
        1 => node().prop_map(|node| Action::Kill { node }),
        1 => (node(), node()).prop_map(|(from, to)| Action::HandOver { from, to }),
        1 => Just(Action::Query),
    ];
    prop::collection::vec(action, 1..50)
}

/// How a world is set up.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) sampler: SamplerConfig,
    pub(crate) history: HistoryConfig,
}

pub(crate) fn setup() -> impl Strategy<Value = Setup> {
    let step_ms = prop::sample::select(vec![1_000, 7_000, 60_000, 300_000, 3_600_000]);
    let columns = prop_oneof![Just(1_440), 1usize..20];
    (1usize..40, 1usize..10, 1usize..5, step_ms, columns).prop_map(
        |(resolution_slots, max_tracked_routes, max_member_routes_per_slot, step_ms, columns)| {
            // A step as long as the coarsest tier leaves nothing to fold into: the oldest goes.
            let columns = if step_ms < LAST_TIER_MS { columns } else { 1_440 };
            Setup {
                sampler: SamplerConfig {
                    enabled: true,
                    max_tracked_routes,
                    max_member_routes_per_slot,
                    resolution_slots,
                    shards: 2,
                    ..SamplerConfig::default()
                },
                history: HistoryConfig { step_ms, columns, bytes: MIN_HISTORY_BYTES },
            }
        },
    )
}
