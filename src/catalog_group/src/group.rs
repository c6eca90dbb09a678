//! Changes to the catalog from any node, and reads of it here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::time::Instant;

use keyviz_catalog::{
    AppliedCatalog, CatalogCommand, CatalogError, CodecError, Delta, JournalCommand, JournalError,
    MoveCommand, MoveError,
};
use keyviz_types::{GroupId, NodeId};

use keyviz_raft::{Attempts, Group, Groups, KnownLeader, ProposeError};

use super::replies::{self, ReplyError};

/// Why the catalog did not change.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CatalogChangeError {
    /// The catalog refused.
    #[error(transparent)]
    Refused(#[from] CatalogError),
    /// The catalog refused a move.
    #[error(transparent)]
    MoveRefused(#[from] MoveError),
    /// The catalog refused a change of the journal.
    #[error(transparent)]
    JournalRefused(#[from] JournalError),
    /// The command is larger than the log takes.
    #[error("the change is too large: {reason}")]
    TooLarge {
        /// What the encoder said.
        reason: String,
    },
    /// No leader in time; nothing was proposed.
    #[error("no leader of the catalog group could be reached in time; nothing was changed")]
    NoLeader,
    /// Too many requests are in flight; nothing was proposed.
    #[error("the catalog group has too many requests in flight; try again")]
    Overloaded,
    /// The disk of the leader is full; nothing was proposed.
    #[error("the change was refused: {reason}")]
    DiskFull {
        /// Which disk, and how full.
        reason: String,
    },
    /// It may or may not have happened.
    #[error(
        "the change was proposed but its outcome is unknown ({reason}); look at the \
         routes before trying again"
    )]
    Unknown {
        /// What happened.
        reason: String,
    },
    /// The storage of this node failed.
    #[error("storage failed on this node: {reason}")]
    Storage {
        /// The first fault.
        reason: String,
    },
    /// Bytes of a peer or the log that do not decode.
    #[error("undecodable catalog data: {reason}")]
    Undecodable {
        /// What was wrong.
        reason: String,
    },
}

impl From<CodecError> for CatalogChangeError {
    fn from(error: CodecError) -> Self {
        CatalogChangeError::TooLarge { reason: error.to_string() }
    }
}

impl From<ReplyError> for CatalogChangeError {
    fn from(error: ReplyError) -> Self {
        CatalogChangeError::Undecodable { reason: error.to_string() }
    }
}

/// The answer of a node to a catalog proposal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CatalogOutcome {
    /// The state machine's reply.
    Done(Bytes),
    /// It does not lead the catalog group; the leader, if known.
    NotLeader(Option<NodeId>),
    /// The request never reached it.
    NotSent(String),
    /// It leads, but its disk is full: which, and how full.
    DiskFull(String),
    /// The outcome is unknown.
    Unknown(String),
}

/// Other nodes, as the catalog sees them.
pub trait PeerCatalog: Send + Sync + 'static {
    /// Has `to`, which should lead the catalog group, propose a command.
    fn propose(&self, to: NodeId, command: Bytes) -> BoxFuture<'static, CatalogOutcome>;
}

