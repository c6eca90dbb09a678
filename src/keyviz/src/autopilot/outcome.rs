//! What came of an act.

use std::collections::BTreeMap;

use super::cost::present;
use super::journal::Past;
use super::layout::{Layout, imbalance};
use crate::insight::{Change, Load, Topology};
use keyviz_types::NodeId;

/// It is worse if the layout without the act would be so much better, hottest node over the mean.
const WORSE: f64 = 0.1;

/// What was counted where it was served.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Measured {
    /// Cost a second by node.
    pub nodes: BTreeMap<NodeId, f64>,
    /// Operations a second of all.
    pub operations: f64,
}

/// What came of an act.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Outcome {
    /// Cost a second by node.
    pub nodes: BTreeMap<NodeId, Change>,
    /// The hottest node over the mean.
    pub imbalance: Change,
    /// What the load after the act would be on the layout before it.
    pub without: f64,
    /// Operations a second of the whole cluster.
    pub operations: Change,
    /// It is worse than nothing.
    pub worse: bool,
}

impl Outcome {
    /// The load of the hottest node.
    pub fn hottest(&self) -> Change {
        let most = |of: fn(&Change) -> f64| self.nodes.values().map(of).fold(0.0, f64::max);
        Change { before: most(|change| change.before), after: most(|change| change.after) }
    }
}

/// Compares what was measured before and after an act. Whether it helped is told from the load
/// after it on both layouts: load comes and goes for other reasons, too.
pub fn outcome(
    past: &Past,
    (before, after): (&Measured, &Measured),
    (load, topology, now_ms): (&Load, &Topology, u64),
) -> Outcome {
    let present = present(load, now_ms);
    let layout = Layout::new(topology, &present);
    let with = layout.imbalance();
    let without = past.reverse().map_or(with, |act| layout.with(&act).imbalance());
    let mut nodes: BTreeMap<NodeId, Change> = BTreeMap::new();
    for (node, load) in &before.nodes {
        nodes.entry(*node).or_default().before = *load;
    }
    for (node, load) in &after.nodes {
        nodes.entry(*node).or_default().after = *load;
    }
    Outcome {
        nodes,
        imbalance: Change { before: imbalance(&before.nodes), after: imbalance(&after.nodes) },
        without,
        operations: Change { before: before.operations, after: after.operations },
        worse: with > without + WORSE,
    }
}
