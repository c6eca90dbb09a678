//! Identification of the node at an address, and the conclusions from it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tonic::{Code, Status};

use super::roster::Roster;
use super::start::{Doubt, PastStart, Start};
use crate::types;
use keyviz_proto as proto;
use keyviz_proto::raft_identity::Verdict;
use keyviz_types::NodeId;

/// Time limit of an identification.
const IDENTIFY_WITHIN: Duration = Duration::from_secs(2);

/// Why the node at an address is not the expected member.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VouchError {
    /// Another node answers.
    #[error("node {0} answers there")]
    OtherNode(u64),
    /// A node of another cluster answers.
    #[error("a node {node} of cluster {cluster} answers there")]
    OtherCluster {
        /// The node.
        node: NodeId,
        /// Its cluster.
        cluster: String,
    },
    /// The node has the right id, but not the disk on record.
    #[error(transparent)]
    Disk(#[from] Doubt),
}

impl Roster {
    /// The starts of this disk before this one.
    pub(crate) fn history_to_proto(&self) -> Vec<proto::RaftPastStart> {
        self.inner.history.iter().map(|past| past.to_proto()).collect()
    }

    /// What this node answers to a caller that identifies itself.
    pub(crate) fn answer(
        &self,
        hello: &proto::RaftHello,
        history: &[proto::RaftPastStart],
        cluster: &str,
    ) -> proto::RaftIdentity {
        let mut answer = identity_to_proto(cluster, self.inner.node.0, Some(self.own()));
        answer.history = self.history_to_proto();
        if !cluster.is_empty() && !hello.cluster_id.is_empty() && cluster != hello.cluster_id {
            answer.set_verdict(Verdict::OtherCluster);
            answer.reason = format!(
                "node {} at this address belongs to cluster {cluster}, not {}",
                self.inner.node, hello.cluster_id
            );
            return answer;
        }
        let from = NodeId(hello.from);
        let peers = self.inner.peers.lock();
        let peer = peers.get(&from);
        let (known, recorded) = peer.map_or((None, None), |peer| (peer.known, peer.recorded));
        let founded = self.inner.founded.load(Ordering::Relaxed);
        answer.awaits_caller =
            !cluster.is_empty() && founded && known.is_none() && recorded.is_none();
        let Some(shown) = hello.start.as_ref().and_then(Start::from_proto) else { return answer };
        let disk = recorded.or(known.map(|known| known.disk));
        answer.knows_caller = disk == Some(shown.disk);
        let past: Vec<PastStart> = history.iter().map(PastStart::from_proto).collect();
        let checks = self.inner.checks;
        if let Some(Err(doubt)) = peer.map(|peer| peer.judge(from, &shown, &past, checks)) {
            answer.set_verdict(Verdict::Refused);
            answer.reason = doubt.to_string();
        }
        drop(peers);
        self.note_mark(from, &shown);
        answer
    }

    /// A peer that was identified shows its mark as it makes it.
    fn note_mark(&self, node: NodeId, shown: &Start) {
        let mut peers = self.inner.peers.lock();
        let known = peers.get_mut(&node).and_then(|peer| peer.known.as_mut());
        if let Some(known) = known.filter(|known| known.nonce == shown.nonce)
            && known.mark < shown.mark
        {
            known.mark = shown.mark;
            self.inner.has_news.store(true, Ordering::Relaxed);
        }
    }

    /// A caller claimed to be `node` and was refused with the reason.
    pub(crate) fn note_doubt(&self, node: NodeId, doubt: String) {
        self.inner.peers.lock().entry(node).or_default().doubt = Some(doubt);
    }

    /// A member has lost acknowledged entries. Said once; a status names it until it is identified
    /// anew.
    pub(crate) fn note_loss(&self, node: NodeId, what: &str) {
        let mut peers = self.inner.peers.lock();
        let peer = peers.entry(node).or_default();
        if peer.doubt.as_deref() != Some(what) {
            tracing::error!("{what}");
            peer.doubt = Some(what.to_owned());
        }
    }

