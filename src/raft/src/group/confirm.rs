//! Confirming a read of a group: with a quorum, or with the leader's lease.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use openraft::LinearizerOption;
use openraft::errors::{LinearizableReadError, RaftError};
use tokio::time::Instant;

use super::{Group, ReadGuarantee, ReadRounds, known_leader};
use crate::error::ReadError;

impl Group {
    /// The index that a linearizable read must have applied, confirmed by a quorum after the call.
    /// Only the leader can tell. Concurrent calls share rounds.
    pub fn read_index(self: &Arc<Self>) -> BoxFuture<'_, Result<u64, ReadError>> {
        async move {
            let option = LinearizerOption::new(Some(Duration::ZERO), true)
                .with_wait_timeout(self.options.election_max);
            self.confirm(&self.quorum_rounds, option).await
        }
        .boxed()
    }

    /// Like [`read_index`](Group::read_index), confirmed by the leader's lease if the lease is
    /// fresh enough.
    pub fn lease_index(self: &Arc<Self>) -> BoxFuture<'_, Result<u64, ReadError>> {
        async move {
            let lease = self.options.lease();
            let option =
                LinearizerOption::new(Some(lease), false).with_wait_timeout(Duration::ZERO);
            match self.confirm(&self.lease_rounds, option).await {
                Err(ReadError::NoQuorum) => self.read_index().await,
                answer => answer,
            }
        }
        .boxed()
    }

    async fn confirm(
        self: &Arc<Self>,
        rounds: &Arc<ReadRounds>,
        option: LinearizerOption,
    ) -> Result<u64, ReadError> {
        let group = self.clone();
        let answer = rounds.join(move || group.clone().confirm_once(option.clone())).await;
        answer.unwrap_or_else(|| Err(ReadError::Stopped("it is shutting down".into())))
    }

    async fn confirm_once(self: Arc<Self>, option: LinearizerOption) -> Result<u64, ReadError> {
        match self.raft().get_read_linearizer(option).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::Fatal(fatal)) => Err(ReadError::Stopped(fatal.to_string())),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(ReadError::NotLeader { leader: known_leader(forward) })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(ReadError::NoQuorum)
            }
        }
    }

    /// Waits until the entry at `index` is applied here.
    pub fn wait_applied(
        &self,
        index: u64,
        limit: Duration,
    ) -> BoxFuture<'_, Result<(), ReadError>> {
        async move {
            let reached = |applied: &Option<u64>| applied.is_some_and(|applied| applied >= index);
            if reached(&self.applied.borrow()) {
                return Ok(());
            }
            let mut applied = self.applied.subscribe();
            match tokio::time::timeout(limit, applied.wait_for(reached)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(_)) => Err(ReadError::Stopped("its state machine is gone".into())),
                Err(_) => Err(ReadError::Behind),
            }
        }
        .boxed()
    }

    /// After this, reading [`keyspace`](Group::keyspace) here gives what `consistency` promises. On
    /// a node that does not lead, a consistency other than stale is [`ReadError::NotLeader`]: ask
    /// the leader for its [`read_index`](Group::read_index), then
    /// [`wait_applied`](Group::wait_applied).
    pub fn confirm_read(
        self: &Arc<Self>,
        consistency: ReadGuarantee,
        limit: Duration,
    ) -> BoxFuture<'_, Result<(), ReadError>> {
        async move {
            let started = Instant::now();
            let index = match consistency {
                ReadGuarantee::Stale => return Ok(()),
                ReadGuarantee::Linearizable => tokio::time::timeout(limit, self.read_index()).await,
                ReadGuarantee::Lease => tokio::time::timeout(limit, self.lease_index()).await,
            };
            let index = index.map_err(|_| ReadError::NoQuorum)??;
            self.wait_applied(index, limit.saturating_sub(started.elapsed())).await
        }
        .boxed()
    }
}
