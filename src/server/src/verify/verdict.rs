//! The verdict on a group from the digests of its replicas.

use std::collections::BTreeMap;

use keyviz_raft::RowsDigest;
use keyviz_types::{GroupId, NodeId};

/// The digest of each replica of a group, or why there is none.
pub type Replicas = BTreeMap<NodeId, Result<RowsDigest, NoDigest>>;

/// Entries that are tried before a replica that misses them all gives no digest.
pub(super) const ATTEMPTS: u32 = 6;

/// Why a replica gave no digest.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoDigest {
    /// It was past the entry in every attempt.
    #[error("it was at entry {applied}, past entry {index}, in {ATTEMPTS} attempts")]
    Missed {
        /// The last entry that it has applied.
        applied: u64,
        /// The entry of the last attempt.
        index: u64,
    },
    /// More was written than it keeps, or it has too much to do: another attempt may succeed.
    #[error("{0}")]
    Busy(String),
    /// Another attempt would not help.
    #[error("{0}")]
    Failed(String),
}

/// The verdict on all of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// All replicas have the same rows.
    Agree,
    /// Some replicas have other rows.
    Differ {
        /// Those with other rows than the majority; without a majority, all that gave a digest.
        nodes: Vec<NodeId>,
        /// Most of the replicas have the same rows.
        majority: bool,
    },
    /// Some replicas gave no digest. Those that did have the same rows.
    Incomplete,
}

/// A group that was verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupReport {
    /// The group.
    pub group: GroupId,
    /// The entry that the replicas were compared at.
    pub index: u64,
    /// The digest of each replica, or why there is none.
    pub replicas: Replicas,
    /// What they say together.
    pub verdict: Verdict,
}

impl Verdict {
    /// The verdict on all replicas of a group. A majority counts all replicas, not only those that
    /// gave a digest.
    pub fn on(replicas: &Replicas) -> Self {
        let given = || {
            let given =
                replicas.iter().filter_map(|(node, given)| Some((*node, given.as_ref().ok()?)));
            given.map(|(node, digest)| (node, (digest.digest, digest.rows, digest.bytes)))
        };
        let mut votes = BTreeMap::<_, usize>::new();
        for (_, digest) in given() {
            *votes.entry(digest).or_default() += 1;
        }
        if votes.len() <= 1 {
            let all = !replicas.is_empty() && replicas.values().all(Result::is_ok);
            return if all { Verdict::Agree } else { Verdict::Incomplete };
        }
        let majority = votes.into_iter().find(|(_, votes)| votes * 2 > replicas.len());
        let majority = majority.map(|(digest, _)| digest);
        let others = given().filter(|(_, digest)| Some(*digest) != majority);
        let nodes = others.map(|(node, _)| node).collect();
        Verdict::Differ { nodes, majority: majority.is_some() }
    }

    /// In one word, for labels.
    pub fn word(&self) -> &'static str {
        match self {
            Verdict::Agree => "agree",
            Verdict::Differ { .. } => "differ",
            Verdict::Incomplete => "incomplete",
        }
    }
}

impl GroupReport {
    /// The report on replicas that were compared at an entry.
    pub fn new(group: GroupId, index: u64, replicas: Replicas) -> Self {
        let verdict = Verdict::on(&replicas);
        GroupReport { group, index, replicas, verdict }
    }

    /// Replicas with other rows than the majority, or than other replicas if there is no majority.
    pub fn differing(&self) -> &[NodeId] {
        match &self.verdict {
            Verdict::Differ { nodes, .. } => nodes,
            Verdict::Agree | Verdict::Incomplete => &[],
        }
    }

