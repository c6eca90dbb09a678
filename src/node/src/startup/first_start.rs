//! The first start of a first member: it asks the others whether their cluster exists already.
//!
//! An empty folder under `--bootstrap` may be a new node or one that lost its disk. Only the others
//! know, so a majority of the *other* first members must answer before anything is formed (of three
//! members, both others). If one knows the cluster, this node is admitted only if the cluster has
//! never seen a disk of it, or has seen this very one; otherwise the node has lost acknowledged
//! entries, and the start is refused.
//!
//! Remaining risk: with five first members or more, a minority that does not answer may be all that
//! remains of the cluster. `docs/operations.md` describes it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;
use tonic::{Code, Status};

use keyviz_proto as proto;
use keyviz_proto::cluster_peer_client::ClusterPeerClient;
use keyviz_proto::raft_identity::Verdict;
use keyviz_raft::{Checks, Peers, Roster};
use keyviz_types::NodeId;

use crate::error::NodeError;

/// The pause between two rounds of questions.
const AGAIN: Duration = Duration::from_millis(200);

/// A member has this long to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The awaited members are logged this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What asking needs.
pub(crate) struct FirstStart {
    pub(crate) node: NodeId,
    pub(crate) folder: String,
    /// All first members.
    pub(crate) members: BTreeMap<NodeId, String>,
    pub(crate) peers: Peers,
    pub(crate) roster: Roster,
    /// Whether anybody is asked: always, except in simulations that show what it is for.
    pub(crate) asks: bool,
    pub(crate) checks: Checks,
}

/// What a first member said.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Said {
    /// It knows no cluster, or one that has never seen this node, or knows it with this disk.
    Nothing,
    /// Why this node may not start afresh.
    Refused(String),
}

/// The number of answers, of so many other members, that suffices.
fn majority(others: usize) -> usize {
    if others == 0 { 0 } else { others / 2 + 1 }
}

impl FirstStart {
    /// Returns once the cluster may be formed, or joined as a first member that comes late.
    ///
    /// # Errors
    /// The cluster exists and has this node on record, or that is unclear.
    pub(crate) async fn run(&self) -> Result<(), NodeError> {
        if !self.asks {
            return Ok(());
        }
        let mut waiting: BTreeMap<NodeId, String> = self.members.clone();
        waiting.remove(&self.node);
        let others = waiting.len();
        let mut told: Option<Instant> = None;
        loop {
            let asks = waiting
                .iter()
                .map(|(node, address)| async move { (*node, self.ask(*node, address).await) });
            for (node, said) in join_all(asks).await {
                match said {
                    Some(Said::Refused(reason)) => {
                        let (id, folder) = (self.node, self.folder.clone());
                        return Err(NodeError::ClusterExists { id, folder, reason });
                    }
                    Some(Said::Nothing) => drop(waiting.remove(&node)),
                    None => {}
                }
            }
            let answered = others - waiting.len();
            if answered >= majority(others) {
                break;
            }
            if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                told = Some(Instant::now());
                let silent: BTreeSet<String> =
                    waiting.iter().map(|(node, at)| format!("node {node} at {at}")).collect();
                let silent = silent.into_iter().collect::<Vec<_>>().join(", ");
                tracing::info!(
                    "first start: {answered} of {others} other first members answered, {} are \
                     needed; waiting for {silent}. Start them with the same --bootstrap",
                    majority(others)
                );
            }
            tokio::time::sleep(AGAIN).await;
        }
        let remembered = self.roster.remember_founding().await;
        remembered.map_err(|source| NodeError::Record {
            folder: self.folder.clone(),
            name: "founded",
            source,
        })
    }

    async fn ask(&self, node: NodeId, address: &str) -> Option<Said> {
        let asked =
            tokio::time::timeout(ANSWER_WITHIN, self.peers.ask_identity(node, address, false));
        match asked.await {
            Ok(Ok(answer)) => {
                tracing::debug!(%node, ?answer, "a first member answered");
                Some(self.judge(node, address, &answer))
            }
            Ok(Err(status)) if status.code() == Code::Unimplemented => {
                self.ask_older(node, address).await
            }
            Ok(Err(status)) => refusal(node, &status),
            Err(_) => None,
        }
    }

    fn judge(&self, node: NodeId, address: &str, answer: &proto::RaftIdentity) -> Said {
        if !self.checks.disks {
            return Said::Nothing;
        }
        if answer.node != node.0 {
            let found = answer.node;
            return Said::Refused(format!(
                "node {found} answers at {address}, where --bootstrap has node {node}"
            ));
        }
        let cluster = &answer.cluster_id;
        if answer.verdict() == Verdict::Refused {
            return Said::Refused(format!("node {node} says: {}", answer.reason));
        }
        if cluster.is_empty() || answer.awaits_caller || answer.knows_caller {
            return Said::Nothing;
        }
        Said::Refused(format!(
            "node {node} belongs to cluster {cluster} and cannot tell that node {} never took part \
             in it. If node {} lost its disk, start a node with a new id and an empty folder \
             (--join), then run `keyviz cluster replace-node {} --with NEW_ID`",
            self.node, self.node, self.node
        ))
    }

    /// A member of a version without identification reports at least whether it has a cluster.
    async fn ask_older(&self, node: NodeId, address: &str) -> Option<Said> {
        let channel = self.peers.channel(node.0, address).ok()?;
        let mut client = ClusterPeerClient::new(channel);
        let asked = client.node_status(proto::PeerStatusRequest::default());
        let status = tokio::time::timeout(ANSWER_WITHIN, asked).await.ok()?.ok()?.into_inner();
        let identity = proto::RaftIdentity {
            cluster_id: status.cluster_id,
            node: status.node_id,
            ..Default::default()
        };
        Some(self.judge(node, address, &identity))
    }
}

/// A permanent refusal.
fn refusal(node: NodeId, status: &Status) -> Option<Said> {
    let stands = status.code() == Code::FailedPrecondition;
    stands.then(|| Said::Refused(format!("node {node} says: {}", status.message())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_of_the_others_has_to_answer() {
        let needed: Vec<usize> = (0..7).map(majority).collect();
        assert_eq!(needed, [0, 1, 2, 2, 3, 3, 4]);
    }
}
