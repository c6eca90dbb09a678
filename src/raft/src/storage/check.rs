//! Reads every record of a stopped node's folder and names what is damaged.
//!
//! Nothing of it is repaired, and no record is written. (sled drops what a crash left half
//! written at the end of its file when it opens it, as every start of the node does.)

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::engine::fault::FaultLatch;
use super::engine::scarce::Scarce;
use super::engine::{Engine, JOURNAL, META, ROWS, SYNC_KEY, Tree, names_damaged_file};
use super::folder::Folder;
use super::folder::upgrade::SIDE_PREFIX;
use super::keyspace::Keyspace;
use super::keyspace::current::{Current, MEMBERSHIP_KEY};
use super::keyspace::{redo, value};
use super::{LOG, OpenError, SideRows, group_of, side, unseal};
use crate::log::{LogExtent, check_log, log_groups};
use keyviz_types::GroupId;

/// Each page is read once, so that more would not help.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;

/// What the layers above know of what they store.
pub trait Verify {
    /// A record of the node.
    fn record(&self, name: &str, value: &[u8]) -> Result<(), String>;
    /// The rows of a group.
    fn group(&self, keyspace: &Keyspace) -> Result<(), String>;
    /// Rows beside the groups: the damaged ones and what is wrong with them.
    fn side(&self, name: &str, rows: &SideRows) -> Result<Vec<(String, String)>, String>;
}

/// A record that is not what was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The file, in the node's folder.
    pub file: PathBuf,
    /// The group that cannot be served because of it; `None`: it concerns no group.
    pub group: Option<GroupId>,
    /// Tree and record.
    pub place: String,
    /// What is wrong; with the offset in the file where the database found it.
    pub what: String,
}

/// What was read, and what of it is damaged.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct CheckReport {
    /// Raft groups with a log or rows.
    pub groups: u64,
    /// Log entries.
    pub entries: u64,
    /// Rows of groups.
    pub rows: u64,
    /// Records of the node.
    pub records: u64,
    /// Sound if empty.
    pub damage: Vec<Damage>,
}

/// Checks the folder of a node that does not run.
///
/// # Errors
/// If the folder is in use, does not belong to a node, or its database cannot be opened.
pub fn check_folder(dir: &Path, verify: &dyn Verify) -> Result<CheckReport, OpenError> {
    let folder = Folder::open_existing(dir)?;
    // In format 1 everything was in one file.
    let in_one = folder.format() == 1;
    let opened = || -> io::Result<(Engine, Tree, Tree)> {
        let open = |database| Engine::open(dir, database, CACHE_BYTES, FaultLatch::default());
        let rows = open(&ROWS)?;
        let journal = if in_one { rows.clone() } else { open(&JOURNAL)? };
        let (meta, log) = (journal.tree(META)?, journal.tree(LOG)?);
        Ok((rows, meta, log))
    };
    let (rows, meta, log) = opened().map_err(|error| OpenError::from_io(dir, error))?;
    let (file, report) =
        (dir.join(if in_one { ROWS.file() } else { JOURNAL.file() }), CheckReport::default());
    let mut check = Check { verify, rows, file, report, groups: BTreeSet::new() };
    let generations = check.meta(&meta);
    let logs = check.logs(&log);
    check.file = dir.join(ROWS.file());
    check.trees(&generations, &logs);
    check.sides(dir).map_err(|error| OpenError::from_io(dir, error))?;
    check.report.groups = check.groups.len() as u64;
    if Scarce::was_seen() && !check.report.damage.is_empty() {
        // What could not be read for want of something is listed among the damage, which it is not.
        let mut found = check.report.damage.into_iter().map(|damage| damage.what);
        let said = found.find(|what| what.contains(Scarce::WORDS));
        let cause = said.unwrap_or_else(|| format!("{} enough of something", Scarce::WORDS));
        return Err(OpenError::Scarce { dir: dir.to_path_buf(), cause });
    }
    Ok(check.report)
}

struct Check<'a> {
    verify: &'a dyn Verify,
    rows: Engine,
    /// The one that is being read.
    file: PathBuf,
    groups: BTreeSet<GroupId>,
    report: CheckReport,
}

