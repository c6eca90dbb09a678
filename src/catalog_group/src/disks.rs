//! The disks of members in the catalog's log. The node that leads the catalog group records them.

use bytes::Bytes;
use keyviz_catalog::{DiskCommand, DiskError};
use keyviz_raft::ProposeError;
use keyviz_types::{DiskId, NodeId};

use super::group::CatalogGroup;
use super::replies;

/// Why a disk was not recorded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DiskChangeError {
    /// It was refused.
    #[error(transparent)]
    Refused(#[from] DiskError),
    /// It may or may not have happened, or cannot happen now.
    #[error("the record of the disk is not confirmed: {0}")]
    Unavailable(String),
}

impl CatalogGroup {
    /// Records the disk of a member, if this node leads the catalog group.
    ///
    /// # Errors
    /// The member is on record with another disk, or the outcome is unknown.
    pub async fn record_disk(&self, node: NodeId, disk: DiskId) -> Result<(), DiskChangeError> {
        let unavailable = |reason: String| DiskChangeError::Unavailable(reason);
        let command = DiskCommand::new(node, disk).encode();
        let command = command.map_err(|error| unavailable(error.to_string()))?;
        let group = self.group().ok_or_else(|| unavailable("there is no catalog group".into()))?;
        let proposed = group.propose(Bytes::from(command)).await;
        let proposed = proposed.map_err(|error: ProposeError| unavailable(error.to_string()))?;
        let recorded = replies::decode::<Result<(), DiskError>>(&proposed.reply);
        Ok(recorded.map_err(|error| unavailable(error.to_string()))??)
    }
}
