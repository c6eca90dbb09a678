//! The loop that copies this node's history to others, and tends the copies that it keeps.

use std::sync::Arc;

use tokio::time::Instant;

use super::copier::{Copier, Pace, until_next};
use super::copy_keeper::{Keeper, TEND_EVERY};
use crate::folder::history_copies;

impl Copier {
    /// Sends until stopped.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut pace = Pace::new();
        let mut keeper = Keeper::new(Arc::clone(&self));
        let mut tended = None::<Instant>;
        loop {
            let wait = until_next(self.local.clock().now_ms());
            if tokio::time::timeout(wait, self.stop.cancelled()).await.is_ok() {
                return;
            }
            let (storage, local) = (self.storage.clone(), Arc::clone(&self.local));
            if keyviz_raft::blocking(move || history_copies::keep(&storage, &local)).await.is_err()
            {
                tracing::error!("opening the copies of other nodes' histories panicked");
                return;
            }
            let Some(members) = self.members() else { continue };
            self.send(&members, &mut pace).await;
            if tended.is_none_or(|at| at.elapsed() >= TEND_EVERY) {
                tended = Some(Instant::now());
                keeper.tend(&members).await;
            }
        }
    }
}
