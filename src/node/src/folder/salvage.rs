//! Makes a backup from the folders of stopped nodes, for a cluster that has lost a majority.
//!
//! Each group comes from the folder whose log of it ends last. The folders are copied first and are
//! never changed, so a lost member that comes back finds its group as it was.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use futures::future::{BoxFuture, FutureExt as _};
use keyviz_backup::{BackupWriter, Part};
use keyviz_catalog::{AppliedCatalog, Catalog, LoadError, Retention};
use keyviz_catalog_group::CatalogMachine;
use keyviz_core::history::HistoryHandoff;
use keyviz_kv::KvMachine;
use keyviz_proto as proto;
use keyviz_raft::{
    Dump, KeyValue, LogPosition, OpenError, StorageOptions, SurvivingReplica, Survivor,
};
use keyviz_types::{DiskId, GroupId, NodeId};

use super::agreement::{self, Disagreement, Stopped};
use super::archive;
use super::history_handoffs;
use super::identity;
use crate::error::NodeError;

/// Bytes of history records in one part.
const HISTORY_PART_BYTES: usize = 256 << 10;

/// Why nothing was salvaged.
#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    /// A folder cannot be copied or opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A record of a folder is damaged.
    #[error(transparent)]
    Node(#[from] Box<NodeError>),
    /// There is no space for the copies, or they cannot be written.
    #[error("cannot copy the folders to {}: {source}", .folder.display())]
    Scratch {
        /// Where the copies are.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A folder whose node never was part of a cluster.
    #[error("{} belongs to no cluster yet: its node promised nothing", .0.display())]
    NoCluster(PathBuf),
    /// Folders of different clusters.
    #[error(
        "{} belongs to cluster {found}, and {} to cluster {expected}; name folders of one cluster",
        .folder.display(), .first.display()
    )]
    OtherCluster {
        /// The folder.
        folder: PathBuf,
        /// Its cluster.
        found: String,
        /// The first folder.
        first: PathBuf,
        /// The first folder's cluster.
        expected: String,
    },
    /// Two folders of one node.
    #[error(
        "{} and {} are both folders of node {node}; name only the one that ran last",
        .first.display(), .second.display()
    )]
    SameNode {
        /// The node.
        node: NodeId,
        /// One folder.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// Folders that cannot be of one history.
    #[error(
        "{0}. A disk went back to an older state, and what was acknowledged before and after that \
         may be in different folders. Nothing was written. Name one folder at a time, with another \
         --out, and restore each file by itself to see which writes it has"
    )]
    Disagree(#[from] Disagreement),
    /// The records of the folders cannot be compared.
    #[error("the folders cannot be compared: {0}")]
    Compare(#[source] io::Error),
    /// No folder has a replica of the group.
    #[error(
        "no folder has a replica of Raft group{} {}: add the folder of a node that held one, with \
         another --data; without it there is no complete backup",
        if .0.len() == 1 { "" } else { "s" },
        .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    Missing(Vec<GroupId>),
    /// The rows or the log of a group cannot be read.
    #[error("Raft group {group} in {}: {source}", .folder.display())]
    Group {
        /// The group.
        group: GroupId,
        /// The folder it was read from.
        folder: PathBuf,
        /// What was met.
        source: io::Error,
    },
    /// The catalog does not load.
    #[error("the catalog cannot be used: {0}")]
    Catalog(#[from] LoadError),
    /// The backup cannot be written.
    #[error("the backup cannot be written: {0}")]
    Write(#[source] io::Error),
}

struct Source {
    folder: PathBuf,
    node: NodeId,
    disk: Option<DiskId>,
    incarnation: u64,
    survivor: Survivor,
}

impl Source {
    fn stopped(&self) -> Stopped<'_> {
        let Source { folder, node, disk, survivor, .. } = self;
        Stopped { folder, node: *node, disk: *disk, survivor }
    }
}

/// A replica that the backup is made from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SalvagedGroup {
    /// The group.
    pub group: GroupId,
    /// The folder that is used.
    pub folder: PathBuf,
    /// The replica in it.
    pub replica: SurvivingReplica,
    /// The last log entries of the group's replicas in the other folders.
    pub others: Vec<(PathBuf, LogPosition)>,
    /// Replicas that the group has; each that is in no folder may have had later writes.
    pub members: Vec<NodeId>,
}

/// What was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Salvaged {
    /// Groups, the catalog's included.
    pub groups: u64,
    /// Their rows.
    pub rows: u64,
    /// Nodes whose counted history is in the file.
    pub histories: Vec<NodeId>,
    /// Length of the file.
    pub bytes: u64,
}

