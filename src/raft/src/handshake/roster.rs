//! The known starts of a node and of its peers.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use futures::future::{BoxFuture, FutureExt as _};
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::Status;

use super::record::{RECORD, REFUSED, Record, STARTS, decode, encode};
use super::silence::Silences;
use super::start::{Doubt, PastStart, Start, judge};
use crate::records::RecordError;
use crate::storage::Storage;
use keyviz_proto as proto;
use keyviz_types::{DiskId, NodeId};

/// The record that this node helped to form its cluster, and every first member showed its disk.
const FOUNDED: &str = "founded";

/// Whether this node takes part in its groups.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Participation {
    /// It has just started and is checking with the others.
    Checking,
    /// It does.
    Member,
    /// Why it is excluded: it has lost acknowledged entries, or another process took its place.
    Refused(String),
}

const CHECKING: u8 = 0;
const MEMBER: u8 = 1;
const OUT: u8 = 2;

/// The starts of this node and of its peers. Clones share it.
#[derive(Clone)]
pub struct Roster {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) node: NodeId,
    pub(super) storage: Storage,
    pub(super) disk: DiskId,
    pub(super) number: u64,
    pub(super) nonce: u64,
    /// The starts before this one, oldest first, as they were read.
    pub(super) history: Vec<PastStart>,
    pub(super) checks: Checks,
    pub(super) mark: AtomicU64,
    pub(super) founded: AtomicBool,
    /// A peer showed a later mark than is stored.
    pub(super) has_news: AtomicBool,
    /// Read on every frame; the reason is in `participation`.
    pub(super) takes_part: AtomicU8,
    pub(super) participation: watch::Sender<Participation>,
    pub(super) peers: Mutex<BTreeMap<NodeId, Peer>>,
    pub(super) addresses: Mutex<Arc<BTreeMap<NodeId, String>>>,
    pub(super) silences: Silences,
    /// One at a time stores, so that an older state never replaces a newer one.
    pub(super) storing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
pub(super) struct Peer {
    /// The last start that answered at its address.
    pub(super) known: Option<Start>,
    /// Of the start that was identified in this life of this node.
    pub(super) verified: Option<u64>,
    /// It answers, and its version shows no disk.
    pub(super) is_older: bool,
    /// The disk that the catalog has on record.
    pub(super) recorded: Option<DiskId>,
    pub(super) doubt: Option<String>,
    /// Held while it is being identified.
    pub(super) identifying: Arc<tokio::sync::Mutex<()>>,
}

/// What a node compares. All checks, except in simulations that show why each is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checks {
    /// Whether a peer has the disk that it is known by.
    pub disks: bool,
    /// Whether a peer's disk still has at least the history that it showed before.
    pub positions: bool,
    /// Whether a peer answers at the address of the member.
    pub addresses: bool,
}

impl Default for Checks {
    fn default() -> Self {
        Checks { disks: true, positions: true, addresses: true }
    }
}

impl Peer {
    /// The disk that it is known by.
    fn disk(&self) -> Option<DiskId> {
        self.recorded.or(self.known.map(|known| known.disk))
    }

    /// Whether it shows the disk that it is known by.
    fn judge_disk(&self, node: NodeId, shown: &Start, checks: Checks) -> Result<(), Doubt> {
        if !checks.disks {
            return Ok(());
        }
        judge(node, None, self.disk(), shown, &[])
    }

    /// The same, and whether that disk has all marks that were seen of it.
    pub(super) fn judge(
        &self,
        node: NodeId,
        shown: &Start,
        history: &[PastStart],
        checks: Checks,
    ) -> Result<(), Doubt> {
        self.judge_disk(node, shown, checks)?;
        if !(checks.disks && checks.positions) {
            return Ok(());
        }
        judge(node, self.known.as_ref(), self.recorded, shown, history)
    }
}

/// Whether a message of a peer is taken.
#[derive(Debug)]
pub(crate) enum Admit {
    /// It is.
    Yes,
    /// Once the peer has been identified at its address.
    Unidentified(NodeId),
}

