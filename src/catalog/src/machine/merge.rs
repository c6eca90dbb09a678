//! Merging two routes: why a merge is refused, and the change that it makes.

use super::error::CatalogError;
use super::state::Catalog;
use crate::routes::route::{Delta, DeltaKind};
use keyviz_types::{KeyRange, RouteId};

impl Catalog {
    /// The change that merges two live neighbours of one group.
    pub(crate) fn merge(
        &self,
        left_id: RouteId,
        right_id: RouteId,
        time_ms: u64,
    ) -> Result<Delta, CatalogError> {
        let (left, right) = (self.live(left_id)?, self.live(right_id)?);
        if left_id == right_id {
            return Err(CatalogError::SameRoute { route_id: left_id });
        }
        if left.range.end.as_ref() != Some(&right.range.start) {
            return Err(CatalogError::NotNeighbours { left_id, right_id });
        }
        if left.group != right.group {
            return Err(CatalogError::AcrossGroups {
                left_id,
                left_group: left.group,
                right_id,
                right_group: right.group,
            });
        }
        let range = KeyRange { start: left.range.start.clone(), end: right.range.end.clone() };
        self.replace(DeltaKind::Merge, &[left, right], vec![range], time_ms)
    }
}
