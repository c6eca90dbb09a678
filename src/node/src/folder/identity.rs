//! The identity of a node in its folder: its id and how it joined its cluster.
//!
//! Records in the storage's own tree: `node` and `disk` (below), `cluster` (the cluster id, text,
//! once it is known), `incarnation` (8 bytes, big endian, one more at each start) and `removed` (1
//! byte, 1 once the node learned that it was removed). Others are those of the handshakes
//! (`raft/handshake`).
//!
//! ```text
//! node:  byte 0      format, 1
//!        bytes 1..   bincode 2 (standard configuration) of `Record`
//! disk:  bytes 0-15  disk id, random, made with the folder
//!        bytes 16-23 number of the start that made it, big endian
//! ```
//!
//! A folder of a version before disk ids gets one at its first start under this version.

use std::path::Path;

use keyviz_raft::{OpenError, RecordError, Roster, Scarce, Storage, decode_record, encode_record};
use keyviz_types::{DiskId, Incarnation, NodeId};

use crate::config::{NodeConfig, Origin};
use crate::error::NodeError;
use crate::startup::bootstrap::BootstrapSpec;

const FORMAT: u8 = 1;
const NODE: &str = "node";
const CLUSTER: &str = "cluster";
const INCARNATION: &str = "incarnation";
const REMOVED: &str = "removed";
const DISK: &str = "disk";

/// The owner of a folder.
#[derive(Clone, PartialEq, Eq, Debug, bincode::Encode, bincode::Decode)]
pub(crate) struct Record {
    id: u64,
    /// How it was bootstrapped; `None`: it joined.
    spec: Option<BootstrapSpec>,
}

/// A node that may start on its folder.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) incarnation: Incarnation,
    pub(crate) disk: DiskId,
    /// How it was bootstrapped; `None`: it joins or joined.
    pub(crate) spec: Option<BootstrapSpec>,
    /// The cluster, if it was known at the last stop.
    pub(crate) cluster_id: Option<String>,
    /// The folder was empty and the node has to join through this address.
    pub(crate) join: Option<String>,
    /// It learned before a restart that it was removed from its cluster.
    pub(crate) removed: bool,
}

impl Identity {
    /// Claims the folder for the node, or refuses: a folder keeps its node and its bootstrap.
    pub(crate) async fn claim(storage: &Storage, config: &NodeConfig) -> Result<Self, NodeError> {
        let folder = Folder { storage, path: &config.data };
        let known = folder.record()?;
        let record = folder.decide(known.as_ref(), config)?;
        if known.is_none() {
            folder.put(NODE, &encode(&record)).await?;
        }
        let (disk, incarnation) =
            folder.next_start(DiskId(rand::random()), known.is_some()).await?;
        let cluster_id = folder.cluster_id()?;
        let join = match &config.origin {
            Origin::Join(through) | Origin::Replace(through) if cluster_id.is_none() => {
                Some(through.clone())
            }
            _ => None,
        };
        let removed = folder.removed()?;
        Ok(Identity { incarnation, disk, spec: record.spec, cluster_id, join, removed })
    }

    /// Remembers whether the node was removed from its cluster.
    pub(crate) async fn remember_removed(
        storage: &Storage,
        removed: bool,
    ) -> Result<(), std::io::Error> {
        storage.put_record(REMOVED, &[u8::from(removed)]).await
    }

    /// Remembers the cluster that the node belongs to.
    pub(crate) async fn remember_cluster(
        storage: &Storage,
        cluster_id: &str,
    ) -> Result<(), std::io::Error> {
        storage.put_record(CLUSTER, cluster_id.as_bytes()).await
    }
}

struct Folder<'a> {
    storage: &'a Storage,
    path: &'a Path,
}

