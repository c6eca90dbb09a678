//! Publishes the terms in which this node leads groups to the sampler.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use keyviz_core::Sampler;
use keyviz_raft::Group;

/// Follows one group's leadership until it or the node stops.
pub(super) async fn follow(group: Arc<Group>, sampler: Arc<Sampler>, stop: CancellationToken) {
    let mut leadership = group.leadership();
    loop {
        let lead = leadership.borrow_and_update().leading;
        sampler.set_leader_terms(&[(group.id(), lead)]);
        tokio::select! {
            biased;
            changed = leadership.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = stop.cancelled() => return,
        }
    }
}
