//! The parts of a fan-out.

use std::sync::Arc;
use std::time::Duration;

use keyviz_catalog::AppliedCatalog;
use keyviz_core::NodeId;
use keyviz_directory::Directory;

use super::local::LocalMatrix;
use super::peers::PeerMatrix;

/// The parts of a fan-out.
pub struct FanoutParts {
    /// This node.
    pub node: NodeId,
    /// Its own counts.
    pub local: Arc<LocalMatrix>,
    /// The other members.
    pub directory: Arc<Directory>,
    /// The routes, as they are and were.
    pub catalog: AppliedCatalog,
    /// How to ask them.
    pub peers: Arc<dyn PeerMatrix>,
    /// How long they may take.
    pub deadline: Duration,
}
