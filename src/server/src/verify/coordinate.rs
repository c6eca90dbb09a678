//! Verifies one group at a time: chooses the entry, arms the replicas and collects their digests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;

use keyviz_proto as proto;
use keyviz_proto::digest_at_update::Update;
use keyviz_raft::RowsDigest;
use keyviz_types::{GroupId, NodeId};

use super::Verification;
use super::peer::MOST_ADVANCED;
use super::verdict::{ATTEMPTS, GroupReport, NoDigest, Replicas};
use keyviz_peer::CallError;
use keyviz_peer::digests::{self, DigestUpdates};
use keyviz_peer::snapshot::{STATUS_DEADLINE, group_to_wire};

/// How far ahead of the newest replica the first entry is. Without writes, this many proposals
/// bring the group there.
const FIRST_AHEAD: u64 = 16;

/// Time limit for a replica to be armed.
const ARM_WITHIN: Duration = Duration::from_secs(5);

/// A replica that has been silent for this long gives no digest; it reports twice a second.
const SILENT_FOR: Duration = Duration::from_secs(10);

/// Time limit for finding the leader of a group.
const LEADER_WITHIN: Duration = Duration::from_secs(10);

/// The pause before the next search, and before the second entry is tried.
const PAUSE: Duration = Duration::from_millis(200);

/// How far the verification of a group is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Progress {
    pub(crate) group: GroupId,
    pub(crate) index: u64,
    pub(crate) attempt: u32,
    /// Of the replica that has read the fewest.
    pub(crate) bytes: u64,
}

/// Receives the progress of a verification.
pub(crate) trait Told: Send + Sync {
    fn tell(&self, progress: Progress);
}

/// Nobody.
pub(crate) struct Untold;

impl Told for Untold {
    fn tell(&self, _: Progress) {}
}

/// The answers of a group's replicas.
#[derive(Default)]
struct Said {
    voters: BTreeSet<NodeId>,
    leader: Option<NodeId>,
    /// Of the newest replica.
    applied: u64,
    /// The silent ones, with the reason.
    silent: BTreeMap<NodeId, Silence>,
}

/// Why a node did not report the position of its replica.
#[derive(Debug, thiserror::Error)]
enum Silence {
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why a group was not brought to an entry.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
enum NotAdvanced {
    #[error("the group has no leader")]
    NoLeader,
    #[error("the group's leader, node {node}: {reason}")]
    Leader { node: NodeId, reason: String },
}

/// One attempt, for all replicas.
#[derive(Clone, Copy)]
struct Attempt {
    group: GroupId,
    index: u64,
    number: u32,
    bytes_per_s: u64,
}

impl Verification {
    /// Compares the replicas of a group.
    pub(crate) async fn coordinate(
        &self,
        group: GroupId,
        bytes_per_s: u64,
        told: &impl Told,
    ) -> GroupReport {
        let mut ahead = FIRST_AHEAD;
        let mut number = 1;
        loop {
            let said = self.ask(group).await;
            let index = said.applied.saturating_add(ahead);
            let attempt = Attempt { group, index, number, bytes_per_s };
            told.tell(Progress { group, index, attempt: number, bytes: 0 });
            let outcomes = self.attempt(attempt, &said, told).await;
            if number == ATTEMPTS || !outcomes.values().any(is_worth_another) {
                return GroupReport::new(group, index, outcomes);
            }
            ahead = next_ahead(ahead, said.applied, &outcomes);
            // The places of armed digests become free soon.
            tokio::time::sleep(PAUSE * number).await;
            number += 1;
        }
    }

    /// Asks the holders of a group for their positions.
    async fn ask(&self, group: GroupId) -> Said {
        let mut holders: BTreeSet<NodeId> = self.directory.replicas(group).into_iter().collect();
        if holders.is_empty() {
            holders = self.directory.members().keys().copied().collect();
        }
        let asks =
            holders.iter().map(|node| async move { (*node, self.ask_node(*node, group).await) });
        let mut said = Said::default();
        let mut views = Vec::new();
        for (node, answer) in join_all(asks).await {
            match answer {
                Ok(view) => views.extend(view.map(|view| (node, view))),
                Err(reason) => {
                    said.silent.insert(node, reason);
                }
            }
        }
        said.applied = views.iter().map(|(_, view)| view.applied_index).max().unwrap_or(0);
        let newest = views.iter().max_by_key(|(_, view)| (view.term, view.applied_index));
        let voters = newest.map(|(_, view)| view.voters.iter().copied().map(NodeId).collect());
        said.voters = voters.unwrap_or(holders);
        said.leader = newest.map(|(_, view)| NodeId(view.leader)).filter(|node| *node != NodeId(0));
        said
    }

