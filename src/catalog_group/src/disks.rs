//! The disks of members in the catalog's log. The node that leads the catalog group records them.

use bytes::Bytes;
use keyviz_catalog::{DiskCommand, DiskError};
use keyviz_raft::ProposeError;
use keyviz_types::{DiskId, NodeId};

use super::group::CatalogGroup;

/// Why a disk was not recorded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DiskChangeError {
    /// It was refused.
    #[error(transparent)]
    Refused(#[from] DiskError),
    /// It may or may not have happened, or cannot happen now.
    #[error("the disk was not recorded for certain: {0}")]
    Unavailable(String),
}

pub(super) fn encode_reply(outcome: &Result<(), DiskError>) -> Bytes {
    let bytes = bincode::encode_to_vec(outcome, bincode::config::standard());
    Bytes::from(bytes.expect("a number encodes into memory"))
}

fn decode_reply(reply: &[u8]) -> Result<Result<(), DiskError>, String> {
    let config = bincode::config::standard().with_limit::<256>();
    let (outcome, used) =
        bincode::decode_from_slice(reply, config).map_err(|error| error.to_string())?;
    if used == reply.len() { Ok(outcome) } else { Err("bytes after a reply".to_owned()) }
}

impl CatalogGroup {
    /// Records the disk of a member, if this node leads the catalog group.
    ///
    /// # Errors
    /// The member is on record with another disk, or nobody can tell whether it was recorded.
    pub async fn record_disk(&self, node: NodeId, disk: DiskId) -> Result<(), DiskChangeError> {
        let unavailable = |reason: String| DiskChangeError::Unavailable(reason);
        let command = DiskCommand::new(node, disk).encode();
        let command = command.map_err(|error| unavailable(error.to_string()))?;
        let group = self.group().ok_or_else(|| unavailable("there is no catalog group".into()))?;
        let proposed = group.propose(Bytes::from(command)).await;
        let proposed = proposed.map_err(|error: ProposeError| unavailable(error.to_string()))?;
        decode_reply(&proposed.reply).map_err(unavailable)?.map_err(DiskChangeError::from)
    }
}
