//! The recorded disk of each member.
//!
//! A member is a node id and a disk. The leader of the catalog group records the disk of a member
//! once it has identified it; from then on every node refuses another disk under its id. It records
//! nothing before every member presents its disk, because a version without disk ids could not read
//! the record.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};

use super::placement::Placement;
use crate::limits::MAX_COMMAND_BYTES;
use crate::machine::codec::{self, CodecError, Kind};
use keyviz_types::{DiskId, NodeId};

/// The recorded disks.
#[derive(Clone, PartialEq, Eq, Default, Debug, Encode, Decode)]
pub struct Disks {
    by_node: BTreeMap<NodeId, [u8; 16]>,
}

/// Records the disk of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct DiskCommand {
    node: NodeId,
    disk: [u8; 16],
}

/// Why a disk was not recorded. Nothing changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Encode, Decode)]
pub enum DiskError {
    /// There is no cluster yet.
    #[error("the cluster is not bootstrapped")]
    NotBootstrapped,
    /// The member has another disk.
    #[error("node {node} is on record with another disk; ids are never used again")]
    InUse {
        /// The member.
        node: NodeId,
    },
    /// The node has left.
    #[error("node {node} has left this cluster and its id is never used again")]
    Gone {
        /// The node.
        node: NodeId,
    },
}

impl DiskCommand {
    /// That `node` has `disk`.
    pub fn new(node: NodeId, disk: DiskId) -> Self {
        DiskCommand { node, disk: disk.0 }
    }

    /// Bytes for the log.
    ///
    /// # Errors
    /// [`CodecError::TooLarge`], which its size rules out.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode::<MAX_COMMAND_BYTES, _>(Kind::Disk, self)
    }

    /// The command in `bytes`; `None` for bytes of another kind of command.
    pub fn decode(bytes: &[u8]) -> Option<Result<Self, CodecError>> {
        (bytes.first() == Some(&(Kind::Disk as u8)))
            .then(|| codec::decode::<MAX_COMMAND_BYTES, _>(Kind::Disk, bytes))
    }
}

impl Disks {
    /// The recorded disk of a node.
    pub fn get(&self, node: NodeId) -> Option<DiskId> {
        self.by_node.get(&node).copied().map(DiskId)
    }

    /// All of them.
    pub fn all(&self) -> BTreeMap<NodeId, DiskId> {
        self.by_node.iter().map(|(node, disk)| (*node, DiskId(*disk))).collect()
    }

    /// Whether none was recorded yet.
    pub fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }

    /// The disks after a command. Those of departed nodes are dropped, because their ids alone are
    /// refused.
    ///
    /// # Errors
    /// Every reason that it can be refused for.
    pub fn after(&self, command: &DiskCommand, placement: &Placement) -> Result<Self, DiskError> {
        let DiskCommand { node, disk } = *command;
        if placement.is_gone(node) {
            return Err(DiskError::Gone { node });
        }
        if self.by_node.get(&node).is_some_and(|known| *known != disk) {
            return Err(DiskError::InUse { node });
        }
        let mut next = self.clone();
        next.by_node.insert(node, disk);
        next.by_node.retain(|node, _| !placement.is_gone(*node));
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durable_identity_of_a_disk_is_recorded_once_and_never_replaced() {
        let command = |node, disk| DiskCommand::new(NodeId(node), DiskId([disk; 16]));
        let placement = Placement::default();
        let disks = Disks::default().after(&command(1, 7), &placement).expect("nothing is known");
        assert_eq!(disks.get(NodeId(1)), Some(DiskId([7; 16])));
        assert_eq!(disks.after(&command(1, 7), &placement), Ok(disks.clone()), "again");
        let refused = disks.after(&command(1, 8), &placement);
        assert_eq!(refused, Err(DiskError::InUse { node: NodeId(1) }));
        let bytes = command(1, 7).encode().expect("it is small");
        assert_eq!(DiskCommand::decode(&bytes), Some(Ok(command(1, 7))));
        assert_eq!(DiskCommand::decode(b"C"), None);
    }
}
