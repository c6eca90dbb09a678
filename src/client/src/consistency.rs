//! What reads promise.

use keyviz_proto as proto;

/// What a read promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Consistency {
    /// The newest acknowledged value, confirmed with a quorum.
    #[default]
    Linearizable,
    /// The newest acknowledged value as long as clocks run at similar speed. Served by the leader
    /// without a round to the others.
    Lease,
    /// What the node asked has applied, possibly old.
    Stale,
}

impl From<Consistency> for proto::Consistency {
    fn from(consistency: Consistency) -> Self {
        match consistency {
            Consistency::Linearizable => proto::Consistency::Linearizable,
            Consistency::Lease => proto::Consistency::Lease,
            Consistency::Stale => proto::Consistency::Stale,
        }
    }
}
