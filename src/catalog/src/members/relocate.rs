//! A catalog on other nodes: the initial catalog of a restored cluster.

use super::cluster::{ClusterId, ClusterRecord, PlacementError, check_placement};
use super::plan::place;
use crate::machine::records::put_cluster;
use crate::machine::state::Catalog;
use keyviz_types::NodeId;

/// A catalog on other nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relocated {
    /// Its cluster record.
    pub cluster: ClusterRecord,
    /// All of its records, by key.
    pub records: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A catalog that cannot be put on other nodes.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RelocateError {
    /// It was never bootstrapped.
    #[error("the catalog has no cluster")]
    NoCluster,
    /// There is no node to hold its groups.
    #[error("a cluster needs at least one member")]
    NoMembers,
    /// The members cannot hold its groups.
    #[error(transparent)]
    Placement(#[from] PlacementError),
}

impl Catalog {
    /// The same catalog on `members`, with `replication` replicas a group. Routes, ids, lineage,
    /// changes and version stay; the groups go round the members as at a bootstrap.
    ///
    /// # Errors
    /// There is no cluster, or the members cannot hold its groups.
    pub fn relocated(
        &self,
        cluster_id: ClusterId,
        members: &[NodeId],
        replication: usize,
    ) -> Result<Relocated, RelocateError> {
        let old = self.cluster().ok_or(RelocateError::NoCluster)?;
        if members.is_empty() {
            return Err(RelocateError::NoMembers);
        }
        let groups = place(members, old.groups.len(), replication.min(members.len()));
        check_placement(&groups)?;
        let cluster = ClusterRecord { cluster_id, created_ms: old.created_ms, groups };
        let record = put_cluster(&cluster);
        // Where the groups were moved since the bootstrap is of the old nodes, too, and so are
        // disks.
        let of_nodes: [&[u8]; 3] = [b"c", b"p", b"i"];
        let kept = self.records().filter(|(key, _)| !of_nodes.contains(&key.as_slice()));
        let mut records: Vec<_> =
            kept.chain(record.value.map(|value| (record.key, value))).collect();
        records.sort();
        Ok(Relocated { cluster, records })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Retention;
    use crate::{CatalogCommand, plan_bootstrap};
    use keyviz_types::RouteId;

    #[test]
    fn durable_identity_a_catalog_on_other_nodes_keeps_routes_ids_lineage_and_version() {
        let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
        let plan = plan_bootstrap(&nodes(&[1, 2, 3]), 4, 3, &[]).expect("a sound plan");
        let mut old = Catalog::new(Retention::DEFAULT);
        old.apply(plan.command(ClusterId([1; 16]), 1_000)).expect("it is empty");
        let split = CatalogCommand::Split {
            route_id: RouteId::FIRST,
            key: b"!".to_vec(),
            expected_version: 0,
            request_id: String::new(),
            time_ms: 2_000,
        };
        old.apply(split).expect("the first route begins before '!'");

        let id = ClusterId([2; 16]);
        let relocated = old.relocated(id, &nodes(&[5, 6]), 3).expect("two nodes hold it");
        let Relocated { cluster, records } = relocated;
        assert_eq!((cluster.cluster_id, cluster.created_ms, cluster.groups.len()), (id, 1_000, 4));
        assert_eq!(cluster.groups[1].replicas, nodes(&[6, 5]));
        let new = Catalog::load(records, Retention::DEFAULT).expect("a sound catalog");
        assert_eq!(new.cluster().map(AsRef::as_ref), Some(&cluster));
        assert_eq!(new.table(), old.table());
        assert_eq!(new.version(), old.version());
        assert!(new.lineage().eq(old.lineage()) && new.log().eq(old.log()));

        assert_eq!(
            Catalog::new(Retention::DEFAULT).relocated(id, &nodes(&[1]), 1),
            Err(RelocateError::NoCluster)
        );
        assert_eq!(old.relocated(id, &[], 1), Err(RelocateError::NoMembers));
        assert!(matches!(old.relocated(id, &nodes(&[1]), 0), Err(RelocateError::Placement(_))));
    }
}
