//! Terms that elections lead to. Each election raises the term of its group by one, so a term that
//! is far above the own one is no election's: it is a mistake or an attack, and taking it over
//! would leave the group without a leader for good once no larger one is left.

use std::time::{Duration, Instant};

use openraft::async_runtime::watch::WatchReceiver as _;
use parking_lot::Mutex;
use tonic::Status;

use super::Group;

/// A term that is further above the own one than this is refused: an election a millisecond would
/// need 49 days for it.
pub(crate) const MAX_TERM_JUMP: u64 = 1 << 32;

/// The log tells of refusals at most this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

static TOLD: Mutex<Option<Instant>> = Mutex::new(None);

fn is_plausible(own: u64, term: u64) -> bool {
    term.saturating_sub(own) <= MAX_TERM_JUMP
}

impl Group {
    /// Refuses a message of a term that no election leads to.
    pub(crate) fn check_term(&self, term: u64) -> Result<(), Status> {
        let own = self.raft().server_metrics().borrow_watched().vote.leader_id.term;
        if is_plausible(own, term) {
            return Ok(());
        }
        let group = self.id();
        let reason = format!(
            "term {term} of group {group} is no election's: this node is in term {own}, and a term \
             may be at most {MAX_TERM_JUMP} later"
        );
        let mut told = TOLD.lock();
        if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            *told = Some(Instant::now());
            tracing::error!("refused a message between nodes: {reason}");
        }
        Err(Status::failed_precondition(reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_jump_only_by_what_is_plausible() {
        assert!(is_plausible(7, 3) && is_plausible(0, 1_000_000));
        assert!(is_plausible(5, 5 + MAX_TERM_JUMP) && !is_plausible(5, 6 + MAX_TERM_JUMP));
        assert!(!is_plausible(0, u64::MAX));
        assert!(is_plausible(u64::MAX, u64::MAX));
    }
}
