//! The node's part in a verification by another node: digests of its replicas, and advancing groups
//! that it leads.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use keyviz_catalog::CatalogCommand;
use keyviz_catalog_group::{CatalogChangeError, CatalogOutcome};
use keyviz_kv::KvCommand;
use keyviz_proto as proto;
use keyviz_proto::digest_at_update::Update;
use keyviz_raft::{DigestError, DigestProgress, Group, ProposeError};
use keyviz_types::{GroupId, RouteId};

use super::Verification;
use keyviz_peer::digests::{ADVANCE_WITHIN, DigestUpdates, TELL_EVERY, to_wire};
use keyviz_peer::members::LeaderAnswer;

/// A replica that does not come to the entry for so long gives no digest.
const REACH_WITHIN: Duration = Duration::from_secs(60);

/// How long writes may take to bring a group to an entry before it is advanced.
const BY_ITSELF: Duration = Duration::from_millis(50);

/// Entries that a group is advanced at most.
pub(crate) const MOST_ADVANCED: u64 = 65_536;

/// Proposals that change nothing under way at the same time.
const PROPOSED_TOGETHER: u64 = 64;

/// The pause after a proposal that was refused.
const PAUSE: Duration = Duration::from_millis(50);

impl Verification {
    /// A digest of this node's replica, as it is taken.
    pub(crate) fn digest_at(
        &self,
        group: GroupId,
        index: u64,
        bytes_per_s: u64,
    ) -> Result<DigestUpdates, Status> {
        let busy = || {
            let reason = "this node has as many digests under way as it takes on; try again later";
            Status::resource_exhausted(reason)
        };
        let place = Arc::clone(&self.digests).try_acquire_owned().map_err(|_| busy())?;
        let group = self.replica(group)?;
        let armed = match group.digest_at(index) {
            Ok(armed) => armed,
            Err(DigestError::Missed { applied }) => return Ok(once(Update::Missed(applied))),
            Err(DigestError::Busy) => return Err(busy()),
            Err(error) => return Err(Status::internal(error.to_string())),
        };
        let applied = group.keyspace().applied().map_or(0, |at| at.index);
        let (taken, updates) = mpsc::channel(4);
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let _place = place;
            let give = |update| {
                let update = proto::DigestAtUpdate { update: Some(update) };
                // A caller that went away is noticed below.
                async { taken.send(Ok(update)).await.unwrap_or_default() }
            };
            give(Update::Armed(applied)).await;
            let progress = Arc::<DigestProgress>::default();
            let digest = armed.compute(REACH_WITHIN, bytes_per_s, Arc::clone(&progress));
            tokio::pin!(digest);
            let mut tell = tokio::time::interval(TELL_EVERY);
            let digest = loop {
                tokio::select! {
                    digest = &mut digest => break digest,
                    _ = tell.tick() => {
                        let (rows, bytes) = progress.read();
                        let taken = progress.is_taken();
                        let so_far = proto::DigestProgress { taken, rows, bytes };
                        give(Update::Progress(so_far)).await;
                    }
                    () = taken.closed() => return,
                    () = stop.cancelled() => return,
                }
            };
            match digest {
                Ok(digest) => give(Update::Digest(to_wire(&digest))).await,
                Err(DigestError::Missed { applied }) => give(Update::Missed(applied)).await,
                Err(error) => taken.send(Err(digest_status(&error))).await.unwrap_or_default(),
            }
        });
        Ok(ReceiverStream::new(updates).boxed())
    }

    fn replica(&self, group: GroupId) -> Result<Arc<Group>, Status> {
        self.groups.get(group).ok_or_else(|| {
            Status::failed_precondition(format!("this node has no replica of Raft group {group}"))
        })
    }

    /// Brings a group that this node leads to an entry. `Err(hint)`: it does not lead it.
    pub(crate) async fn advance_here(
        &self,
        group: GroupId,
        index: u64,
    ) -> Result<LeaderAnswer<()>, Status> {
        let Some(group) = self.groups.get(group) else { return Ok(Err(None)) };
        let deadline = Instant::now() + ADVANCE_WITHIN;
        let mut by_itself = BY_ITSELF;
        loop {
            if !group.is_leader() {
                return Ok(Err(group.leader().filter(|leader| *leader != self.node)));
            }
            // Entries already in the log are applied soon.
            if group.wait_applied(index, by_itself).await.is_ok() {
                return Ok(Ok(()));
            }
            by_itself = Duration::ZERO;
            let last = group.status().last_log.unwrap_or(0);
            let missing = index.saturating_sub(last);
            if missing > MOST_ADVANCED {
                return Err(Status::invalid_argument(format!(
                    "entry {index} is {missing} entries ahead; at most {MOST_ADVANCED}"
                )));
            }
            let proposals =
                (0..missing.min(PROPOSED_TOGETHER)).map(|_| self.propose_nothing(&group));
            let refused = join_all(proposals).await.into_iter().find_map(Result::err);
            if Instant::now() >= deadline {
                let reason = refused
                    .map_or_else(|| "it takes too long".to_owned(), |error| error.to_string());
                return Err(Status::unavailable(format!(
                    "the group was not brought to entry {index}: {reason}"
                )));
            }
            if refused.is_some() || missing == 0 {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Proposes a command that changes nothing. It is proposed directly in the group, so it is not
    /// counted.
    async fn propose_nothing(&self, group: &Group) -> Result<(), NotProposed> {
        if group.id() == GroupId::CATALOG {
            return match self.catalog.propose_here(&nothing_of_catalog()?).await {
                Ok(CatalogOutcome::Done(_) | CatalogOutcome::Unknown(_)) => Ok(()),
                Ok(CatalogOutcome::NotLeader(_)) => Err(NotProposed::NoLeader),
                Ok(CatalogOutcome::NotSent(reason) | CatalogOutcome::DiskFull(reason)) => {
                    Err(NotProposed::Refused(reason))
                }
                Err(error) => Err(error.into()),
            };
        }
        match group.propose(nothing_of_data()).await {
            // An unknown outcome shows in the applied index.
            Ok(_) | Err(ProposeError::Unknown) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Why a command that changes nothing was not proposed.
#[derive(Debug, thiserror::Error)]
enum NotProposed {
    #[error("it lost its leader")]
    NoLeader,
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Codec(#[from] keyviz_catalog::CodecError),
    #[error(transparent)]
    Catalog(#[from] CatalogChangeError),
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

/// A command of a data group that changes nothing in any version: it deletes an empty range.
fn nothing_of_data() -> Bytes {
    KvCommand::DeleteRange { start: b"", end: Some(b"") }.encode()
}

/// A command of the catalog that changes nothing in any version: it was decided on a catalog
/// version that never comes, so it is refused.
fn nothing_of_catalog() -> Result<Bytes, keyviz_catalog::CodecError> {
    let command = CatalogCommand::Split {
        route_id: RouteId::FIRST,
        key: Vec::new(),
        expected_version: u64::MAX,
        request_id: String::new(),
        time_ms: 0,
    };
    Ok(Bytes::from(command.encode()?))
}

fn once(update: Update) -> DigestUpdates {
    let update = proto::DigestAtUpdate { update: Some(update) };
    futures::stream::iter([Ok(update)]).boxed()
}

fn digest_status(error: &DigestError) -> Status {
    let reason = error.to_string();
    match error {
        DigestError::Missed { .. } | DigestError::Overtaken => Status::aborted(reason),
        DigestError::Busy => Status::resource_exhausted(reason),
        DigestError::NotReached { .. } => Status::deadline_exceeded(reason),
        DigestError::Unreadable(_) => Status::data_loss(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyviz_catalog::{Catalog, Retention};
    use keyviz_types::NodeId;

    #[test]
    fn what_advances_the_catalog_is_refused_whatever_its_state() {
        let command = || {
            let bytes = nothing_of_catalog().expect("it is small");
            CatalogCommand::decode(&bytes).expect("it is a command")
        };
        let mut catalog = Catalog::new(Retention::DEFAULT);
        assert!(catalog.apply(command()).is_err(), "before its bootstrap");
        let bootstrap = CatalogCommand::Bootstrap {
            cluster_id: keyviz_catalog::ClusterId([7; 16]),
            groups: vec![keyviz_catalog::GroupPlacement {
                group: GroupId(1),
                replicas: vec![NodeId(1)],
            }],
            split_keys: Vec::new(),
            time_ms: 1,
        };
        catalog.apply(bootstrap).expect("it is sound");
        let version = catalog.table().version();
        assert!(catalog.apply(command()).is_err());
        assert_eq!(catalog.table().version(), version);
    }
}
