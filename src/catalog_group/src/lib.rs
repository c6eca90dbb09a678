//! The catalog's own Raft group: the one that is replicated like any other, and whose machine is the
//! route catalog. Knows Raft and the catalog, and nothing of clients or of the network.

mod disks;
mod group;
mod placement;

pub use disks::DiskChangeError;
pub use group::{CatalogChangeError, CatalogGroup, CatalogMachine, CatalogOutcome, PeerCatalog};
pub use placement::PlacementChangeError;