/// Copies of the folders, and the groups to take from each. The copies go with the value.
pub struct Salvage {
    cluster_id: String,
    catalog_version: u64,
    groups: Vec<SalvagedGroup>,
    /// The catalog group's rows, in runs.
    catalog: (proto::BackupGroup, Vec<Vec<KeyValue>>),
    sources: Vec<Source>,
    _scratch: tempfile::TempDir,
}

impl std::fmt::Debug for Salvage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Salvage").field("groups", &self.groups).finish_non_exhaustive()
    }
}

impl Salvage {
    /// Copies the folders into a temporary folder in `scratch` and surveys the copies. `progress`
    /// takes the folder and the bytes copied of it. Blocks on the disk.
    ///
    /// # Errors
    /// The folders are not those of stopped nodes of one cluster, disagree, or lack a group.
    pub async fn open(
        folders: &[PathBuf],
        scratch: &Path,
        progress: &mut dyn FnMut(&Path, u64),
    ) -> Result<Self, SalvageError> {
        let failed = |source| SalvageError::Scratch { folder: scratch.to_path_buf(), source };
        let copies = tempfile::Builder::new().prefix(".keyviz-salvage-").tempdir_in(scratch);
        let copies = copies.map_err(failed)?;
        let mut sources: Vec<Source> = Vec::new();
        let mut cluster: Option<(PathBuf, String)> = None;
        for (number, folder) in folders.iter().enumerate() {
            let copy = copies.path().join(number.to_string());
            let mut copied = |bytes| progress(folder, bytes);
            let options = StorageOptions { min_free_bytes: Some(0), ..StorageOptions::default() };
            let survivor = Survivor::copy(folder, &copy, options, &mut copied)?;
            let who = identity::of_folder(survivor.storage()).map_err(Box::new)?;
            let Some(identity::FolderNode { node, incarnation, cluster_id, disk }) = who else {
                return Err(SalvageError::NoCluster(folder.clone()));
            };
            let (first, expected) =
                cluster.get_or_insert_with(|| (folder.clone(), cluster_id.clone())).clone();
            if cluster_id != expected {
                let (folder, found) = (folder.clone(), cluster_id);
                return Err(SalvageError::OtherCluster { folder, found, first, expected });
            }
            if let Some(same) = sources.iter().find(|source| source.node == node) {
                let (first, second) = (same.folder.clone(), folder.clone());
                return Err(SalvageError::SameNode { node, first, second });
            }
            sources.push(Source { folder: folder.clone(), node, disk, incarnation, survivor });
        }
        let compare = SalvageError::Compare;
        let stopped = sources.iter().map(Source::stopped).collect::<Vec<_>>();
        agreement::of_nodes(&stopped).map_err(compare)??;
        let cluster_id = cluster.map(|(_, id)| id).unwrap_or_default();
        let (source, replica) = best(&sources, GroupId::CATALOG)
            .ok_or_else(|| SalvageError::Missing(vec![GroupId::CATALOG]))?;
        let machine = CatalogMachine::of(&AppliedCatalog::default());
        let dumped = source.survivor.replay(GroupId::CATALOG, machine).await;
        let broken = |source: &Source, group, error| SalvageError::Group {
            group,
            folder: source.folder.clone(),
            source: error,
        };
        let rows = dumped.and_then(|mut dump| {
            let mut rows = Vec::new();
            let header = header(GroupId::CATALOG, &dump);
            while let Some(run) = next_run(&mut dump)? {
                rows.push(run);
            }
            Ok((header, rows))
        });
        let catalog = rows.map_err(|error| broken(source, GroupId::CATALOG, error))?;
        let loaded = Catalog::load(catalog.1.iter().flatten().cloned(), Retention::DEFAULT)?;
        let placed = loaded.placement();
        let everybody: BTreeSet<NodeId> = placed.groups().values().flatten().copied().collect();
        let everybody = everybody.into_iter().collect();
        let mut groups = vec![salvaged(GroupId::CATALOG, source, replica, &sources, everybody)];
        let mut missing = Vec::new();
        for (&group, members) in placed.groups() {
            if group == GroupId::CATALOG {
                continue;
            }
            match best(&sources, group) {
                Some((source, replica)) => {
                    groups.push(salvaged(group, source, replica, &sources, members.clone()));
                }
                None => missing.push(group),
            }
        }
        if !missing.is_empty() {
            return Err(SalvageError::Missing(missing));
        }
        for found in &groups {
            let source = sources.iter().find(|source| source.folder == found.folder);
            let source = source.expect("a group comes from one of the sources");
            let later = (&source.folder, &source.survivor, found.replica);
            agreement::of_group(found.group, later, &stopped).await.map_err(compare)??;
        }
        drop(stopped);
        let catalog_version = loaded.version();
        Ok(Salvage { cluster_id, catalog_version, groups, catalog, sources, _scratch: copies })
    }