    async fn ask_node(
        &self,
        node: NodeId,
        group: GroupId,
    ) -> Result<Option<proto::PeerGroupStatus>, Silence> {
        if node == self.node {
            return Ok(self.groups.get(group).map(|group| group_to_wire(&group)));
        }
        let said = self.peers.node_status(node, STATUS_DEADLINE).await?;
        // A node that takes part in nothing counts as silent, with its reason.
        if !said.refused.is_empty() {
            return Err(Silence::Refused(said.refused));
        }
        Ok(said.groups.into_iter().find(|view| view.group_id == group.0))
    }

    async fn attempt(&self, attempt: Attempt, said: &Said, told: &impl Told) -> Replicas {
        let arms = said.voters.iter().map(|node| async move {
            let armed = match said.silent.get(node) {
                Some(reason) => Err(NoDigest::Failed(reason.to_string())),
                None => self.arm(*node, attempt).await,
            };
            (*node, armed)
        });
        let (mut armed, mut outcomes) = (Vec::new(), Replicas::new());
        for (node, arm) in join_all(arms).await {
            match arm {
                Ok(updates) => armed.push((node, updates)),
                Err(none) => drop(outcomes.insert(node, Err(none))),
            }
        }
        let again = attempt.number < ATTEMPTS && outcomes.values().any(is_worth_another);
        if armed.is_empty() || again {
            return outcomes;
        }
        let (give_up, given_up) = watch::channel(None);
        let far = watch::Sender::new(BTreeMap::<NodeId, u64>::new());
        let digests = armed.into_iter().map(|(node, updates)| {
            let far = &far;
            let far = move |bytes| {
                far.send_modify(|far| *far.entry(node).or_default() = bytes);
                let bytes = far.borrow().values().min().copied().unwrap_or(0);
                let Attempt { group, index, number, .. } = attempt;
                told.tell(Progress { group, index, attempt: number, bytes });
            };
            far(0);
            let given_up = given_up.clone();
            async move { (node, follow(updates, attempt.index, given_up, far).await) }
        });
        let advancing = async {
            if let Err(error) = self.advance(attempt, said.leader).await {
                give_up.send_replace(Some(error));
            }
            std::future::pending().await
        };
        let digests: Vec<_> = tokio::select! {
            digests = join_all(digests) => digests,
            never = advancing => never,
        };
        outcomes.extend(digests);
        outcomes
    }

    /// Has a replica take its digest at the entry.
    async fn arm(&self, node: NodeId, attempt: Attempt) -> Result<DigestUpdates, NoDigest> {
        let Attempt { group, index, bytes_per_s, .. } = attempt;
        let arming = async {
            let mut updates = match node == self.node {
                true => self.digest_at(group, index, bytes_per_s),
                false => self.peers.digest_at(node, group, index, bytes_per_s).await,
            }
            .map_err(|status| none_of(&status))?;
            match updates.next().await {
                Some(Ok(proto::DigestAtUpdate { update: Some(Update::Armed(_)) })) => Ok(updates),
                Some(Ok(proto::DigestAtUpdate { update: Some(Update::Missed(applied)) })) => {
                    Err(NoDigest::Missed { applied, index })
                }
                Some(Err(status)) => Err(none_of(&status)),
                _ => Err(NoDigest::Failed("it answered something else".to_owned())),
            }
        };
        match tokio::time::timeout(ARM_WITHIN, arming).await {
            Ok(armed) => armed,
            Err(_) => Err(NoDigest::Failed(silent_for(ARM_WITHIN))),
        }
    }