impl std::fmt::Debug for Roster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Roster").field("own", &self.own()).finish_non_exhaustive()
    }
}

impl Roster {
    /// Reads the records of the folder and records this start. `number` is of this start and
    /// durable already; `nonce` is random.
    ///
    /// # Errors
    /// The record cannot be read or written, or does not decode.
    pub fn open(
        storage: &Storage,
        node: NodeId,
        disk: DiskId,
        number: u64,
        nonce: u64,
        checks: Checks,
    ) -> BoxFuture<'_, io::Result<Self>> {
        async move {
            let bad = |what: RecordError| {
                let what = format!("the record {RECORD:?} of the node is damaged: {what}");
                io::Error::new(io::ErrorKind::InvalidData, what)
            };
            let record = match storage.get_record(RECORD)? {
                Some(bytes) => decode(&bytes).map_err(bad)?,
                None => Record::default(),
            };
            let nonce = nonce.max(1);
            let mut history = record.starts;
            let first = history.len().saturating_sub(STARTS - 1);
            history.drain(..first);
            let mut peers: BTreeMap<NodeId, Peer> = BTreeMap::new();
            for (id, start) in record.peers {
                peers.entry(NodeId(id)).or_default().known = Some(start.into());
            }
            let refused = storage.get_record(REFUSED)?;
            let refused = refused.map(|reason| String::from_utf8_lossy(&reason).into_owned());
            let founded = storage.get_record(FOUNDED)?.is_some();
            let participation = refused.map_or(Participation::Checking, Participation::Refused);
            let takes_part = AtomicU8::new(code(&participation));
            let inner = Inner {
                node,
                storage: storage.clone(),
                disk,
                number,
                nonce,
                history,
                checks,
                mark: AtomicU64::new(record.mark),
                founded: founded.into(),
                has_news: AtomicBool::new(false),
                takes_part,
                participation: watch::Sender::new(participation),
                peers: Mutex::new(peers),
                addresses: Mutex::default(),
                silences: Silences::default(),
                storing: tokio::sync::Mutex::default(),
            };
            let roster = Self { inner: Arc::new(inner) };
            roster.store(record.mark).await?;
            Ok(roster)
        }
        .boxed()
    }

    /// Whether a record of a folder reads as what was written; `None`: it is not one of these.
    pub fn check_record(name: &str, value: &[u8]) -> Option<Result<(), RecordError>> {
        match name {
            RECORD => Some(decode(value).map(drop)),
            REFUSED => Some(std::str::from_utf8(value).map(drop).map_err(RecordError::from)),
            FOUNDED => Some(Ok(())),
            _ => None,
        }
    }

    /// This start, as it may be shown now.
    pub fn own(&self) -> Start {
        let Inner { disk, number, nonce, ref mark, .. } = *self.inner;
        // Pairs with the store after the mark was made durable.
        Start { disk, number, nonce, mark: mark.load(Ordering::Acquire) }
    }

    /// Whether this node takes part.
    pub fn participation(&self) -> Participation {
        self.inner.participation.borrow().clone()
    }

    /// The same, and each change of it.
    pub fn watch_participation(&self) -> watch::Receiver<Participation> {
        self.inner.participation.subscribe()
    }

    /// Whether this node may send Raft messages and answer them.
    pub(crate) fn may_take_part(&self) -> Result<(), Status> {
        // Relaxed: a message that passes while this changes was sent before it.
        match self.inner.takes_part.load(Ordering::Relaxed) {
            MEMBER => Ok(()),
            CHECKING => Err(Status::unavailable(
                "this node has just started and asks the other members whether its disk is current",
            )),
            _ => Err(Status::failed_precondition(match self.participation() {
                Participation::Refused(reason) => reason,
                _ => "this node takes part in nothing".to_owned(),
            })),
        }
    }

    fn set(&self, next: Participation) {
        self.inner.participation.send_if_modified(|now| {
            // A refusal stands until the process ends.
            let changes = !matches!(now, Participation::Refused(_)) && *now != next;
            if changes {
                self.inner.takes_part.store(code(&next), Ordering::Relaxed);
                *now = next;
            }
            changes
        });
    }

    /// No peer objected: this node takes part from here on.
    pub(super) fn take_part(&self) {
        self.set(Participation::Member);
    }

    /// This node no longer takes part. `forever`: not after its next start either.
    pub(crate) async fn refuse(&self, reason: String, forever: bool) {
        if matches!(self.participation(), Participation::Refused(_)) {
            return;
        }
        self.set(Participation::Refused(reason.clone()));
        tracing::error!("this node takes part in nothing: {reason}");
        if forever
            && let Err(error) = self.inner.storage.put_record(REFUSED, reason.as_bytes()).await
        {
            tracing::error!(%error, "the refusal could not be stored; the peers remember it");
        }
    }

    /// Where the members are.
    pub fn set_addresses(&self, addresses: impl IntoIterator<Item = (NodeId, String)>) {
        let addresses: BTreeMap<NodeId, String> = addresses.into_iter().collect();
        let mut known = self.inner.addresses.lock();
        if **known != addresses {
            *known = Arc::new(addresses);
        }
    }

    /// The addresses of the other members.
    pub(super) fn others(&self) -> BTreeMap<NodeId, String> {
        let mut others = BTreeMap::clone(&self.inner.addresses.lock());
        others.remove(&self.inner.node);
        others
    }

    fn knows_address(&self, node: NodeId) -> bool {
        self.inner.addresses.lock().contains_key(&node)
    }

    pub(crate) fn address(&self, node: NodeId) -> Option<String> {
        self.inner.addresses.lock().get(&node).cloned()
    }

    /// The disks that the catalog has on record.
    pub fn set_recorded(&self, recorded: &BTreeMap<NodeId, DiskId>) {
        let mut peers = self.inner.peers.lock();
        for (node, peer) in peers.iter_mut() {
            peer.recorded = recorded.get(node).copied();
        }
        for (node, disk) in recorded {
            peers.entry(*node).or_default().recorded = Some(*disk);
        }
    }

    /// The disks identified since this node started, including its own.
    pub fn identified(&self) -> BTreeMap<NodeId, DiskId> {
        let peers = self.inner.peers.lock();
        let seen = peers.iter().filter_map(|(node, peer)| {
            let known = peer.known.filter(|known| peer.verified == Some(known.nonce))?;
            Some((*node, known.disk))
        });
        seen.chain([(self.inner.node, self.inner.disk)]).collect()
    }

    /// The disk that this node knows a member by.
    pub fn known_disk(&self, node: NodeId) -> Option<DiskId> {
        let peers = self.inner.peers.lock();
        let peer = peers.get(&node)?;
        peer.disk()
    }

    /// Peers that were refused here, and why.
    pub fn doubts(&self) -> BTreeMap<NodeId, String> {
        let peers = self.inner.peers.lock();
        peers.iter().filter_map(|(node, peer)| Some((*node, peer.doubt.clone()?))).collect()
    }

    /// Remembers that this node formed its cluster together with members that showed their disks.
    ///
    /// # Errors
    /// The record was not written.
    pub fn remember_founding(&self) -> BoxFuture<'_, io::Result<()>> {
        async move {
            self.inner.storage.put_record(FOUNDED, &[1]).await?;
            self.inner.founded.store(true, Ordering::Relaxed);
            Ok(())
        }
        .boxed()
    }

    /// Whether a member failed to answer its last identification.
    pub fn is_silent(&self, node: NodeId) -> bool {
        self.inner.silences.is_silent(node)
    }

    /// The nonce by which a message to `to` names the start that it is meant for; 0: none.
    pub(crate) fn nonce_of(&self, to: NodeId) -> u64 {
        self.inner.peers.lock().get(&to).and_then(|peer| peer.verified).unwrap_or(0)
    }

    /// A peer has to be identified again before the next message to it.
    pub(crate) fn forget(&self, node: NodeId) {
        if let Some(peer) = self.inner.peers.lock().get_mut(&node) {
            (peer.verified, peer.is_older) = (None, false);
        }
    }

    /// Whether a message to `node` can go out without identifying it first.
    pub(crate) fn is_identified(&self, node: NodeId) -> bool {
        let peers = self.inner.peers.lock();
        peers.get(&node).is_some_and(|peer| peer.verified.is_some() || peer.is_older)
    }

    /// Whether a message with this greeting is taken.
    pub(crate) fn admit(&self, hello: &proto::RaftHello) -> Result<Admit, Status> {
        self.may_take_part()?;
        let refused = |reason: String| Err(Status::failed_precondition(reason));
        if hello.to_nonce != 0 && hello.to_nonce != self.inner.nonce {
            let node = self.inner.node;
            return Err(Status::aborted(format!(
                "node {node} has restarted since the sender identified it"
            )));
        }
        let from = NodeId(hello.from);
        let mut peers = self.inner.peers.lock();
        let peer = peers.entry(from).or_default();
        let Some(start) = &hello.start else {
            if peer.recorded.is_some() {
                let doubt = Doubt::ShowsNone { node: from }.to_string();
                peer.doubt = Some(doubt.clone());
                return refused(doubt);
            }
            return Ok(Admit::Yes);
        };
        // One that was only trusted is identified once its address is known.
        let is_stored = peer.known.is_some_and(|known| known.nonce == start.nonce);
        if peer.verified == Some(start.nonce) && (is_stored || !self.knows_address(from)) {
            return Ok(Admit::Yes);
        }
        let Some(shown) = Start::from_proto(start) else {
            return Err(Status::invalid_argument("a start without disk, number or nonce"));
        };
        // Whether its disk went back is judged by the answer at its address.
        if let Err(doubt) = peer.judge_disk(from, &shown, self.inner.checks) {
            let doubt = doubt.to_string();
            peer.doubt = Some(doubt.clone());
            return refused(doubt);
        }
        if !self.inner.checks.addresses {
            peer.verified = Some(shown.nonce);
            return Ok(Admit::Yes);
        }
        Ok(Admit::Unidentified(from))
    }

    /// Trusts the start that a caller shows: this node has no address to identify it at, because it
    /// has not received the members yet. Not stored.
    pub(crate) fn trust(&self, hello: &proto::RaftHello) {
        if let Some(start) = &hello.start {
            let mut peers = self.inner.peers.lock();
            peers.entry(NodeId(hello.from)).or_default().verified = Some(start.nonce);
        }
    }

    /// Makes `mark` and the known starts of peers durable.
    pub(super) async fn store(&self, mark: u64) -> io::Result<()> {
        let _alone = self.inner.storing.lock().await;
        let mark = mark.max(self.own().mark);
        self.inner.has_news.store(false, Ordering::Relaxed);
        let record = {
            let peers = self.inner.peers.lock();
            let known = peers.iter().filter_map(|(node, peer)| Some((node.0, peer.known?.into())));
            let Inner { number, nonce, ref history, .. } = *self.inner;
            let now = PastStart { number, nonce, mark };
            let starts = history.iter().copied().chain([now]).collect();
            encode(&Record { mark, starts, peers: known.collect() })
        };
        self.inner.storage.put_record(RECORD, &record).await?;
        // Shown only from here on; see `own`.
        self.inner.mark.fetch_max(mark, Ordering::Release);
        Ok(())
    }

    /// Whether a peer showed a later mark than is stored.
    pub(super) fn has_news(&self) -> bool {
        self.inner.has_news.load(Ordering::Relaxed)
    }

    /// Makes the starts shown by peers durable, and with `next` the next mark.
    pub(super) async fn store_round(&self, next: bool) -> io::Result<()> {
        self.store(self.own().mark + u64::from(next)).await
    }

    pub(super) fn storage(&self) -> &Storage {
        &self.inner.storage
    }
}

fn code(participation: &Participation) -> u8 {
    match participation {
        Participation::Checking => CHECKING,
        Participation::Member => MEMBER,
        Participation::Refused(_) => OUT,
    }
}
