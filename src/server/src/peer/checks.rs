//! Checks that all calls of peers share.

use tonic::Status;

use keyviz_directory::Directory;
use keyviz_proto as proto;
use keyviz_types::NodeId;

/// Checks that a peer belongs to this cluster. While the first members start, either side may not
/// know its cluster yet.
pub(crate) fn check_cluster(directory: &Directory, theirs: &str) -> Result<(), Status> {
    let ours = directory.cluster_id();
    if theirs.is_empty() || ours.is_empty() || ours.as_str() == theirs {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "this node belongs to cluster {ours}, the caller to cluster {theirs}; check the addresses"
    )))
}

pub(crate) fn not_leader(leader: Option<NodeId>) -> proto::NotLeader {
    proto::NotLeader { leader: leader.map_or(0, |leader| leader.0) }
}