impl Folder<'_> {
    /// Counts a start, durably. A folder without a disk id gets `fresh`; `is_old`: a node is in it.
    async fn next_start(
        &self,
        fresh: DiskId,
        is_old: bool,
    ) -> Result<(DiskId, Incarnation), NodeError> {
        let number = self.incarnation()? + 1;
        let (disk, since) = match self.disk()? {
            Some(known) => known,
            None => {
                self.put(DISK, &encode_disk(fresh, number)).await?;
                if is_old {
                    let what = "gave the folder of an earlier version a disk id";
                    tracing::info!(disk = %fresh, "{what}");
                }
                (fresh, number)
            }
        };
        self.put(INCARNATION, &number.to_be_bytes()).await?;
        let bound = self.storage.bind_rows(disk, number, since).await;
        bound.map_err(|error| OpenError::from_io(self.path, error))?;
        Ok((disk, Incarnation(number)))
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn get(&self, name: &'static str) -> Result<Option<Vec<u8>>, NodeError> {
        self.storage.get_record(name).map_err(|error| match Scarce::of(&error) {
            Some(_) => OpenError::from_io(self.path, error).into(),
            None => self.damaged(name, RecordError::Body(error.to_string())),
        })
    }

    async fn put(&self, name: &'static str, value: &[u8]) -> Result<(), NodeError> {
        let put = self.storage.put_record(name, value).await;
        put.map_err(|source| NodeError::Record { folder: self.name(), name, source })
    }

    fn damaged(&self, name: &'static str, reason: RecordError) -> NodeError {
        NodeError::Damaged { folder: self.name(), name, reason }
    }

    fn record(&self) -> Result<Option<Record>, NodeError> {
        let Some(bytes) = self.get(NODE)? else { return Ok(None) };
        decode(&bytes).map(Some).map_err(|reason| self.damaged(NODE, reason))
    }

    fn cluster_id(&self) -> Result<Option<String>, NodeError> {
        let Some(bytes) = self.get(CLUSTER)? else { return Ok(None) };
        let text = String::from_utf8(bytes);
        text.map(Some).map_err(|error| self.damaged(CLUSTER, error.utf8_error().into()))
    }

    fn removed(&self) -> Result<bool, NodeError> {
        let Some(bytes) = self.get(REMOVED)? else { return Ok(false) };
        removed(&bytes).map_err(|reason| self.damaged(REMOVED, reason))
    }

    fn disk(&self) -> Result<Option<(DiskId, u64)>, NodeError> {
        let Some(bytes) = self.get(DISK)? else { return Ok(None) };
        decode_disk(&bytes).map(Some).map_err(|reason| self.damaged(DISK, reason))
    }

    fn incarnation(&self) -> Result<u64, NodeError> {
        let Some(bytes) = self.get(INCARNATION)? else { return Ok(0) };
        let length = RecordError::Length { found: bytes.len(), expected: 8 };
        let bytes = bytes.try_into().map_err(|_| self.damaged(INCARNATION, length))?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn decide(&self, known: Option<&Record>, config: &NodeConfig) -> Result<Record, NodeError> {
        let id = config.id;
        let Some(known) = known else {
            return match &config.origin {
                Origin::Bootstrap(spec) => Ok(Record { id: id.0, spec: Some(spec.clone()) }),
                Origin::Join(_) | Origin::Replace(_) => Ok(Record { id: id.0, spec: None }),
                Origin::Restart => Err(NodeError::NothingToStart { folder: self.name() }),
            };
        };
        if known.id != id.0 {
            let (folder, found) = (self.name(), NodeId(known.id));
            return Err(NodeError::OtherNode { folder, found, id });
        }
        match (&config.origin, &known.spec) {
            (Origin::Bootstrap(asked), Some(made)) if asked != made => {
                Err(NodeError::SecondBootstrap {
                    folder: self.name(),
                    found: made.to_string(),
                    asked: asked.to_string(),
                })
            }
            (Origin::Bootstrap(_), None) => Err(NodeError::JoinedBefore { folder: self.name() }),
            _ => Ok(known.clone()),
        }
    }
}

fn encode_disk(disk: DiskId, since: u64) -> Vec<u8> {
    [&disk.0[..], &since.to_be_bytes()].concat()
}

fn decode_disk(bytes: &[u8]) -> Result<(DiskId, u64), RecordError> {
    let parts = bytes.split_first_chunk::<16>().and_then(|(disk, since)| {
        Some((DiskId(*disk), u64::from_be_bytes(since.try_into().ok()?)))
    });
    parts.ok_or(RecordError::Length { found: bytes.len(), expected: 24 })
}

/// Counts a start of a simulated host.
#[cfg(test)]
pub(crate) async fn simulated_start(
    storage: &Storage,
    fresh: DiskId,
) -> Result<(DiskId, Incarnation), NodeError> {
    Folder { storage, path: storage.dir() }.next_start(fresh, false).await
}

/// The node that the records of a folder name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FolderNode {
    pub(crate) node: NodeId,
    /// Of its last start.
    pub(crate) incarnation: u64,
    pub(crate) cluster_id: String,
    /// `None`: of a version before disk ids.
    pub(crate) disk: Option<DiskId>,
}

