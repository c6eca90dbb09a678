//! Changes of the placement in the catalog's log. Only the node that leads the catalog group makes
//! them, so they are proposed here and never passed on.

use std::time::Duration;

use bytes::Bytes;

use keyviz_catalog::{PlaceChange, PlaceCommand, PlaceError};
use keyviz_types::NodeId;

use keyviz_raft::{KnownLeader, ProposeError, ReadError};

use super::group::CatalogGroup;
use super::replies;

/// Time limit for the catalog to apply committed entries.
const APPLY_WITHIN: Duration = Duration::from_secs(5);

/// Why the placement did not change.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlacementChangeError {
    /// It was refused.
    #[error(transparent)]
    Refused(#[from] PlaceError),
    /// Another node leads the catalog group, or none.
    #[error("this node does not lead the catalog group")]
    NotLeader(Option<NodeId>),
    /// It may or may not have happened, or cannot happen now.
    #[error("the change of the placement is not confirmed: {0}")]
    Unavailable(String),
}

impl CatalogGroup {
    /// Changes the placement that this node has applied, if it leads the catalog group.
    pub async fn place(&self, change: PlaceChange) -> Result<(), PlacementChangeError> {
        let expected = self.applied().placement().revision();
        self.place_at(expected, change).await
    }

    /// The same, decided on the placement of this revision.
    pub async fn place_at(
        &self,
        expected: u64,
        change: PlaceChange,
    ) -> Result<(), PlacementChangeError> {
        let unavailable = |reason: String| PlacementChangeError::Unavailable(reason);
        let command = PlaceCommand { expected, change };
        let bytes = command.encode().map_err(|error| unavailable(error.to_string()))?;
        let group = self.group().ok_or(PlacementChangeError::NotLeader(None))?;
        match group.propose(Bytes::from(bytes)).await {
            Ok(proposed) => {
                let outcome = replies::decode::<Result<u64, PlaceError>>(&proposed.reply);
                outcome.map_err(|error| unavailable(error.to_string()))?.map(drop)?;
                Ok(())
            }
            Err(ProposeError::NotLeader { leader }) => {
                Err(PlacementChangeError::NotLeader(id_of(&leader)))
            }
            Err(error) => Err(unavailable(error.to_string())),
        }
    }

    /// Waits until everything that the catalog group agreed on before the call is applied here, and
    /// a majority has said that this node leads. A new leader then decides on the state that its
    /// predecessor left.
    pub async fn confirm_leading(&self) -> Result<(), PlacementChangeError> {
        let group = self.group().ok_or(PlacementChangeError::NotLeader(None))?;
        let confirmed = async {
            let index = group.read_index().await?;
            group.wait_applied(index, APPLY_WITHIN).await
        };
        confirmed.await.map_err(|error| match error {
            ReadError::NotLeader { leader } => PlacementChangeError::NotLeader(id_of(&leader)),
            error => PlacementChangeError::Unavailable(error.to_string()),
        })
    }
}

fn id_of(leader: &KnownLeader) -> Option<NodeId> {
    leader.as_ref().map(|(leader, _)| NodeId(*leader))
}
