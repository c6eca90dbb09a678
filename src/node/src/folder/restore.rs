//! Makes a node's folder from a backup.
//!
//! Each first member of the new cluster makes its own from the same file and the same list of
//! members, so all begin with the same catalog, the same rows at the same place of each log, and a
//! new cluster id that follows from both: nodes of the old cluster and of the new never mix.
//!
//! The file is read whole before anything is written. The folder is made beside its place and moved
//! there last, so that there is a restored node or none.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use keyviz_backup::{BackupError, BackupReader, Part};
use keyviz_catalog::{
    Catalog, ClusterId, ClusterRecord, LoadError, RelocateError, Relocated, Retention,
};
use keyviz_core::history::HistoryHandoff;
use keyviz_core::{Archive, Incarnation};
use keyviz_raft::{
    KeyValue, LogPosition, Member, OpenError, Seed, SeedError, SeedPoint, SideRows, Storage,
    StorageOptions,
};
use keyviz_types::{GroupId, NodeId, Term};

use super::archive;
use super::history_handoffs;
use super::identity;

const BUFFER_BYTES: usize = 1 << 20;

/// The settings of a restore.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The backup.
    pub from: PathBuf,
    /// The folder to make.
    pub data: PathBuf,
    /// The node that it is for.
    pub id: NodeId,
    /// All members of the new cluster and their gRPC addresses, this node among them.
    pub members: BTreeMap<NodeId, String>,
    /// Replicas of each data group.
    pub replication: usize,
    /// Goes into the new cluster's id; empty: nothing does.
    pub name: String,
}

/// What was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    /// The new cluster.
    pub cluster_id: String,
    /// Catalog version, as in the backup.
    pub catalog_version: u64,
    /// Groups put into the folder, the catalog's included.
    pub groups: u64,
    /// Their rows.
    pub rows: u64,
    /// Records of history put into the folder.
    pub history: u64,
    /// Nodes that are not in the new cluster and whose history this node keeps.
    pub history_kept_for: Vec<NodeId>,
    /// Nodes whose history is not in the backup, because they did not answer: what they counted is
    /// shown as missing.
    pub history_left_out: Vec<NodeId>,
}