    /// Has the group's current leader bring it to the entry.
    async fn advance(&self, attempt: Attempt, leader: Option<NodeId>) -> Result<(), NotAdvanced> {
        let Attempt { group, index, .. } = attempt;
        let deadline = Instant::now() + LEADER_WITHIN;
        let mut leader = leader;
        loop {
            let answer = match leader {
                None => Ok(Err(self.ask(group).await.leader)),
                Some(node) if node == self.node => self.advance_here(group, index).await,
                Some(node) => self.peers.advance(node, group, index).await,
            };
            match answer {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(hint)) if Instant::now() < deadline => leader = hint,
                Err(status)
                    if status.code() == tonic::Code::Unavailable && Instant::now() < deadline =>
                {
                    leader = None;
                }
                Ok(Err(_)) => return Err(NotAdvanced::NoLeader),
                Err(status) => {
                    let reason = digests::reason(&status);
                    let node = leader.unwrap_or(self.node);
                    return Err(NotAdvanced::Leader { node, reason });
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn is_worth_another(outcome: &Result<RowsDigest, NoDigest>) -> bool {
    matches!(outcome, Err(NoDigest::Missed { .. } | NoDigest::Busy(_)))
}

fn none_of(status: &tonic::Status) -> NoDigest {
    let reason = digests::reason(status);
    match status.code() {
        tonic::Code::Aborted | tonic::Code::ResourceExhausted => NoDigest::Busy(reason),
        _ => NoDigest::Failed(reason),
    }
}

/// How far ahead the next entry is, after some replicas were past the one before.
fn next_ahead(ahead: u64, asked_at: u64, outcomes: &Replicas) -> u64 {
    let passed = outcomes.values().filter_map(|outcome| match outcome {
        Err(NoDigest::Missed { applied, .. }) => Some(applied.saturating_sub(asked_at)),
        _ => None,
    });
    let Some(passed) = passed.max() else { return ahead };
    // Twice the entries applied in between.
    (ahead * 4).max(passed.saturating_mul(2)).min(MOST_ADVANCED / 2)
}

/// Waits for the digest of an armed replica. `given_up`: why the group does not come to the entry.
async fn follow(
    mut updates: DigestUpdates,
    index: u64,
    mut given_up: watch::Receiver<Option<NotAdvanced>>,
    far: impl Fn(u64),
) -> Result<RowsDigest, NoDigest> {
    let mut taken = false;
    loop {
        let update = tokio::select! {
            biased;
            update = tokio::time::timeout(SILENT_FOR, updates.next()) => update,
            reason = async { given_up.wait_for(Option::is_some).await.ok()?.clone() },
                if !taken =>
            {
                let reason = reason.map_or_else(String::new, |error| error.to_string());
                return Err(NoDigest::Failed(reason));
            }
        };
        let update = update.map_err(|_| NoDigest::Failed(silent_for(SILENT_FOR)))?;
        let update = match update {
            Some(Ok(update)) => update.update,
            Some(Err(status)) => return Err(none_of(&status)),
            None => return Err(NoDigest::Failed("it stopped half way".to_owned())),
        };
        match update {
            Some(Update::Progress(progress)) => {
                taken = progress.taken;
                far(progress.bytes);
            }
            Some(Update::Missed(applied)) => return Err(NoDigest::Missed { applied, index }),
            Some(Update::Digest(digest)) => {
                far(digest.bytes);
                return digests::from_wire(index, &digest)
                    .ok_or_else(|| NoDigest::Failed("its digest does not decode".to_owned()));
            }
            Some(Update::Armed(_)) | None => {}
        }
    }
}

fn silent_for(time: Duration) -> String {
    format!("no answer within {} s", time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_entry_is_further_ahead_than_what_was_applied_meanwhile_and_bounded() {
        let missed = |applied| Err(NoDigest::Missed { applied, index: 1 });
        let outcomes = |applied| Replicas::from([(NodeId(1), missed(applied))]);
        assert_eq!(next_ahead(16, 100, &outcomes(120)), 64);
        assert_eq!(next_ahead(16, 100, &outcomes(1_100)), 2_000);
        assert_eq!(next_ahead(30_000, 100, &outcomes(40_000)), MOST_ADVANCED / 2);
        let busy = Replicas::from([(NodeId(1), Err(NoDigest::Busy(String::new())))]);
        assert_eq!(next_ahead(16, 100, &busy), 16);
    }

    fn update(update: Update) -> Result<proto::DigestAtUpdate, tonic::Status> {
        Ok(proto::DigestAtUpdate { update: Some(update) })
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_falls_silent_or_ends_early_gives_no_digest() {
        let (_keep, given_up) = watch::channel(None);
        let silent = futures::stream::pending().boxed();
        let none = follow(silent, 9, given_up.clone(), |_| ()).await;
        assert_eq!(none, Err(NoDigest::Failed("no answer within 10 s".to_owned())));
        let ended = futures::stream::iter([update(Update::Armed(3))]).boxed();
        let none = follow(ended, 9, given_up.clone(), |_| ()).await;
        assert_eq!(none, Err(NoDigest::Failed("it stopped half way".to_owned())));
        let missed = futures::stream::iter([update(Update::Missed(12))]).boxed();
        let none = follow(missed, 9, given_up, |_| ()).await;
        assert_eq!(none, Err(NoDigest::Missed { applied: 12, index: 9 }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_that_is_not_brought_to_the_entry_ends_the_wait_of_those_not_there_yet() {
        let (give_up, given_up) = watch::channel(None);
        give_up.send_replace(Some(NotAdvanced::NoLeader));
        let waits = futures::stream::pending().boxed();
        let none = follow(waits, 9, given_up.clone(), |_| ()).await;
        assert_eq!(none, Err(NoDigest::Failed("the group has no leader".to_owned())));
        // A replica that has the entry continues.
        let taken = proto::DigestProgress { taken: true, rows: 1, bytes: 2 };
        let digest = proto::RowsDigest { digest: vec![0; 16].into(), rows: 1, bytes: 2 };
        let updates = [update(Update::Progress(taken)), update(Update::Digest(digest))];
        let updates = futures::stream::iter(updates).boxed();
        assert!(follow(updates, 9, given_up, |_| ()).await.is_ok());
    }
}