    /// The cluster that the folders belong to.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// The version of the catalog that was found.
    pub fn catalog_version(&self) -> u64 {
        self.catalog_version
    }

    /// The source of each group; the catalog group first.
    pub fn groups(&self) -> &[SalvagedGroup] {
        &self.groups
    }

    /// The nodes whose folders were given.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.sources.iter().map(|source| source.node).collect()
    }

    /// Writes the backup: the histories, the data groups and the catalog, as `backup` does.
    ///
    /// # Errors
    /// A group cannot be read, or the file cannot be written. The partial file is useless then.
    pub fn write(
        &self,
        file: File,
        created_ms: u64,
    ) -> BoxFuture<'_, Result<Salvaged, SalvageError>> {
        async move {
            let start = proto::BackupStart {
                cluster_id: self.cluster_id.clone(),
                created_ms,
                groups: self.groups.len() as u64 - 1,
                version: env!("CARGO_PKG_VERSION").to_owned(),
            };
            let mut writer = BackupWriter::new(file, start).map_err(SalvageError::Write)?;
            let mut histories = Vec::new();
            for source in &self.sources {
                if history(source, &mut writer).map_err(SalvageError::Write)? {
                    histories.push(source.node);
                }
            }
            let in_histories = writer.rows();
            for found in &self.groups[1..] {
                let source = self.sources.iter().find(|source| source.folder == found.folder);
                let source = source.expect("a group comes from one of the sources");
                let dump = source.survivor.replay(found.group, KvMachine::default()).await;
                let mut dump = dump.map_err(|error| SalvageError::Group {
                    group: found.group,
                    folder: found.folder.clone(),
                    source: error,
                })?;
                let write = SalvageError::Write;
                writer.write(Part::Group(header(found.group, &dump))).map_err(write)?;
                let mut count = 0;
                loop {
                    let run = next_run(&mut dump).map_err(|error| SalvageError::Group {
                        group: found.group,
                        folder: found.folder.clone(),
                        source: error,
                    })?;
                    let Some(run) = run else { break };
                    count += run.len() as u64;
                    writer.write(rows(run)).map_err(write)?;
                }
                writer.write(end(count)).map_err(write)?;
            }
            let (header, catalog) = &self.catalog;
            let mut section = || -> io::Result<()> {
                writer.write(Part::Group(*header))?;
                for run in catalog {
                    writer.write(rows(run.iter().cloned()))?;
                }
                writer.write(end(catalog.iter().map(|run| run.len() as u64).sum()))
            };
            section().map_err(SalvageError::Write)?;
            let rows = writer.rows() - in_histories;
            let members = self.groups[0].members.iter();
            let missing = members.filter(|node| !histories.contains(node)).map(|node| node.0);
            let bytes = writer.finish(missing.collect()).map_err(SalvageError::Write)?;
            Ok(Salvaged { groups: self.groups.len() as u64, rows, histories, bytes })
        }
        .boxed()
    }
}

