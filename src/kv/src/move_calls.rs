//! Steps of moves and reads for them: here where this node can, else at another one. They are of
//! nobody's traffic, so nothing is counted.

use bytes::Bytes;

use keyviz_raft::{Attempts, Group, ProposeError};
use keyviz_types::{GroupId, NodeId};

use super::coordinator::{Coordinator, Target};
use super::error::KvError;
use super::moves::{MoveChunk, MoveEntry, MoveRead, MoveReply, read_chunk};
use super::peer::{PeerError, PeerOutcome};
use super::write::replicas_have_space;

impl Coordinator {
    /// Has the leader of `group` make a step of a move. A step may be made again whatever became of
    /// it, so this tries until the deadline.
    ///
    /// # Errors
    /// The group did not answer in time, or its disks are full.
    pub async fn move_step(
        &self,
        group: GroupId,
        step: &MoveEntry<'_>,
    ) -> Result<MoveReply, KvError> {
        let encoded = step.encode();
        let mut attempts = Attempts::until(self.deadline());
        loop {
            let outcome = match self.leader(group, attempts.made()) {
                Target::Here(local) => self.propose_step(&local, encoded.clone()).await,
                Target::Peer(peer) => {
                    self.parts.peers.move_step(peer, group, encoded.clone()).await
                }
                Target::Nobody => Ok(PeerOutcome::NotLeader(None)),
            };
            match outcome {
                Ok(PeerOutcome::Done(reply)) => {
                    return MoveReply::decode(&reply)
                        .map_err(|error| KvError::Undecodable { reason: error.to_string() });
                }
                Ok(PeerOutcome::NotLeader(leader)) => {
                    self.parts.directory.hint_leader(group, leader);
                }
                Err(PeerError::Refused(refusal @ KvError::DiskFull { .. })) => return Err(refusal),
                Err(_) => self.parts.directory.hint_leader(group, None),
            }
            if !attempts.again().await {
                return Err(KvError::NoLeader { group });
            }
        }
    }

    /// Makes a step of a move in a group that this node should lead, for another node.
    ///
    /// # Errors
    /// The bytes are no step, or the group could not take it.
    pub async fn move_step_here(
        &self,
        group: GroupId,
        step: Bytes,
    ) -> Result<PeerOutcome<Bytes>, KvError> {
        MoveEntry::decode(&step)
            .map_err(|error| KvError::Undecodable { reason: error.to_string() })?;
        let Some(local) = self.parts.groups.get(group) else {
            return Ok(PeerOutcome::NotLeader(None));
        };
        self.propose_step(&local, step).await.map_err(|error| match error {
            PeerError::Refused(refusal) => refusal,
            PeerError::NotSent { reason, .. } | PeerError::Lost { reason, .. } => {
                KvError::UnknownOutcome { group, reason }
            }
        })
    }

    async fn propose_step(
        &self,
        local: &Group,
        step: Bytes,
    ) -> Result<PeerOutcome<Bytes>, PeerError> {
        replicas_have_space(local).await?;
        let lost = |reason| PeerError::Lost { node: self.parts.node, reason };
        match local.propose(step).await {
            Ok(proposed) => Ok(PeerOutcome::Done(proposed.reply)),
            Err(ProposeError::NotLeader { leader }) => {
                Ok(PeerOutcome::NotLeader(leader.map(|(leader, _)| NodeId(leader))))
            }
            Err(ProposeError::DiskFull(full)) => {
                Err(KvError::DiskFull { reason: full.to_string() }.into())
            }
            Err(error) => Err(lost(error.to_string())),
        }
    }

    /// Reads a part of a range that moves from a replica of `group` that has applied enough.
    ///
    /// # Errors
    /// There was none in time.
    pub async fn move_read(&self, group: GroupId, read: &MoveRead) -> Result<MoveChunk, KvError> {
        let mut attempts = Attempts::until(self.deadline());
        loop {
            // The leader has applied the most; the others serve if it cannot be reached.
            let target = match attempts.made() % 2 {
                0 => self.leader(group, attempts.made()),
                _ => self.replica(group, attempts.made() / 2).map_or(Target::Nobody, Target::Peer),
            };
            let outcome = match target {
                Target::Here(_) => self.move_read_here(group, read).map_err(PeerError::Refused),
                Target::Peer(peer) if peer == self.parts.node => {
                    self.move_read_here(group, read).map_err(PeerError::Refused)
                }
                Target::Peer(peer) => self.parts.peers.move_read(peer, group, read.clone()).await,
                Target::Nobody => Ok(PeerOutcome::NotLeader(None)),
            };
            let reason = match outcome {
                Ok(PeerOutcome::Done(chunk)) => return Ok(chunk),
                Ok(PeerOutcome::NotLeader(_)) => "no replica has applied enough".to_owned(),
                Err(error) => error.to_string(),
            };
            if !attempts.again().await {
                return Err(KvError::ReadUnavailable { group, reason });
            }
        }
    }

    /// Reads a part of a range that moves from this node's replica. Not the leader: the replica has
    /// not applied enough.
    ///
    /// # Errors
    /// The rows cannot be read.
    pub fn move_read_here(
        &self,
        group: GroupId,
        read: &MoveRead,
    ) -> Result<PeerOutcome<MoveChunk>, KvError> {
        let Some(local) = self.parts.groups.get(group) else {
            return Ok(PeerOutcome::NotLeader(None));
        };
        let chunk = read_chunk(local.keyspace(), read)
            .map_err(|error| KvError::Storage { reason: error.to_string() })?;
        Ok(chunk.map_or(PeerOutcome::NotLeader(None), PeerOutcome::Done))
    }
}