    /// Identifies `node` by the answer that `ask` gets from its address. `fresh`: also where it was
    /// before.
    pub(crate) async fn identify(
        &self,
        node: NodeId,
        cluster: &str,
        fresh: bool,
        ask: impl Future<Output = Result<proto::RaftIdentity, Status>>,
    ) -> Result<proto::RaftIdentity, Status> {
        let identifying = {
            let mut peers = self.inner.peers.lock();
            Arc::clone(&peers.entry(node).or_default().identifying)
        };
        let _alone = identifying.lock().await;
        if !fresh && self.is_identified(node) {
            return Ok(proto::RaftIdentity::default());
        }
        let answer = match tokio::time::timeout(IDENTIFY_WITHIN, ask).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(status)) if status.code() == Code::Unimplemented => {
                return self.note_older(node).map(|()| proto::RaftIdentity::default());
            }
            Ok(Err(status)) => return Err(status),
            Err(_) => {
                let text = format!("node {node} did not say who it is in time");
                return Err(Status::unavailable(text));
            }
        };
        self.take(node, cluster, &answer).await?;
        Ok(answer)
    }

    /// A peer of a version that shows no disk.
    fn note_older(&self, node: NodeId) -> Result<(), Status> {
        let mut peers = self.inner.peers.lock();
        let peer = peers.entry(node).or_default();
        if peer.recorded.is_some() {
            let doubt = Doubt::ShowsNone { node }.to_string();
            peer.doubt = Some(doubt.clone());
            return Err(Status::failed_precondition(doubt));
        }
        (peer.is_older, peer.doubt) = (true, None);
        Ok(())
    }

    /// Checks that the node at a new address is this member on its own disk; changes nothing.
    ///
    /// # Errors
    /// Why it is not.
    pub fn vouch(
        &self,
        node: NodeId,
        cluster: &str,
        answer: &proto::RaftIdentity,
    ) -> Result<(), VouchError> {
        if answer.node != node.0 {
            return Err(VouchError::OtherNode(answer.node));
        }
        if !answer.cluster_id.is_empty() && answer.cluster_id != cluster {
            return Err(VouchError::OtherCluster { node, cluster: answer.cluster_id.clone() });
        }
        let Some(shown) = answer.start.as_ref().and_then(Start::from_proto) else {
            return Err(Doubt::ShowsNone { node }.into());
        };
        let past: Vec<PastStart> = answer.history.iter().map(PastStart::from_proto).collect();
        let peers = self.inner.peers.lock();
        let Some(peer) = peers.get(&node) else { return Ok(()) };
        Ok(peer.judge(node, &shown, &past, self.inner.checks)?)
    }

    async fn take(
        &self,
        node: NodeId,
        cluster: &str,
        answer: &proto::RaftIdentity,
    ) -> Result<(), Status> {
        tracing::debug!(%node, ?answer, own = ?self.own(), "a peer said who it is");
        if answer.node != node.0 {
            let text = format!("node {} answers at the address of node {node}", answer.node);
            self.note_doubt(node, text.clone());
            return Err(Status::failed_precondition(text));
        }
        // Before its verdict: a node of another cluster knows other nodes by the same ids.
        if !cluster.is_empty() && !answer.cluster_id.is_empty() && cluster != answer.cluster_id {
            let text = format!(
                "node {node} belongs to cluster {}, this node to cluster {cluster}",
                answer.cluster_id
            );
            self.note_doubt(node, text.clone());
            return Err(Status::failed_precondition(text));
        }
        match answer.verdict() {
            Verdict::None | Verdict::OtherCluster => {}
            verdict => {
                self.refuse(answer.reason.clone(), verdict == Verdict::Refused).await;
                return Err(Status::failed_precondition(answer.reason.clone()));
            }
        }
        let Some(shown) = answer.start.as_ref().and_then(Start::from_proto) else {
            return self.note_older(node);
        };
        let past: Vec<PastStart> = answer.history.iter().map(PastStart::from_proto).collect();
        let changed = {
            let mut peers = self.inner.peers.lock();
            let peer = peers.entry(node).or_default();
            if let Err(doubt) = peer.judge(node, &shown, &past, self.inner.checks) {
                let doubt = doubt.to_string();
                (peer.doubt, peer.verified) = (Some(doubt.clone()), None);
                return Err(Status::failed_precondition(doubt));
            }
            let before = peer.known;
            peer.known = Some(match before {
                // The answer may be older than a mark that came another way.
                Some(known) if known.nonce == shown.nonce => {
                    Start { mark: known.mark.max(shown.mark), ..shown }
                }
                _ => shown,
            });
            let same = before.is_some_and(|before| {
                (before.disk, before.number, before.nonce)
                    == (shown.disk, shown.number, shown.nonce)
            });
            (peer.doubt, peer.is_older) = (None, false);
            if same {
                peer.verified = Some(shown.nonce);
                if before.map(|before| before.mark) != peer.known.map(|known| known.mark) {
                    self.inner.has_news.store(true, Ordering::Relaxed);
                }
            }
            !same
        };
        if changed {
            // Durable before anything is acknowledged that counts on it.
            let stored = self.store(self.own().mark).await;
            stored.map_err(|error| Status::unavailable(error.to_string()))?;
            let mut peers = self.inner.peers.lock();
            if let Some(peer) = peers.get_mut(&node)
                && peer.known.is_some_and(|known| known.nonce == shown.nonce)
            {
                peer.verified = Some(shown.nonce);
            }
        }
        Ok(())
    }
}

/// The answer to a caller that raises no doubt.
pub(crate) fn identity_to_proto(
    cluster: &str,
    node: types::RaftNodeId,
    start: Option<Start>,
) -> proto::RaftIdentity {
    proto::RaftIdentity {
        cluster_id: cluster.to_owned(),
        node,
        start: start.map(Start::to_proto),
        ..Default::default()
    }
}
