//! Writes: encoded once, sent to at most one other node at a time, proposed by the leader of the
//! group, and counted there once, in the term in which they were proposed.
//!
//! The count is made when the outcome is known, under the table that was published when the write
//! was proposed. A write whose caller went away, or whose outcome is unknown, was proposed and is
//! counted; a write that openraft refused is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use keyviz_core::sampler::{Epoch, Located};
use keyviz_core::{GroupId, NodeId, Op, Sampler, Term};
use keyviz_raft::{Attempts, Group, ProposeError};

use super::command::{CasOutcome, KvCommand, KvWrite};
use super::coordinator::{Coordinator, Target};
use super::error::KvError;
use super::limits::{check_batch, check_key, check_value};
use super::machine::{decode_cas, decode_count, is_not_owned, not_owned};
use super::peer::{PeerError, PeerOutcome};

/// Disk states of replicas are as old as their last heartbeat answer, so a full replica is checked
/// once more before a write is refused because of it.
const HEARD_AGAIN: Duration = Duration::from_secs(1);

pub(super) async fn replicas_have_space(local: &Group) -> Result<(), KvError> {
    let until = Instant::now() + HEARD_AGAIN;
    loop {
        match local.check_replicas_space() {
            Ok(()) => return Ok(()),
            Err(full) if Instant::now() >= until => {
                return Err(KvError::DiskFull { reason: full.to_string() });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

impl Coordinator {
    /// Stores a value.
    pub async fn put(&self, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        check_key(key)?;
        check_value(value)?;
        let command = KvCommand::Put { key, value }.encode();
        self.write(|| self.group_of(key), command).await.map(drop)
    }

    /// Removes a key; returns whether it existed.
    pub async fn delete(&self, key: &[u8]) -> Result<bool, KvError> {
        check_key(key)?;
        let command = KvCommand::Delete { key }.encode();
        let reply = self.write(|| self.group_of(key), command).await?;
        Ok(decode_count(&reply)? > 0)
    }

    /// Replaces a value if it is the expected one.
    pub async fn compare_and_swap(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<CasOutcome, KvError> {
        check_key(key)?;
        for value in [expected, value].into_iter().flatten() {
            check_value(value)?;
        }
        let command = KvCommand::CompareAndSwap { key, expected, value }.encode();
        decode_cas(&self.write(|| self.group_of(key), command).await?)
    }

    /// Applies all of `writes` atomically. They must be in one group.
    pub async fn batch(&self, writes: Vec<KvWrite<'_>>) -> Result<(), KvError> {
        check_batch(writes.len(), writes.iter().map(KvWrite::payload_bytes).sum())?;
        for write in &writes {
            check_key(write.key())?;
            if let KvWrite::Put { value, .. } = write {
                check_value(value)?;
            }
        }
        let keys: Vec<&[u8]> = writes.iter().map(KvWrite::key).collect();
        let command = KvCommand::Batch(writes).encode();
        self.write(|| self.one_group(&keys), command).await.map(drop)
    }

    fn one_group(&self, keys: &[&[u8]]) -> Result<GroupId, KvError> {
        let epoch = self.parts.sampler.epoch();
        let mut first = None;
        for key in keys {
            let located = epoch.locate(key).ok_or(KvError::NotReady)?;
            let group = epoch.route(located).group;
            let first = *first.get_or_insert(group);
            if group != first {
                return Err(KvError::CrossGroup { first, second: group });
            }
        }
        first.ok_or(KvError::NotReady)
    }

    /// Lets the leader of the group that `locate` gives propose `command`; returns the answer of
    /// the state machine. The group is looked up anew for each attempt: keys may move meanwhile.
    pub(super) async fn write(
        &self,
        locate: impl Fn() -> Result<GroupId, KvError>,
        command: Bytes,
    ) -> Result<Bytes, KvError> {
        let deadline = self.deadline();
        let mut attempts = Attempts::until(deadline);
        loop {
            let group = locate()?;
            let outcome = match self.leader(group, attempts.made()) {
                Target::Here(local) => self.propose_in(&local, command.clone()).await?,
                Target::Peer(peer) => self.forward(peer, group, command.clone()).await?,
                Target::Nobody => PeerOutcome::NotLeader(None),
            };
            match outcome {
                PeerOutcome::Done(reply) if is_not_owned(&reply) => {
                    Coordinator::count(&self.counters.moved_keys);
                    self.wait_for_route(group, &locate, deadline).await;
                    if Instant::now() >= deadline {
                        return Err(KvError::Moving { group });
                    }
                    continue;
                }
                PeerOutcome::Done(reply) => return Ok(reply),
                PeerOutcome::NotLeader(leader) => self.parts.directory.hint_leader(group, leader),
            }
            Coordinator::count(&self.counters.retries);
            if !attempts.again().await {
                return Err(KvError::NoLeader { group });
            }
        }
    }

    async fn forward(
        &self,
        peer: NodeId,
        group: GroupId,
        command: Bytes,
    ) -> Result<PeerOutcome<Bytes>, KvError> {
        Coordinator::count(&self.counters.forwarded_writes);
        match self.parts.peers.propose(peer, group, command).await {
            Ok(PeerOutcome::Done(reply)) => {
                self.parts.directory.hint_leader(group, Some(peer));
                Ok(PeerOutcome::Done(reply))
            }
            Ok(not_leader) => Ok(not_leader),
            Err(PeerError::NotSent { .. }) => Ok(PeerOutcome::NotLeader(None)),
            Err(PeerError::Lost { reason, .. }) => Err(KvError::UnknownOutcome { group, reason }),
            Err(PeerError::Refused(refusal)) => Err(refusal),
        }
    }

    /// Proposes `command` in a group that this node should lead, for another node.
    pub async fn propose_here(
        &self,
        group: GroupId,
        command: Bytes,
    ) -> Result<PeerOutcome<Bytes>, KvError> {
        match self.parts.groups.get(group) {
            Some(local) => self.propose_in(&local, command).await,
            None => Ok(PeerOutcome::NotLeader(None)),
        }
    }

    async fn propose_in(
        &self,
        local: &Group,
        command: Bytes,
    ) -> Result<PeerOutcome<Bytes>, KvError> {
        let group = local.id();
        replicas_have_space(local).await?;
        let Some(proposal) = Proposal::of(&self.parts.sampler, group, &command)? else {
            // This node or the one that asks has not applied the catalog that placed the keys.
            return Ok(PeerOutcome::Done(not_owned()));
        };
        let proposal = proposal.counted_in(&self.counters.proposed);
        let ownership = self.parts.ownerships.of(group);
        if proposal.touches.each().iter().any(|touch| ownership.refuses(&touch.key)) {
            proposal.refused();
            return Ok(PeerOutcome::Done(not_owned()));
        }
        match local.propose(command).await {
            Ok(proposed) if is_not_owned(&proposed.reply) => {
                proposal.refused();
                Ok(PeerOutcome::Done(proposed.reply))
            }
            Ok(proposed) => {
                proposal.accepted(proposed.term);
                Ok(PeerOutcome::Done(proposed.reply))
            }
            Err(ProposeError::NotLeader { leader }) => {
                proposal.refused();
                Ok(PeerOutcome::NotLeader(leader.map(|(leader, _)| NodeId(leader))))
            }
            Err(ProposeError::Overloaded) => {
                proposal.refused();
                Err(KvError::Overloaded { group })
            }
            Err(ProposeError::DiskFull(full)) => {
                proposal.refused();
                Err(KvError::DiskFull { reason: full.to_string() })
            }
            Err(error @ ProposeError::TooLong { .. }) => {
                proposal.refused();
                Err(KvError::Undecodable { reason: error.to_string() })
            }
            Err(error @ ProposeError::Unknown) => {
                Err(KvError::UnknownOutcome { group, reason: error.to_string() })
            }
            // It was given up while the proposal was on its way.
            Err(ProposeError::Stopped(reason)) if self.gave_up(group) => {
                Err(KvError::UnknownOutcome { group, reason })
            }
            Err(ProposeError::Stopped(reason)) => Err(KvError::Storage { reason }),
        }
    }
}

/// A write in progress: the table that it was proposed under, and the counts to make once it is
/// known to have been proposed. If it is dropped without a verdict (unknown outcome, caller gone),
/// it counts.
struct Proposal<'a> {
    sampler: &'a Sampler,
    /// Counts what the matrix counts.
    counter: Option<&'a AtomicU64>,
    epoch: Arc<Epoch>,
    group: GroupId,
    touches: Touches,
    term: Option<Term>,
    counts: bool,
}

/// Most writes touch one slot, so no list is made for them.
enum Touches {
    One(Touch),
    Many(Vec<Touch>),
}

struct Touch {
    located: Located,
    key: Bytes,
    bytes: u64,
}

impl Touches {
    fn each(&self) -> &[Touch] {
        match self {
            Touches::One(touch) => std::slice::from_ref(touch),
            Touches::Many(touches) => touches,
        }
    }
}

impl<'a> Proposal<'a> {
    /// `None`: a key is in another group, as far as this node knows.
    fn of(sampler: &'a Sampler, group: GroupId, encoded: &Bytes) -> Result<Option<Self>, KvError> {
        let epoch = sampler.epoch_full();
        let command = KvCommand::decode(encoded)
            .map_err(|error| KvError::Undecodable { reason: error.to_string() })?;
        let touch = |key: &[u8], bytes: usize| {
            let located = epoch.locate(key).ok_or(KvError::NotReady)?;
            if epoch.route(located).group != group {
                return Ok(None);
            }
            let touch = Touch { located, key: encoded.slice_ref(key), bytes: bytes as u64 };
            Ok::<_, KvError>(Some(touch))
        };
        let one = |key: &[u8], bytes: usize| Ok::<_, KvError>(touch(key, bytes)?.map(Touches::One));
        let touches = match &command {
            KvCommand::Put { key, value } => one(key, key.len() + value.len())?,
            KvCommand::Delete { key } => one(key, key.len())?,
            KvCommand::CompareAndSwap { key, value, .. } => {
                one(key, key.len() + value.map_or(0, <[u8]>::len))?
            }
            // One route's part of the range, by construction: its bounds are what was transferred.
            KvCommand::DeleteRange { start, end } => {
                one(start, start.len() + end.map_or(0, <[u8]>::len))?
            }
            KvCommand::Batch(writes) => writes
                .iter()
                .map(|write| touch(write.key(), write.payload_bytes()))
                .collect::<Result<Option<_>, _>>()?
                .map(Touches::Many),
        };
        let Some(touches) = touches else { return Ok(None) };
        let term = epoch.lead(group);
        Ok(Some(Proposal { sampler, counter: None, touches, group, term, epoch, counts: true }))
    }

    fn counted_in(mut self, counter: &'a AtomicU64) -> Self {
        self.counter = Some(counter);
        self
    }

    fn accepted(mut self, term: Term) {
        self.term = Some(term);
    }

    fn refused(mut self) {
        self.counts = false;
    }
}

impl Drop for Proposal<'_> {
    fn drop(&mut self) {
        if !self.counts {
            return;
        }
        if let Some(counter) = self.counter {
            // Relaxed: it is read by itself.
            counter.fetch_add(self.touches.each().len() as u64, Ordering::Relaxed);
        }
        let published = self.term == self.epoch.lead(self.group);
        for touch in self.touches.each() {
            let Touch { located, key, bytes } = touch;
            if published {
                self.sampler.record(Op::Write, &self.epoch, *located, key, 1, *bytes);
            } else {
                // The write went into a term that was not published yet, or no longer.
                let (epoch, term) = (&self.epoch, self.term);
                self.sampler.record_late(Op::Write, epoch, *located, key, term, 1, *bytes);
            }
        }
    }
}

#[cfg(test)]
#[path = "split_race_tests.rs"]
mod split_race_tests;
