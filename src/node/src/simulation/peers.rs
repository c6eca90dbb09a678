//! Requests between nodes over the simulated network: what `api::PeerClient` is in a real one.

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::host::{Parts, REQUEST_TIMEOUT};
use super::net::{Answer, Endpoint, Net};
use keyviz_catalog_group::{CatalogChangeError, CatalogOutcome, PeerCatalog};
use keyviz_kv::{
    Consistency, KvError, MoveChunk, MoveRead, PeerError, PeerKv, PeerOutcome, PeerRead,
    PeerReadReply,
};
use keyviz_types::{GroupId, NodeId};

/// The other nodes.
pub(super) struct SimulatedPeers {
    pub(super) net: Net,
    pub(super) from: Endpoint,
}

/// Streams of requests. Connections carry those from `net::REQUESTS` on once, so they are never
/// doubled.
const PROPOSE: u64 = 0x5000;
const READ_INDEX: u64 = 0x6000;
const READ: u64 = 0x7000;
const CATALOG: u64 = 0x8000;
/// A step may come twice, like messages of Raft.
const MOVE_STEP: u64 = 0x4800;
const MOVE_READ: u64 = 0xA000;

impl SimulatedPeers {
    fn ask<T: Send + 'static>(
        &self,
        to: NodeId,
        stream: u64,
        handle: impl Fn(Parts) -> BoxFuture<'static, Result<T, KvError>> + Send + Sync + 'static,
    ) -> BoxFuture<'static, Result<T, PeerError>> {
        let answer = self.net.call(self.from, to.0, stream, handle);
        Box::pin(async move {
            let lost = |reason: &str| PeerError::Lost { node: to, reason: reason.to_owned() };
            match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
                Ok(Ok(Answer::Answered(reply))) => reply.map_err(|refusal| match refusal {
                    // As the edge has it: a write that may have happened is not a refusal.
                    KvError::UnknownOutcome { .. } | KvError::Storage { .. } => {
                        lost(&refusal.to_string())
                    }
                    refusal => PeerError::Refused(refusal),
                }),
                Ok(Ok(Answer::Refused)) => {
                    Err(PeerError::NotSent { node: to, reason: "nobody is there".to_owned() })
                }
                Ok(Err(_)) | Err(_) => Err(lost("no answer in time")),
            }
        })
    }
}

impl PeerKv for SimulatedPeers {
    fn propose(
        &self,
        to: NodeId,
        group: GroupId,
        command: Bytes,
    ) -> BoxFuture<'static, Result<PeerOutcome<Bytes>, PeerError>> {
        self.ask(to, PROPOSE + group.0, move |parts| {
            let command = command.clone();
            async move { parts.coordinator.propose_here(group, command).await }.boxed()
        })
    }

    fn read_index(
        &self,
        to: NodeId,
        group: GroupId,
    ) -> BoxFuture<'static, Result<PeerOutcome<u64>, PeerError>> {
        self.ask(to, READ_INDEX + group.0, move |parts| {
            async move { parts.coordinator.read_index_here(group).await }.boxed()
        })
    }

    fn read(
        &self,
        to: NodeId,
        group: GroupId,
        consistency: Consistency,
        read: PeerRead,
    ) -> BoxFuture<'static, Result<PeerOutcome<PeerReadReply>, PeerError>> {
        self.ask(to, READ + group.0, move |parts| {
            let read = read.clone();
            let consistency = match consistency {
                Consistency::Lease => parts.lease(group),
                other => other,
            };
            async move { parts.coordinator.read_here(group, consistency, read).await }.boxed()
        })
    }

    fn move_step(
        &self,
        to: NodeId,
        group: GroupId,
        step: Bytes,
    ) -> BoxFuture<'static, Result<PeerOutcome<Bytes>, PeerError>> {
        self.ask(to, MOVE_STEP + group.0, move |parts| {
            let step = step.clone();
            async move { parts.coordinator.move_step_here(group, step).await }.boxed()
        })
    }

    fn move_read(
        &self,
        to: NodeId,
        group: GroupId,
        read: MoveRead,
    ) -> BoxFuture<'static, Result<PeerOutcome<MoveChunk>, PeerError>> {
        self.ask(to, MOVE_READ + group.0, move |parts| {
            let read = read.clone();
            async move { parts.coordinator.move_read_here(group, &read) }.boxed()
        })
    }
}

impl PeerCatalog for SimulatedPeers {
    fn propose(&self, to: NodeId, command: Bytes) -> BoxFuture<'static, CatalogOutcome> {
        let answer = self.net.call(self.from, to.0, CATALOG, move |parts: Parts| {
            let command = command.clone();
            async move { parts.changes.propose_here(&command).await }.boxed()
        });
        Box::pin(async move {
            match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
                Ok(Ok(Answer::Answered(Ok(outcome)))) => outcome,
                Ok(Ok(Answer::Answered(Err(CatalogChangeError::Overloaded)))) => {
                    CatalogOutcome::NotSent("overloaded".to_owned())
                }
                Ok(Ok(Answer::Answered(Err(error)))) => CatalogOutcome::Unknown(error.to_string()),
                Ok(Ok(Answer::Refused)) => CatalogOutcome::NotSent("nobody is there".to_owned()),
                Ok(Err(_)) | Err(_) => CatalogOutcome::Unknown("no answer in time".to_owned()),
            }
        })
    }
}