/// Why no folder was made.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is something.
    #[error(
        "{} holds data already; a backup is restored into a folder that does not exist or is empty",
        .0.display()
    )]
    Exists(PathBuf),
    /// The list of members lacks this node.
    #[error("node {0} is not in the list of members")]
    NotAMember(NodeId),
    /// The backup cannot be read.
    #[error("{}: {source}", .file.display())]
    Backup {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: BackupError,
    },
    /// The backup is sound and lacks something.
    #[error("{}: the backup has no {what}", .file.display())]
    Lacks {
        /// The file.
        file: PathBuf,
        /// What it lacks.
        what: String,
    },
    /// Its catalog does not load.
    #[error("the backup's catalog cannot be used: {0}")]
    Catalog(#[from] LoadError),
    /// Its catalog does not fit the members.
    #[error("the backup does not fit the members: {0}")]
    Relocate(#[from] RelocateError),
    /// The folder cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A group cannot be written.
    #[error("a group cannot be restored: {0}")]
    Seed(#[from] SeedError),
    /// The folder cannot be written.
    #[error("the folder {} cannot be written: {source}", .folder.display())]
    Write {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A group according to the headers of the backup.
type Header = keyviz_proto::BackupGroup;

/// The result of the first pass.
#[derive(Default)]
struct Contents {
    cluster_id: String,
    created_ms: u64,
    groups: BTreeMap<GroupId, Header>,
    catalog: Vec<KeyValue>,
    /// Incarnation of each node whose history is there.
    histories: BTreeMap<NodeId, u64>,
    /// Nodes whose history should be there and is not.
    histories_missing: Vec<NodeId>,
}

/// The owner of the next rows.
enum Section {
    Group(Seed, Header),
    History(HistorySection),
    Other,
}

/// History that goes into this folder.
struct HistorySection {
    side: SideRows,
    /// The summary, where it is the history of a node that is not in the new cluster, as that node
    /// told it; what a member kept has its own.
    summary: Option<(Vec<u8>, Vec<u8>)>,
    /// It is this node's own, and no summary belongs to it.
    own: bool,
}

impl Restore {
    /// Makes the folder. Blocks on the disk.
    ///
    /// # Errors
    /// Nothing is left behind: a folder that is used, a backup that is damaged, members that do not
    /// fit.
    pub fn run(&self) -> Result<Restored, RestoreError> {
        if !self.members.contains_key(&self.id) {
            return Err(RestoreError::NotAMember(self.id));
        }
        self.check_free()?;
        let contents = self.survey()?;
        let catalog = Catalog::load(contents.catalog.iter().cloned(), Retention::DEFAULT)?;
        let cluster_id = self.new_cluster_id(&contents);
        let members: Vec<NodeId> = self.members.keys().copied().collect();
        let Relocated { cluster, records } =
            catalog.relocated(cluster_id, &members, self.replication)?;
        for group in std::iter::once(GroupId::CATALOG)
            .chain(cluster.groups.iter().map(|placement| placement.group))
        {
            if !contents.groups.contains_key(&group) {
                return Err(self.lacks(format!("Raft group {group}")));
            }
        }
        let parent = match self.data.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(parent).map_err(|error| self.write(error))?;
        let aside = tempfile::Builder::new().prefix(".keyviz-restore-").tempdir_in(parent);
        let aside = aside.map_err(|error| self.write(error))?;
        let mut restored = Restored {
            cluster_id: cluster_id.to_string(),
            catalog_version: catalog.version(),
            groups: 0,
            rows: 0,
            history: 0,
            history_kept_for: Vec::new(),
            history_left_out: contents.histories_missing.clone(),
        };
        self.fill(aside.path(), &contents, &cluster, records, &mut restored)?;
        self.put_in_place(aside, parent)?;
        Ok(restored)
    }

    fn write(&self, source: io::Error) -> RestoreError {
        RestoreError::Write { folder: self.data.clone(), source }
    }

    fn backup(&self, source: BackupError) -> RestoreError {
        RestoreError::Backup { file: self.from.clone(), source }
    }

    fn lacks(&self, what: impl Into<String>) -> RestoreError {
        RestoreError::Lacks { file: self.from.clone(), what: what.into() }
    }

    fn check_free(&self) -> Result<(), RestoreError> {
        match std::fs::read_dir(&self.data) {
            Ok(mut entries) => match entries.next() {
                None => Ok(()),
                Some(_) if self.is_failed_start() => Ok(()),
                Some(_) => Err(RestoreError::Exists(self.data.clone())),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                Err(RestoreError::Exists(self.data.clone()))
            }
            Err(error) => Err(self.write(error)),
        }
    }

    /// Whether the folder has what a `serve` made that failed before there was a node: databases
    /// without a cluster, a vote or an entry, and nothing beside them.
    fn is_failed_start(&self) -> bool {
        let Ok(mut entries) = std::fs::read_dir(&self.data) else { return false };
        let ours = |entry: io::Result<std::fs::DirEntry>| {
            entry.is_ok_and(|entry| is_ours(&entry.file_name()))
        };
        if !self.data.join("FORMAT").is_file() || !entries.all(ours) {
            return false;
        }
        // A folder that cannot be opened or read may belong to a node.
        let Ok(storage) = Storage::open(&self.data, StorageOptions::default()) else {
            return false;
        };
        let never_began = identity::never_began(&storage).unwrap_or(false);
        storage.close_now().is_ok() && never_began
    }

    /// The same on every member that is restored from this backup for these members.
    fn new_cluster_id(&self, contents: &Contents) -> ClusterId {
        let Contents { cluster_id, created_ms, groups, .. } = contents;
        let points: Vec<_> = groups.values().collect();
        let mut text = format!("{cluster_id} at {created_ms}: {points:?} on {:?}", self.members);
        if !self.name.is_empty() {
            text.push_str(" as ");
            text.push_str(&self.name);
        }
        ClusterId(xxhash_rust::xxh3::xxh3_128(text.as_bytes()).to_be_bytes())
    }

    fn reader(&self) -> Result<BackupReader<BufReader<File>>, RestoreError> {
        let file = File::open(&self.from).map_err(|error| self.backup(error.into()))?;
        let file = BufReader::with_capacity(BUFFER_BYTES, file);
        BackupReader::new(file).map_err(|error| self.backup(error))
    }

    /// Reads the whole backup, and keeps what the second pass needs.
    fn survey(&self) -> Result<Contents, RestoreError> {
        let mut reader = self.reader()?;
        let mut contents = Contents::default();
        let mut in_catalog = false;
        while let Some(part) = reader.next_part().map_err(|error| self.backup(error))? {
            match part {
                Part::Start(start) => {
                    (contents.cluster_id, contents.created_ms) =
                        (start.cluster_id, start.created_ms);
                }
                Part::Group(group) => {
                    in_catalog = group.group_id == GroupId::CATALOG.0;
                    contents.groups.insert(GroupId(group.group_id), group);
                }
                Part::History(history) => {
                    in_catalog = false;
                    let before = contents.histories.entry(NodeId(history.node_id)).or_default();
                    *before = history.incarnation.max(*before);
                }
                Part::End(end) => {
                    contents.histories_missing =
                        end.histories_missing.into_iter().map(NodeId).collect();
                }
                Part::Rows(rows) if in_catalog => {
                    contents.catalog.extend(rows.rows.into_iter().map(|row| (row.key, row.value)));
                }
                Part::Rows(_) | Part::SectionEnd(_) => {}
            }
        }
        if contents.catalog.is_empty() {
            return Err(self.lacks("catalog"));
        }
        Ok(contents)
    }

    /// The keeper of a node's history: the node itself if it is in the new cluster, else its keeper
    /// so far, else the members share them.
    fn keeper(&self, node: NodeId, held_by: NodeId) -> NodeId {
        let mut known = [node, held_by].into_iter();
        known.find(|node| self.members.contains_key(node)).unwrap_or_else(|| {
            let turn = usize::try_from(node.0 % self.members.len() as u64).unwrap_or(0);
            self.members.keys().nth(turn).copied().unwrap_or(self.id)
        })
    }

    /// The destination of a history, if it is this folder and not there yet.
    fn history(
        &self,
        storage: &Storage,
        header: &keyviz_proto::BackupHistory,
        restored: &mut Restored,
    ) -> Result<Option<HistorySection>, RestoreError> {
        let (node, held_by) = (NodeId(header.node_id), NodeId(header.held_by));
        let io = |error: io::Error| self.write(error);
        if self.keeper(node, held_by) != self.id || restored.history_kept_for.contains(&node) {
            return Ok(None);
        }
        if node == self.id {
            let side = storage.open_side(archive::ROWS).map_err(io)?;
            return Ok(Some(HistorySection { side, summary: None, own: true }));
        }
        restored.history_kept_for.push(node);
        let side = storage.open_side(&format!("{}{node}", history_handoffs::ROWS)).map_err(io)?;
        let told_by_itself = header.held_by == 0;
        let summary =
            told_by_itself.then(|| HistoryHandoff::summary(Incarnation(header.incarnation), 0));
        Ok(Some(HistorySection { side, summary, own: false }))
    }

    /// Notes that what the members counted that are missing from the backup is gone.
    fn mark_missing(&self, storage: &Storage, contents: &Contents) -> Result<(), RestoreError> {
        let io = |error: io::Error| self.write(error);
        for &node in &contents.histories_missing {
            if self.keeper(node, node) != self.id || contents.histories.contains_key(&node) {
                continue;
            }
            let (name, record) = if node == self.id {
                let forgotten = Archive::default().note_forgotten(contents.created_ms);
                (archive::ROWS.to_owned(), forgotten)
            } else {
                let summary = HistoryHandoff::summary(Incarnation(0), contents.created_ms);
                (format!("{}{node}", history_handoffs::ROWS), Some(summary))
            };
            let side = storage.open_side(&name).map_err(io)?;
            side.apply(record, []).and_then(|()| side.sync()).map_err(io)?;
        }
        Ok(())
    }

    fn point(&self, header: &Header, members: impl Iterator<Item = NodeId>) -> SeedPoint {
        let address = |node: &NodeId| self.members.get(node).cloned().unwrap_or_default();
        SeedPoint {
            applied: LogPosition { term: header.applied_term, index: header.applied_index },
            term: Term(header.term),
            members: members.map(|node| (node.0, Member::grpc(address(&node)))).collect(),
        }
    }

    fn fill(
        &self,
        folder: &Path,
        contents: &Contents,
        cluster: &ClusterRecord,
        catalog: Vec<(Vec<u8>, Vec<u8>)>,
        restored: &mut Restored,
    ) -> Result<(), RestoreError> {
        let storage = Storage::open(folder, StorageOptions::default())?;
        let io = |error: io::Error| self.write(error);
        let ours: BTreeMap<GroupId, BTreeSet<NodeId>> = cluster
            .groups
            .iter()
            .filter(|placement| placement.replicas.contains(&self.id))
            .map(|placement| (placement.group, placement.replicas.iter().copied().collect()))
            .collect();

        let mut seed = storage.seed(GroupId::CATALOG).map_err(io)?;
        let rows: Vec<KeyValue> =
            catalog.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        seed.put(&rows)?;
        let header = &contents.groups[&GroupId::CATALOG];
        seed.finish(self.id.0, &self.point(header, self.members.keys().copied()))?;
        (restored.groups, restored.rows) = (1, rows.len() as u64);

        let mut reader = self.reader()?;
        let mut section = Section::Other;
        while let Some(part) = reader.next_part().map_err(|error| self.backup(error))? {
            match part {
                Part::Group(header) if ours.contains_key(&GroupId(header.group_id)) => {
                    let seed = storage.seed(GroupId(header.group_id)).map_err(io)?;
                    section = Section::Group(seed, header);
                }
                Part::History(header) => {
                    let history = self.history(&storage, &header, restored)?;
                    section = history.map_or(Section::Other, Section::History);
                }
                Part::Rows(rows) => {
                    let rows = rows.rows.into_iter().map(|row| (row.key, row.value));
                    match &mut section {
                        Section::Group(seed, _) => {
                            let rows: Vec<KeyValue> = rows.collect();
                            seed.put(&rows)?;
                            restored.rows += rows.len() as u64;
                        }
                        Section::History(HistorySection { side, own, .. }) => {
                            restored.history += rows.len() as u64;
                            let kept =
                                rows.filter(|(key, _)| !*own || !HistoryHandoff::is_summary(key));
                            let owned = |bytes: Bytes| Vec::from(bytes);
                            side.apply(kept.map(|(key, value)| (owned(key), owned(value))), [])
                                .map_err(io)?;
                        }
                        Section::Other => {}
                    }
                }
                Part::SectionEnd(_) => {
                    if let Section::History(HistorySection { side, summary, .. }) = &mut section {
                        // Last: rows without it are no history of another node.
                        side.apply(summary.take(), []).and_then(|()| side.sync()).map_err(io)?;
                    }
                    if let Section::Group(seed, header) =
                        std::mem::replace(&mut section, Section::Other)
                    {
                        let members = &ours[&GroupId(header.group_id)];
                        seed.finish(self.id.0, &self.point(&header, members.iter().copied()))?;
                        restored.groups += 1;
                    }
                }
                Part::Start(_) | Part::Group(_) | Part::End(_) => {}
            }
        }
        self.mark_missing(&storage, contents)?;
        let incarnation = contents.histories.get(&self.id).copied().unwrap_or(0);
        for (name, value) in identity::restored(self.id, &restored.cluster_id, incarnation) {
            storage.seed_record(name, &value).map_err(io)?;
        }
        storage.close_now().map_err(io)
    }

    fn put_in_place(&self, aside: tempfile::TempDir, parent: &Path) -> Result<(), RestoreError> {
        let mut gone = None;
        if self.is_failed_start() {
            // Out of the way at once, whole; removed when all is done.
            let old = tempfile::Builder::new().prefix(".keyviz-restore-").tempdir_in(parent);
            let old = old.map_err(|error| self.write(error))?;
            std::fs::rename(&self.data, old.path().join("failed-start"))
                .map_err(|error| self.write(error))?;
            gone = Some(old);
        }
        // An empty folder is replaced; one that was filled meanwhile is not.
        match std::fs::remove_dir(&self.data) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return Err(RestoreError::Exists(self.data.clone())),
        }
        std::fs::rename(aside.path(), &self.data).map_err(|error| self.write(error))?;
        // Nothing is left there to be removed.
        let _ = aside.keep();
        drop(gone);
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(|error| self.write(error))
    }
}

/// Whether a node makes a file or folder of this name.
fn is_ours(name: &OsStr) -> bool {
    const NAMES: [&str; 9] =
        ["BALLAST", "FORMAT", "LOCK", "LOCK.format", "SYNCED", "blobs", "conf", "db", "log"];
    let name = name.to_string_lossy();
    NAMES.contains(&&*name) || name == "side" || name.starts_with("snap.")
}