/// The folder whose log of the group ends last. Of two logs the one with the later last term is
/// complete as far as entries were acknowledged, and in one term the longer one is: the rule of
/// Raft's elections.
fn best(sources: &[Source], group: GroupId) -> Option<(&Source, SurvivingReplica)> {
    sources
        .iter()
        .filter_map(|source| Some((source, *source.survivor.replicas().get(&group)?)))
        .max_by_key(|(_, replica)| replica.last)
}

fn salvaged(
    group: GroupId,
    source: &Source,
    replica: SurvivingReplica,
    sources: &[Source],
    mut members: Vec<NodeId>,
) -> SalvagedGroup {
    members.sort();
    let others = sources.iter().filter(|other| other.node != source.node);
    let others = others
        .filter_map(|other| {
            let last = other.survivor.replicas().get(&group)?.last;
            Some((other.folder.clone(), last))
        })
        .collect();
    SalvagedGroup { group, folder: source.folder.clone(), replica, others, members }
}

fn header(group: GroupId, dump: &Dump) -> proto::BackupGroup {
    let at = dump.applied();
    proto::BackupGroup {
        group_id: group.0,
        applied_term: at.term,
        applied_index: at.index,
        term: dump.term().0,
    }
}

fn next_run(dump: &mut Dump) -> io::Result<Option<Vec<KeyValue>>> {
    let run = dump.next_run()?;
    Ok((!run.is_empty()).then_some(run))
}

fn rows(rows: impl IntoIterator<Item = KeyValue>) -> Part {
    let rows = rows.into_iter().map(|(key, value)| proto::BackupRow { key, value }).collect();
    Part::Rows(proto::BackupRows { rows })
}

fn end(rows: u64) -> Part {
    Part::SectionEnd(proto::BackupSectionEnd { rows })
}

/// What the folder's own node counted, and what it keeps for nodes that have left; whether there is
/// anything of its own.
fn history(source: &Source, writer: &mut BackupWriter) -> io::Result<bool> {
    let storage = source.survivor.storage();
    let records = |name: &str| storage.open_side(name)?.rows().map_err(io::Error::other);
    let (own, mut found) = (source.node, false);
    if storage.side_names(archive::ROWS)?.iter().any(|name| name == archive::ROWS) {
        let (node_id, incarnation) = (own.0, source.incarnation);
        let header = proto::BackupHistory { node_id, incarnation, held_by: 0 };
        section(header, records(archive::ROWS)?, writer)?;
        found = true;
    }
    for name in storage.side_names(history_handoffs::ROWS)? {
        let left = name.strip_prefix(history_handoffs::ROWS).and_then(|id| id.parse().ok());
        let Some(left) = left.map(NodeId) else { continue };
        let records = records(&name)?;
        // Without its summary it was never handed over.
        let Some((handoff, _)) = HistoryHandoff::of_records(left, records.clone()) else {
            continue;
        };
        let (node_id, incarnation) = (left.0, handoff.incarnation.0);
        section(proto::BackupHistory { node_id, incarnation, held_by: own.0 }, records, writer)?;
    }
    Ok(found)
}

fn section(
    header: proto::BackupHistory,
    records: Vec<KeyValue>,
    writer: &mut BackupWriter,
) -> io::Result<()> {
    writer.write(Part::History(header))?;
    let count = records.len() as u64;
    let mut part = Vec::new();
    let mut bytes = 0;
    for (key, value) in records {
        bytes += key.len() + value.len();
        part.push((key, value));
        if bytes >= HISTORY_PART_BYTES {
            writer.write(rows(std::mem::take(&mut part)))?;
            bytes = 0;
        }
    }
    writer.write(rows(part))?;
    writer.write(end(count))
}