    /// What an operator must know and do; `None` if all replicas agree.
    pub fn words(&self) -> Option<String> {
        let group = match self.group {
            GroupId::CATALOG => "the catalog group".to_owned(),
            group => format!("Raft group {group}"),
        };
        let index = self.index;
        let replicas = self.replicas.iter().map(|(node, given)| match given {
            Ok(digest) => format!("node {node} has {:032x} ({} rows)", digest.digest, digest.rows),
            Err(reason) => format!("node {node} gave no digest: {reason}"),
        });
        let replicas = replicas.collect::<Vec<_>>().join("; ");
        let list = |nodes: &[NodeId]| {
            let each = nodes.iter().map(NodeId::to_string);
            each.collect::<Vec<_>>().join(", ")
        };
        match &self.verdict {
            Verdict::Agree => None,
            Verdict::Incomplete => Some(format!(
                "{group} could not be verified completely at entry {index}: {replicas}"
            )),
            Verdict::Differ { nodes, majority: true } => Some(format!(
                "the replicas of {group} differ at entry {index}: {replicas}. Not as the majority: \
                 node {}. Stop it and keep its folder to find the cause, \
                 replace it (keyviz cluster \
                 replace-node), then run keyviz cluster verify again",
                list(nodes)
            )),
            Verdict::Differ { nodes, majority: false } => Some(format!(
                "the replicas of {group} differ at entry {index}: {replicas}. No rows have a \
                 majority; differing: nodes {}. Keep the folders of all of them to find the cause, \
                 and run keyviz cluster verify again when all replicas answer",
                list(nodes)
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(digest: u128) -> Result<RowsDigest, NoDigest> {
        Ok(RowsDigest { index: 9, digest, rows: 1, bytes: 2 })
    }

    fn silent() -> Result<RowsDigest, NoDigest> {
        Err(NoDigest::Failed("no answer".to_owned()))
    }

    fn report(given: &[Result<RowsDigest, NoDigest>]) -> GroupReport {
        let replicas = (1..).map(NodeId).zip(given.iter().cloned()).collect();
        GroupReport::new(GroupId(1), 9, replicas)
    }

    fn verdict(given: &[Result<RowsDigest, NoDigest>]) -> Verdict {
        report(given).verdict
    }

    fn differ(nodes: &[u64], majority: bool) -> Verdict {
        Verdict::Differ { nodes: nodes.iter().copied().map(NodeId).collect(), majority }
    }

    #[test]
    fn no_lost_write_goes_unseen_who_is_in_the_minority_is_named() {
        let (a, b, c) = (digest(1), digest(2), digest(3));
        assert_eq!(verdict(&[a.clone(), a.clone(), a.clone()]), Verdict::Agree);
        assert_eq!(verdict(&[a.clone(), b.clone(), a.clone()]), differ(&[2], true));
        let five = [b.clone(), a.clone(), a.clone(), a.clone(), c.clone()];
        assert_eq!(verdict(&five), differ(&[1, 5], true));
        // As many rows of as many bytes are not the same rows, and the other way round.
        let longer = Ok(RowsDigest { index: 9, digest: 1, rows: 1, bytes: 3 });
        assert_eq!(verdict(&[a.clone(), a.clone(), longer]), differ(&[3], true));
        assert_eq!(verdict(&[a]), Verdict::Agree, "one replica agrees with itself");
    }

    #[test]
    fn no_lost_write_is_blamed_on_a_node_without_a_majority_of_all_replicas() {
        let (a, b, c) = (digest(1), digest(2), digest(3));
        assert_eq!(verdict(&[a.clone(), b.clone()]), differ(&[1, 2], false), "a tie");
        assert_eq!(verdict(&[a.clone(), b.clone(), c]), differ(&[1, 2, 3], false));
        assert_eq!(verdict(&[a.clone(), b.clone(), silent()]), differ(&[1, 2], false));
        let five = [a.clone(), a.clone(), b.clone(), silent(), silent()];
        assert_eq!(verdict(&five), differ(&[1, 2, 3], false), "two of five are no majority");
        let five = [a.clone(), a.clone(), b, a, silent()];
        assert_eq!(verdict(&five), differ(&[3], true), "three of five are one");
    }

    #[test]
    fn who_gave_no_digest_leaves_the_group_incomplete() {
        let a = digest(1);
        assert_eq!(verdict(&[a.clone(), a.clone(), silent()]), Verdict::Incomplete);
        assert_eq!(verdict(&[a, silent(), silent()]), Verdict::Incomplete);
        assert_eq!(verdict(&[silent()]), Verdict::Incomplete);
        assert_eq!(verdict(&[]), Verdict::Incomplete, "nobody knows its replicas");
    }

    #[test]
    fn the_log_names_group_entry_nodes_and_digests_and_what_to_do() {
        let words = report(&[digest(1), digest(0xab), digest(1)]).words().expect("they differ");
        for part in [
            "Raft group 1 differ at entry 9",
            "node 2 has 000000000000000000000000000000ab (1 rows)",
            "Not as the majority: node 2",
            "replace-node",
            "cluster verify",
        ] {
            assert!(words.contains(part), "{part:?} is not in {words}");
        }
        let words = report(&[digest(1), digest(2)]).words().expect("they differ");
        assert!(words.contains("nodes 1, 2") && !words.contains("replace-node"), "{words}");
        let words = report(&[digest(1), silent()]).words().expect("one is missing");
        assert!(words.contains("node 2 gave no digest: no answer"), "{words}");
        assert_eq!(report(&[digest(1), digest(1)]).words(), None);
    }
}