/// Whose folder it is; `None`: the node never was part of a cluster.
pub(super) fn of_folder(storage: &Storage) -> Result<Option<FolderNode>, NodeError> {
    let folder = Folder { storage, path: storage.dir() };
    let (Some(record), Some(cluster_id)) = (folder.record()?, folder.cluster_id()?) else {
        return Ok(None);
    };
    let incarnation = folder.incarnation()?;
    let disk = folder.disk()?.map(|(disk, _)| disk);
    Ok(Some(FolderNode { node: NodeId(record.id), incarnation, cluster_id, disk }))
}

/// Whether the folder's node never was one: it knows no cluster and promised nothing.
pub(super) fn never_began(storage: &Storage) -> std::io::Result<bool> {
    Ok(storage.get_record(CLUSTER)?.is_none() && storage.has_no_log()?)
}

/// The records of a node that is restored: one that joined its cluster, which is known.
pub(super) fn restored(
    id: NodeId,
    cluster_id: &str,
    incarnation: u64,
) -> [(&'static str, Vec<u8>); 4] {
    [
        (DISK, encode_disk(DiskId(rand::random()), incarnation)),
        (NODE, encode(&Record { id: id.0, spec: None })),
        (CLUSTER, cluster_id.as_bytes().to_vec()),
        (INCARNATION, incarnation.to_be_bytes().to_vec()),
    ]
}

/// Checks that a record of the node is undamaged.
pub(super) fn check_record(name: &str, value: &[u8]) -> Result<(), RecordError> {
    match name {
        NODE => decode(value).map(drop),
        CLUSTER => std::str::from_utf8(value).map(drop).map_err(RecordError::from),
        INCARNATION if value.len() == 8 => Ok(()),
        INCARNATION => Err(RecordError::Length { found: value.len(), expected: 8 }),
        REMOVED => removed(value).map(drop),
        DISK => decode_disk(value).map(drop),
        _ => Roster::check_record(name, value).unwrap_or(Err(RecordError::Unknown)),
    }
}

fn removed(bytes: &[u8]) -> Result<bool, RecordError> {
    match bytes {
        [0] => Ok(false),
        [1] => Ok(true),
        _ => Err(RecordError::Flag(bytes.to_vec())),
    }
}

fn encode(record: &Record) -> Vec<u8> {
    encode_record(FORMAT, record)
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Record, RecordError> {
    decode_record(FORMAT, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_the_page_shows_the_record_of_a_node_that_joined() {
        use keyviz_testkit::golden::{golden, hex};
        assert_eq!(golden("node"), hex(&encode(&Record { id: 7, spec: None })));
    }

    #[test]
    fn a_record_survives_and_a_damaged_one_is_a_reason_not_a_panic() {
        let record = Record { id: 7, spec: None };
        let bytes = encode(&record);
        assert_eq!(decode(&bytes), Ok(record));
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err());
        }
        let mut newer = bytes.clone();
        newer[0] = 9;
        let other = RecordError::Format { found: 9, expected: FORMAT };
        assert_eq!(decode(&newer), Err(other));
        assert!(decode(&[&bytes[..], b"x"].concat()).is_err());
    }
}
