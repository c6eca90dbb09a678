//! What a read promises.

use super::limits::InvalidRequest;

/// What a read promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Consistency {
    /// The newest acknowledged value, confirmed with a quorum.
    #[default]
    Linearizable,
    /// The newest acknowledged value while clocks run at similar speed: served by the leader under
    /// its lease.
    Lease,
    /// The state that this replica has applied.
    Stale,
}

impl TryFrom<i32> for Consistency {
    type Error = InvalidRequest;

    fn try_from(value: i32) -> Result<Self, InvalidRequest> {
        match value {
            0 => Ok(Consistency::Linearizable),
            1 => Ok(Consistency::Lease),
            2 => Ok(Consistency::Stale),
            value => Err(InvalidRequest::UnknownConsistency { value }),
        }
    }
}
