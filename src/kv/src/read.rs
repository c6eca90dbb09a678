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
        match self.read(|| self.group_of(&key), consistency, PeerRead::Get(key.clone())).await? {
            PeerReadReply::Value(value) => Ok(value),
            PeerReadReply::Page(_) => {
                Err(KvError::Undecodable { reason: "a page in answer to a key".to_owned() })
            }
        }
    }

    /// Serves `read` locally if this node has a suitable replica, otherwise at one peer.
    ///
    /// The group is looked up anew for each attempt: keys may move meanwhile.
    pub(super) async fn read(
        &self,
        locate: impl Fn() -> Result<GroupId, KvError>,
        consistency: Consistency,
        read: PeerRead,
    ) -> Result<PeerReadReply, KvError> {
        let deadline = self.deadline();
        let mut attempts = Attempts::until(deadline);
        loop {
            let group = locate()?;
            let outcome = self.try_read(group, consistency, &read, &attempts).await?;
            let reason = match outcome {
                Tried::Served(reply) => return Ok(reply),
                Tried::Again(reason) => reason,
                Tried::Moved => {
                    Coordinator::count(&self.counters.moved_keys);
                    self.wait_for_route(group, &locate, deadline).await;
                    if tokio::time::Instant::now() >= deadline {
                        return Err(KvError::Moving { group });
                    }
                    continue;
                }
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
        Ok(self.serve(&local, read)?.map_or(Tried::Moved, Tried::Served))
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
            Err(PeerError::Refused(KvError::Moving { .. })) => Ok(Tried::Moved),
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
        let served = self.serve(&local, &read)?;
        served.map(PeerOutcome::Done).ok_or(KvError::Moving { group })
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

    /// Reads from this node's replica, and counts it: one read, and the bytes returned. `None`: the
    /// replica does not own the keys, or does not have them yet.
    fn serve(&self, local: &Group, read: &PeerRead) -> Result<Option<PeerReadReply>, KvError> {
        let ownership = self.parts.ownerships.of(local.id());
        // The table here may be newer or older than that of who asks.
        if self.is_routed_elsewhere(local.id(), read) {
            return Ok(None);
        }
        let adopted = self.parts.ownerships.adopted(local.id());
        if adopted > 0 && local.keyspace().applied().is_none_or(|at| at.index < adopted) {
            return Ok(None);
        }
        loop {
            let looked = match read {
                PeerRead::Get(key) => ownership.look_at_key(key),
                PeerRead::Page(range) => ownership.look(&range.start, range.end.as_deref()),
            };
            let Some(looked) = looked else { return Ok(None) };
            let reply = self.read_rows(local, read)?;
            if ownership.unchanged(looked) {
                self.count_read(local, read, &reply);
                return Ok(Some(reply));
            }
        }
    }

    /// Whether the routes that are published here lead to another group than `group`.
    fn is_routed_elsewhere(&self, group: GroupId, read: &PeerRead) -> bool {
        let key = match read {
            PeerRead::Get(key) => key,
            PeerRead::Page(range) => &range.start,
        };
        self.parts.sampler.with_epoch(|epoch| {
            epoch.locate(key).is_some_and(|located| epoch.route(located).group != group)
        })
    }

    fn read_rows(&self, local: &Group, read: &PeerRead) -> Result<PeerReadReply, KvError> {
        match read {
            PeerRead::Get(key) => Ok(PeerReadReply::Value(read_key(local.keyspace(), key)?)),
            PeerRead::Page(range) => Ok(PeerReadReply::Page(read_page(local.keyspace(), range)?)),
        }
    }

    fn count_read(&self, local: &Group, read: &PeerRead, reply: &PeerReadReply) {
        if let PeerRead::Page(range) = read
            && range.uncounted
        {
            return;
        }
        Coordinator::count(&self.counters.reads_served);
        local.count_read();
        let (key, reads) = match read {
            PeerRead::Get(key) => (key, 1),
            PeerRead::Page(range) => (&range.start, u64::from(!range.continued)),
        };
        let bytes = match reply {
            PeerReadReply::Value(value) => value.as_ref().map_or(0, Bytes::len),
            PeerReadReply::Page(page) => {
                page.rows.iter().map(|row| row.key.len() + row.value.len()).sum()
            }
        } as u64;
        let sampler = &self.parts.sampler;
        sampler.with_epoch(|epoch| match epoch.locate(key) {
            Some(located) => epoch.record(Op::Read, located, key, reads, bytes),
            None => sampler.count_unattributed(Op::Read, bytes),
        });
    }
}

fn node_of(leader: &KnownLeader) -> Option<NodeId> {
    leader.as_ref().map(|(leader, _)| NodeId(*leader))
}

enum Tried {
    Served(PeerReadReply),
    /// The group does not have the keys any more, or not yet.
    Moved,
    Again(String),
}
