//! Reads: served by a replica as soon as the requested consistency holds, and counted by the node
//! that serves them.

use std::sync::Arc;

use bytes::Bytes;

use keyviz_core::{GroupId, NodeId, Op};
use keyviz_raft::{Attempts, Group, KnownLeader, ReadError};

use super::consistency::Consistency;
use super::coordinator::{Coordinator, Target};
use super::error::KvError;
use super::limits::check_key;
use super::machine::{read_key, read_page};
use super::peer::{PeerError, PeerOutcome, PeerRead, PeerReadReply};

/// Why a read could not be confirmed as linearizable yet. Another attempt may succeed.
#[derive(Debug, thiserror::Error)]
enum Unconfirmed {
    #[error("node {0} does not lead the group any more")]
    LeaderChanged(NodeId),
    #[error("the group has no leader")]
    NoLeader,
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Coordinator {
    /// The value of a key.
    pub async fn get(
        &self,
        key: Bytes,
        consistency: Consistency,
    ) -> Result<Option<Bytes>, KvError> {
        check_key(&key)?;
        let group = self.group_of(&key)?;
        match self.read(group, consistency, PeerRead::Get(key)).await? {
            PeerReadReply::Value(value) => Ok(value),
            PeerReadReply::Page(_) => {
                Err(KvError::Undecodable { reason: "a page in answer to a key".to_owned() })
            }
        }
    }

    /// Serves `read` locally if this node has a suitable replica, otherwise at one peer.
    pub(super) async fn read(
        &self,
        group: GroupId,
        consistency: Consistency,
        read: PeerRead,
    ) -> Result<PeerReadReply, KvError> {
        let mut attempts = Attempts::until(self.deadline());
        loop {
            let outcome = self.try_read(group, consistency, &read, &attempts).await?;
            let reason = match outcome {
                Tried::Served(reply) => return Ok(reply),
                Tried::Again(reason) => reason,
            };
            Coordinator::count(&self.counters.retries);
            if !attempts.again().await {
                return Err(KvError::ReadUnavailable { group, reason });
            }
        }
    }

    async fn try_read(
        &self,
        group: GroupId,
        consistency: Consistency,
        read: &PeerRead,
        attempts: &Attempts,
    ) -> Result<Tried, KvError> {
        let Some(local) = self.local(group) else {
            let peer = match consistency {
                Consistency::Lease => match self.leader(group, attempts.made()) {
                    Target::Peer(peer) => Some(peer),
                    Target::Here(_) | Target::Nobody => None,
                },
                _ => self.replica(group, attempts.made()),
            };
            return self.read_at(peer, group, consistency, read).await;
        };
        match consistency {
            Consistency::Stale => self.may_read_stale().await?,
            Consistency::Lease => match self.lease(&local, attempts).await {
                Ok(()) => {}
                Err(ReadError::NotLeader { leader }) => {
                    return self.read_at(node_of(&leader), group, consistency, read).await;
                }
                Err(ReadError::Stopped(reason)) if !self.gave_up(group) => {
                    return Err(KvError::Storage { reason });
                }
                Err(error) => return Ok(Tried::Again(error.to_string())),
            },
            Consistency::Linearizable => {
                if let Err(unconfirmed) = self.confirm(&local, attempts).await? {
                    return Ok(Tried::Again(unconfirmed.to_string()));
                }
            }
        }
        self.serve(&local, read).map(Tried::Served)
    }

    /// Waits until this replica has applied everything that was acknowledged before the read
    /// arrived. The inner error is the reason why it is not confirmed yet.
    async fn confirm(
        &self,
        local: &Arc<Group>,
        attempts: &Attempts,
    ) -> Result<Result<(), Unconfirmed>, KvError> {
        let index = match local.read_index().await {
            Ok(index) => index,
            Err(ReadError::NotLeader { leader: Some((leader, _)) }) => {
                let leader = NodeId(leader);
                match self.index_from(leader, local.id()).await {
                    Ok(PeerOutcome::Done(index)) => index,
                    Ok(PeerOutcome::NotLeader(_)) => {
                        return Ok(Err(Unconfirmed::LeaderChanged(leader)));
                    }
                    Err(PeerError::Refused(refusal)) => return Err(refusal),
                    Err(error) => return Ok(Err(error.into())),
                }
            }
            Err(ReadError::NotLeader { leader: None }) => return Ok(Err(Unconfirmed::NoLeader)),
            Err(ReadError::Stopped(reason)) if !self.gave_up(local.id()) => {
                return Err(KvError::Storage { reason });
            }
            Err(error) => return Ok(Err(error.into())),
        };
        match local.wait_applied(index, attempts.left()).await {
            Ok(()) => Ok(Ok(())),
            Err(ReadError::Stopped(reason)) if !self.gave_up(local.id()) => {
                Err(KvError::Storage { reason })
            }
            Err(error) => Ok(Err(error.into())),
        }
    }

    /// As [`Coordinator::confirm`], confirmed by the lease of this node as leader.
    async fn lease(&self, local: &Arc<Group>, attempts: &Attempts) -> Result<(), ReadError> {
        let index = local.lease_index().await?;
        local.wait_applied(index, attempts.left()).await
    }

    /// Has `peer` serve the read.
    async fn read_at(
        &self,
        peer: Option<NodeId>,
        group: GroupId,
        consistency: Consistency,
        read: &PeerRead,
    ) -> Result<Tried, KvError> {
        let Some(peer) = peer.filter(|peer| *peer != self.parts.node) else {
            return Ok(Tried::Again("no node is known to serve the group".to_owned()));
        };
        Coordinator::count(&self.counters.forwarded_reads);
        match self.parts.peers.read(peer, group, consistency, read.clone()).await {
            Ok(PeerOutcome::Done(reply)) => Ok(Tried::Served(reply)),
            Ok(PeerOutcome::NotLeader(leader)) => {
                self.parts.directory.hint_leader(group, leader);
                Ok(Tried::Again(format!("node {peer} does not serve the group")))
            }
            Err(PeerError::Refused(refusal @ KvError::Invalid(_))) => Err(refusal),
            // A read changes nothing, so it may be repeated.
            Err(error) => {
                self.parts.directory.hint_leader(group, None);
                Ok(Tried::Again(error.to_string()))
            }
        }
    }

    /// Serves a read for another node.
    pub async fn read_here(
        &self,
        group: GroupId,
        consistency: Consistency,
        read: PeerRead,
    ) -> Result<PeerOutcome<PeerReadReply>, KvError> {
        let Some(local) = self.local(group) else {
            return Ok(PeerOutcome::NotLeader(None));
        };
        let attempts = Attempts::until(self.deadline());
        match consistency {
            Consistency::Stale => self.may_read_stale().await?,
            Consistency::Lease => match self.lease(&local, &attempts).await {
                Ok(()) => {}
                Err(ReadError::NotLeader { leader }) => {
                    return Ok(PeerOutcome::NotLeader(node_of(&leader)));
                }
                Err(ReadError::Stopped(reason)) => return Err(KvError::Storage { reason }),
                Err(error) => {
                    return Err(KvError::ReadUnavailable { group, reason: error.to_string() });
                }
            },
            Consistency::Linearizable => {
                if let Err(unconfirmed) = self.confirm(&local, &attempts).await? {
                    let reason = unconfirmed.to_string();
                    return Err(KvError::ReadUnavailable { group, reason });
                }
            }
        }
        self.serve(&local, &read).map(PeerOutcome::Done)
    }

    /// The read index of a group that this node leads, for a follower.
    pub async fn read_index_here(&self, group: GroupId) -> Result<PeerOutcome<u64>, KvError> {
        let Some(local) = self.parts.groups.get(group) else {
            return Ok(PeerOutcome::NotLeader(None));
        };
        match local.read_index().await {
            Ok(index) => Ok(PeerOutcome::Done(index)),
            Err(ReadError::NotLeader { leader }) => Ok(PeerOutcome::NotLeader(node_of(&leader))),
            Err(ReadError::Stopped(reason)) => Err(KvError::Storage { reason }),
            Err(error) => Err(KvError::ReadUnavailable { group, reason: error.to_string() }),
        }
    }

    /// Reads from this node's replica, and counts it: one read, and the bytes returned.
    fn serve(&self, local: &Group, read: &PeerRead) -> Result<PeerReadReply, KvError> {
        if let PeerRead::Page(range) = read
            && range.uncounted
        {
            return Ok(PeerReadReply::Page(read_page(local.keyspace(), range)?));
        }
        Coordinator::count(&self.counters.reads_served);
        local.count_read();
        let (key, reads, bytes, reply) = match read {
            PeerRead::Get(key) => {
                let value = read_key(local.keyspace(), key)?;
                let bytes = value.as_ref().map_or(0, Bytes::len) as u64;
                (key, 1, bytes, PeerReadReply::Value(value))
            }
            PeerRead::Page(range) => {
                let page = read_page(local.keyspace(), range)?;
                let bytes =
                    page.rows.iter().map(|row| row.key.len() + row.value.len()).sum::<usize>();
                (&range.start, u64::from(!range.continued), bytes as u64, PeerReadReply::Page(page))
            }
        };
        let sampler = &self.parts.sampler;
        sampler.with_epoch(|epoch| match epoch.locate(key) {
            Some(located) => epoch.record(Op::Read, located, key, reads, bytes),
            None => sampler.count_unattributed(Op::Read, bytes),
        });
        Ok(reply)
    }
}

fn node_of(leader: &KnownLeader) -> Option<NodeId> {
    leader.as_ref().map(|(leader, _)| NodeId(*leader))
}

enum Tried {
    Served(PeerReadReply),
    Again(String),
}
