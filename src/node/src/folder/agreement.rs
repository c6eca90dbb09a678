//! Whether the folders of stopped nodes can be of one history.
//!
//! A disk that went back to an older state votes as if it were current. Where its node and another
//! formed a majority, they may have replaced entries that were acknowledged before. A later term
//! says nothing about which entries are complete then, so what is to be saved is for an operator to
//! choose.

use std::io;
use std::path::PathBuf;

use keyviz_raft::{Doubt, LogPosition, StoppedNode, SurvivingReplica, Survivor};
use keyviz_types::{DiskId, GroupId, NodeId};

/// A stopped node.
pub(super) struct Stopped<'a> {
    pub(super) folder: &'a PathBuf,
    pub(super) node: NodeId,
    pub(super) disk: Option<DiskId>,
    pub(super) survivor: &'a Survivor,
}

/// Why folders cannot be used together.
#[derive(Debug, thiserror::Error)]
pub enum Disagreement {
    /// Another folder knows that this one went back, or is on another disk.
    #[error(
        "{} cannot be used together with {}: {doubt}", .folder.display(), .by.display()
    )]
    WentBack {
        /// The folder.
        folder: PathBuf,
        /// The folder whose node knows it.
        by: PathBuf,
        /// What it knows.
        doubt: Doubt,
    },
    /// The cluster had refused the node of this folder.
    #[error("{} cannot be used together with others: {reason}", .folder.display())]
    Refused {
        /// The folder.
        folder: PathBuf,
        /// Why it was refused.
        reason: String,
    },
    /// A log that ends later contradicts another.
    #[error(
        "{} has entry {} (term {}) of Raft group {group}, and the log in {}, which ends later \
         (entry {}, term {}), has another entry there, or lacks it though it was committed",
        .folder.display(), .entry.index, .entry.term, .later.display(), .last.index, .last.term
    )]
    Replaced {
        /// The group.
        group: GroupId,
        /// The folder with the entry.
        folder: PathBuf,
        /// The entry.
        entry: LogPosition,
        /// The folder whose log ends later.
        later: PathBuf,
        /// Where it ends.
        last: LogPosition,
    },
}

/// Checks every pair of nodes.
///
/// # Errors
/// The records cannot be read, or `Ok(Err(_))`: two nodes disagree.
pub(super) fn of_nodes(nodes: &[Stopped<'_>]) -> io::Result<Result<(), Disagreement>> {
    let read = nodes.iter().map(|stopped| StoppedNode::of(stopped.survivor.storage()));
    let records: Vec<StoppedNode> = read.collect::<io::Result<_>>()?;
    for (stopped, record) in nodes.iter().zip(&records) {
        let folder = stopped.folder;
        for (by, knows) in nodes.iter().zip(&records).filter(|(by, _)| by.node != stopped.node) {
            let Some(disk) = stopped.disk else { continue };
            if let Err(doubt) = knows.knew(stopped.node, disk, record) {
                let (folder, by) = (folder.clone(), by.folder.clone());
                return Ok(Err(Disagreement::WentBack { folder, by, doubt }));
            }
        }
        if let Some(reason) = record.refused.clone().filter(|_| nodes.len() > 1) {
            return Ok(Err(Disagreement::Refused { folder: folder.clone(), reason }));
        }
    }
    Ok(Ok(()))
}

/// Checks that the log which ends last contradicts no other replica of the group.
///
/// # Errors
/// A log cannot be read, or `Ok(Err(_))`: it does.
pub(super) async fn of_group(
    group: GroupId,
    (later, survivor, replica): (&PathBuf, &Survivor, SurvivingReplica),
    others: &[Stopped<'_>],
) -> io::Result<Result<(), Disagreement>> {
    for other in others.iter().filter(|other| other.folder != later) {
        if let Some(entry) = survivor.contradicts(group, other.survivor).await? {
            let (folder, later, last) = (other.folder.clone(), later.clone(), replica.last);
            return Ok(Err(Disagreement::Replaced { group, folder, entry, later, last }));
        }
    }
    Ok(Ok(()))
}