/// Changes the catalog from any node, and reads it here.
pub struct CatalogGroup {
    node: NodeId,
    groups: Groups,
    applied: AppliedCatalog,
    peers: Arc<dyn PeerCatalog>,
    now_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl CatalogGroup {
    /// The catalog of these parts. `now_ms` stamps the changes that this node proposes.
    pub fn new(
        node: NodeId,
        groups: Groups,
        applied: AppliedCatalog,
        peers: Arc<dyn PeerCatalog>,
        now_ms: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(CatalogGroup { node, groups, applied, peers, now_ms: Arc::new(now_ms) })
    }

    /// The catalog as applied here.
    pub fn applied(&self) -> &AppliedCatalog {
        &self.applied
    }

    /// Makes a change once, through the leader, and waits until it is applied here too. Only a
    /// command with a request id is sent again after an unknown outcome.
    pub async fn change(
        &self,
        command: &CatalogCommand,
        timeout: Duration,
    ) -> Result<Delta, CatalogChangeError> {
        let encoded = Bytes::from(command.encode()?);
        let deadline = Instant::now() + timeout;
        let reply = self.propose(encoded, has_request_id(command), deadline).await?;
        let delta = replies::decode::<Result<Delta, CatalogError>>(&reply)??;
        self.wait_applied(delta.version, deadline).await;
        Ok(delta)
    }

    /// The state machine's reply to a command that is proposed once, through the leader. Only where
    /// it is `repeatable` it is sent again after an unknown outcome.
    pub(crate) async fn propose(
        &self,
        encoded: Bytes,
        repeatable: bool,
        deadline: Instant,
    ) -> Result<Bytes, CatalogChangeError> {
        let mut attempts = Attempts::until(deadline);
        let mut hint = None;
        // Once an attempt may have taken effect, a later refusal does not prove that none did.
        let mut unknown = None;
        loop {
            let outcome = match hint.take().or_else(|| self.leader()) {
                None => CatalogOutcome::NotLeader(None),
                Some(leader) if leader == self.node => self.propose_here(&encoded).await?,
                Some(leader) => self.peers.propose(leader, encoded.clone()).await,
            };
            let failure = match outcome {
                CatalogOutcome::Done(reply) => return Ok(reply),
                CatalogOutcome::Unknown(reason) => {
                    if !repeatable {
                        return Err(CatalogChangeError::Unknown { reason });
                    }
                    unknown = Some(reason);
                    CatalogChangeError::NoLeader
                }
                CatalogOutcome::NotSent(_) => CatalogChangeError::NoLeader,
                CatalogOutcome::DiskFull(reason) => {
                    let full = CatalogChangeError::DiskFull { reason };
                    return Err(
                        unknown.map_or(full, |reason| CatalogChangeError::Unknown { reason })
                    );
                }
                CatalogOutcome::NotLeader(leader) => {
                    hint = leader.filter(|leader| *leader != self.node);
                    CatalogChangeError::NoLeader
                }
            };
            if !attempts.again().await {
                return Err(
                    unknown.map_or(failure, |reason| CatalogChangeError::Unknown { reason })
                );
            }
        }
    }

    /// Proposes an encoded command in the catalog group, if this node leads it. The leader's clock
    /// stamps the change, wherever the request came in.
    pub async fn propose_here(
        &self,
        encoded: &Bytes,
    ) -> Result<CatalogOutcome, CatalogChangeError> {
        let Some(group) = self.groups.get(GroupId::CATALOG) else {
            return Ok(CatalogOutcome::NotLeader(None));
        };
        match group.propose(stamped(encoded, (self.now_ms)())?).await {
            Ok(proposed) => Ok(CatalogOutcome::Done(proposed.reply)),
            Err(ProposeError::NotLeader { leader }) => {
                Ok(CatalogOutcome::NotLeader(node_of(&leader)))
            }
            Err(ProposeError::Overloaded) => Err(CatalogChangeError::Overloaded),
            Err(ProposeError::DiskFull(full)) => {
                Err(CatalogChangeError::DiskFull { reason: full.to_string() })
            }
            Err(error @ ProposeError::TooLong { .. }) => {
                Err(CatalogChangeError::TooLarge { reason: error.to_string() })
            }
            Err(error @ ProposeError::Unknown) => Ok(CatalogOutcome::Unknown(error.to_string())),
            Err(ProposeError::Stopped(reason)) => Err(CatalogChangeError::Storage { reason }),
        }
    }

    fn leader(&self) -> Option<NodeId> {
        self.group().and_then(|group| group.leader())
    }

    /// The catalog group; every node holds it.
    pub fn group(&self) -> Option<Arc<Group>> {
        self.groups.get(GroupId::CATALOG)
    }

    /// A caller that changed the catalog here sees the change here. Late is not lost, so this gives
    /// up quietly at the deadline.
    async fn wait_applied(&self, version: u64, deadline: Instant) {
        let Ok(mut watch) = self.applied.hub().subscribe(self.applied.hub().table().version())
        else {
            return;
        };
        let caught_up = async {
            while self.applied.hub().table().version() < version {
                if watch.next().await.is_none() {
                    return;
                }
            }
        };
        // A change that takes this long to arrive is not what the caller waits for.
        let _ = tokio::time::timeout_at(deadline, caught_up).await;
    }
}

fn node_of(leader: &KnownLeader) -> Option<NodeId> {
    leader.as_ref().map(|(leader, _)| NodeId(*leader))
}

fn has_request_id(command: &CatalogCommand) -> bool {
    match command {
        CatalogCommand::Bootstrap { .. } => true,
        CatalogCommand::Split { request_id, .. } | CatalogCommand::Merge { request_id, .. } => {
            !request_id.is_empty()
        }
    }
}

/// The command in `encoded` with the time of its proposal.
fn stamped(encoded: &Bytes, now_ms: u64) -> Result<Bytes, CatalogChangeError> {
    let undecodable =
        |error: CodecError| CatalogChangeError::Undecodable { reason: error.to_string() };
    if let Some(command) = MoveCommand::decode(encoded) {
        let mut command = command.map_err(undecodable)?;
        command.stamp(now_ms);
        return Ok(Bytes::from(command.encode()?));
    }
    if let Some(command) = JournalCommand::decode(encoded) {
        let mut command = command.map_err(undecodable)?;
        command.stamp(now_ms);
        return Ok(Bytes::from(command.encode()?));
    }
    let mut command = CatalogCommand::decode(encoded).map_err(undecodable)?;
    stamp(&mut command, now_ms);
    Ok(Bytes::from(command.encode()?))
}

fn stamp(command: &mut CatalogCommand, now_ms: u64) {
    match command {
        CatalogCommand::Bootstrap { time_ms, .. }
        | CatalogCommand::Split { time_ms, .. }
        | CatalogCommand::Merge { time_ms, .. } => *time_ms = now_ms,
    }
}
