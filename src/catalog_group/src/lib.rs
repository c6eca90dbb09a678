//! The catalog's own Raft group: the one that is replicated like any other, and whose machine is
//! the route catalog. Depends on Raft and the catalog, but not on clients or the network.

mod disks;
mod group;
mod journal;
mod machine;
mod moves;
mod placement;
mod replies;

pub use disks::DiskChangeError;
pub use group::{CatalogChangeError, CatalogGroup, CatalogOutcome, PeerCatalog};
pub use machine::CatalogMachine;
pub use placement::PlacementChangeError;