impl Check<'_> {
    fn damaged(&mut self, group: Option<GroupId>, place: String, what: impl ToString) {
        let (file, what) = (self.file.clone(), what.to_string());
        self.report.damage.push(Damage { file, group, place, what });
    }

    /// Records of the node; the current generation of each group.
    fn meta(&mut self, meta: &Tree) -> BTreeMap<GroupId, u64> {
        let mut generations = BTreeMap::new();
        for row in meta.range(..) {
            let (key, record) = match row {
                Ok(row) => row,
                Err(error) => {
                    self.damaged(None, "tree meta".into(), error);
                    break;
                }
            };
            self.report.records += u64::from(key != SYNC_KEY);
            match self.meta_record(&key, &record) {
                Ok(generation) => generations.extend(generation),
                Err(what) => {
                    let place = format!("tree meta, record {}", key.escape_ascii());
                    self.damaged(None, place, what);
                }
            }
        }
        generations
    }

    fn meta_record(&self, key: &[u8], record: &[u8]) -> Result<Option<(GroupId, u64)>, String> {
        let value = unseal(record).map_err(|error| error.to_string())?;
        if let Some(name) = key.strip_prefix(b"r/") {
            return self.verify.record(&String::from_utf8_lossy(name), value).map(|()| None);
        }
        let is_mark = key.starts_with(super::erase::MARK) && value.is_empty();
        if is_mark || key.starts_with(super::closed::MARK) {
            return Ok(None);
        }
        if key == SYNC_KEY && value.len() == 8 {
            return Ok(None);
        }
        let Some(group) = key.strip_prefix(b"g/") else {
            return Err("no record of that name is known".to_owned());
        };
        let number = |bytes: &[u8]| {
            let bytes = bytes.try_into().map_err(|_| "it is no generation of a group".to_owned());
            bytes.map(u64::from_be_bytes)
        };
        Ok(Some((GroupId(number(group)?), number(value)?)))
    }

    fn logs(&mut self, log: &Tree) -> BTreeMap<GroupId, LogExtent> {
        let mut extents = BTreeMap::new();
        let (groups, strange) = match log_groups(log) {
            Ok(found) => found,
            Err(error) => {
                self.damaged(None, "tree log".into(), error);
                return extents;
            }
        };
        for key in strange {
            let place = format!("tree log, record {}", key.escape_ascii());
            self.damaged(None, place, "its key is none of a log");
        }
        for group in groups {
            let (extent, damage) = check_log(log, group);
            for corrupt in damage {
                let place = format!("tree log, group {group}, entry {}", corrupt.index);
                self.damaged(Some(group), place, corrupt.what);
            }
            self.report.entries += extent.entries;
            self.groups.insert(group);
            extents.insert(group, extent);
        }
        extents
    }

    fn trees(&mut self, generations: &BTreeMap<GroupId, u64>, logs: &BTreeMap<GroupId, LogExtent>) {
        for name in self.rows.tree_names() {
            if let Some(side) = name.strip_prefix(SIDE_PREFIX) {
                // Of format 1.
                let opened = self.rows.tree(&name).map(|tree| (self.rows.clone(), tree));
                self.side(side, opened);
            } else if let Some((group, generation)) = group_of(&name) {
                let current = generations.get(&group).copied().unwrap_or(0);
                // Others are what an unfinished snapshot left; the next start drops them.
                if generation == current {
                    self.groups.insert(group);
                    self.group(group, generation, &name, logs.get(&group));
                }
            }
        }
    }

    fn group(&mut self, group: GroupId, generation: u64, name: &str, log: Option<&LogExtent>) {
        let place = |record: &str| format!("tree {name}, {record}");
        let opened = self.rows.tree(name).and_then(|tree| Ok((redo::read(&tree)?, tree)));
        let (last, tree) = match opened {
            Ok((last, tree)) => (last.unwrap_or_default(), tree),
            Err(error) => return self.damaged(Some(group), place("the last batch"), error),
        };
        let applied = last.applied.map_or(0, |at| at.index);
        let logged = log.and_then(|log| log.last).unwrap_or(0);
        let purged = log.and_then(|log| log.purged).unwrap_or(0);
        if applied < purged {
            let what =
                format!("the rows are at entry {applied}, the log begins after entry {purged}");
            self.damaged(Some(group), place("the last batch"), what);
        }
        if applied > logged {
            let what = format!("the rows are at entry {applied}, the log ends at entry {logged}");
            self.damaged(Some(group), place("the last batch"), what);
        }
        if self.rows(group, &tree, &place("its rows")) {
            let keyspace = Keyspace::new(group, Current::unopened(tree, generation, last.applied));
            if let Err(what) = self.verify.group(&keyspace) {
                self.damaged(Some(group), place("its rows"), what);
            }
        }
    }

    /// Reads every row; whether all are sound.
    fn rows(&mut self, group: GroupId, tree: &Tree, place: &str) -> bool {
        let mut sound = true;
        for row in tree.range(..) {
            let checked = row.and_then(|(key, record)| {
                let reserved = key.starts_with(value::RESERVED_PREFIX);
                // The last batch was read before; parts are read with their rows.
                if reserved && key != MEMBERSHIP_KEY {
                    return Ok(());
                }
                self.report.rows += u64::from(!reserved);
                let named = |error: io::Error| {
                    io::Error::new(error.kind(), format!("row {}: {error}", key.escape_ascii()))
                };
                value::read(tree, &key, &record).map(drop).map_err(named)
            });
            let Err(error) = checked else { continue };
            let what = error.to_string();
            // A page that the database cannot read would be met again for ever.
            let hopeless = names_damaged_file(&what);
            self.damaged(Some(group), place.to_owned(), what);
            sound = false;
            if hopeless {
                break;
            }
        }
        sound
    }

    /// The databases beside those of the store.
    fn sides(&mut self, dir: &Path) -> io::Result<()> {
        for name in side::names(dir)? {
            self.file = dir.join(side::file(&name));
            self.side(&name, side::open_database(dir, &name));
        }
        Ok(())
    }

    fn side(&mut self, name: &str, opened: io::Result<(Engine, Tree)>) {
        let checked = opened
            .map(|(engine, tree)| SideRows::unopened(engine, tree))
            .map_err(|error| error.to_string())
            .and_then(|rows| self.verify.side(name, &rows));
        match checked {
            Ok(damaged) => {
                for (record, what) in damaged {
                    self.damaged(None, format!("{name}, record {record}"), what);
                }
            }
            Err(what) => self.damaged(None, name.to_owned(), what),
        }
    }
}
