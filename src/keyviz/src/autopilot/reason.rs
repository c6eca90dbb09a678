//! Why nothing is done, in sentences.

use keyviz_types::{GroupId, NodeId};

/// Columns without which nothing is known.
pub(super) const LEAST_COLUMNS: usize = 2;

/// Why nothing (more) is done.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Reason {
    /// Members do not answer.
    #[error("It waits: {} or is not ready.", members(.0, "does not answer", "do not answer"))]
    Missing(Vec<NodeId>),
    /// Groups have no leader.
    #[error("It waits: {} without a leader.", groups(.0))]
    Leaderless(Vec<GroupId>),
    /// Replicas are behind.
    #[error("It waits: {} with a replica that is behind.", groups(.0))]
    Lagging(Vec<GroupId>),
    /// Disks are nearly full.
    #[error("It waits: {} little space on the disk.", members(.0, "has", "have"))]
    Scarce(Vec<NodeId>),
    /// Replicas are being moved.
    #[error("It waits until the replicas of the groups are where they should be.")]
    ReplicasMove,
    /// Counts are missing.
    #[error("It waits: the last columns may miss counts of a member.")]
    Partial,
    /// It has just begun to look.
    #[error(
        "It waits: {columns} of {LEAST_COLUMNS} columns have been counted finely enough to tell \
         hot keys from their neighbours."
    )]
    FewColumns {
        /// Columns at hand.
        columns: usize,
    },
    /// There is hardly any load.
    #[error("There is little load: {load:.0} a second; below {least:.0} nothing is balanced.")]
    Quiet {
        /// Cost a second.
        load: f64,
        /// Below which nothing is done.
        least: f64,
    },
    /// Nothing is uneven.
    #[error(
        "The load is even: the hottest node has {imbalance:.2} times the mean; it acts above \
         {level:.2}."
    )]
    Even {
        /// The hottest node over the mean.
        imbalance: f64,
        /// The level.
        level: f64,
    },
    /// There is nowhere to go.
    #[error("There is one node only.")]
    OneNode,
    /// One key is too much.
    #[error(
        "The key {key} alone has {:.0}% of the load, on node {node}; no split or move divides one \
         key: cache it, read it from followers, or spread it over several keys.",
        share * 100.0
    )]
    OneKey {
        /// The node.
        node: NodeId,
        /// The key, as text.
        key: String,
        /// Of the load.
        share: f64,
    },
    /// One range was not told apart.
    #[error(
        "{keys} have {:.0}% of the load, on node {node}, and were counted as one range so far; it \
         waits until they are told apart, unless it is one key.",
        share * 100.0
    )]
    Coarse {
        /// The node.
        node: NodeId,
        /// The keys, as text.
        keys: String,
        /// Of the load.
        share: f64,
    },
    /// No act helps now.
    #[error(
        "Node {node} has {times:.2} times the mean load, and no act helps at present: what could \
         move was moved lately, or would make another node as hot."
    )]
    Nothing {
        /// The node.
        node: NodeId,
        /// The node over the mean.
        times: f64,
    },
    /// The limit of acts.
    #[error("It waits: {per_minute} acts began within the last minute, the most there may be.")]
    ActsSpent {
        /// The limit.
        per_minute: u32,
    },
    /// The limit of moves.
    #[error("It waits until a move has ended: {most} at a time are the most.")]
    MovesSpent {
        /// The limit.
        most: u32,
    },
}

impl Reason {
    /// Nothing will be done about the load, whatever happens with what is under way.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Reason::OneKey { .. } | Reason::OneNode)
    }
}

fn list(numbers: impl Iterator<Item = u64>) -> String {
    let named: Vec<String> = numbers.take(9).map(|number| number.to_string()).collect();
    match named.len() {
        9 => format!("{} and more", named[..8].join(", ")),
        _ => named.join(", "),
    }
}

fn members(nodes: &[NodeId], one: &str, many: &str) -> String {
    let named = list(nodes.iter().map(|node| node.0));
    match nodes.len() {
        1 => format!("node {named} {one}"),
        _ => format!("nodes {named} {many}"),
    }
}

fn groups(groups: &[GroupId]) -> String {
    let named = list(groups.iter().map(|group| group.0));
    match groups.len() {
        1 => format!("group {named} is"),
        _ => format!("groups {named} are"),
    }
}
