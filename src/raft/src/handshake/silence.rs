//! Members that do not answer, and when the log names them.
//!
//! All groups of a node talk to a member, each several times a second, so logging each failure
//! would produce thousands of lines a minute. The round of handshakes meets each member once and
//! logs one line: when a member has not answered twice in a row, then every [`TELL_EVERY`] with
//! what has changed since, and when it answers again.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use keyviz_types::NodeId;

/// The log names a member that stays silent this often.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Rounds in a row that a member may miss unnoticed: one, in which it may just be restarting.
const UNNOTICED: u64 = 1;

/// The silent members.
#[derive(Debug, Default)]
pub(super) struct Silences(Mutex<BTreeMap<NodeId, Silence>>);

#[derive(Debug)]
struct Silence {
    since: Instant,
    /// Rounds in a row without an answer.
    rounds: u64,
    told: Option<Instant>,
}

/// The lines of the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tell {
    Silent,
    StillSilent { seconds: u64, rounds: u64 },
    Back { seconds: u64 },
}

impl Silences {
    /// A member did not answer.
    pub(super) fn missed(&self, node: NodeId, now: Instant) -> Option<Tell> {
        let mut silences = self.0.lock();
        let fresh = || Silence { since: now, rounds: 0, told: None };
        let silence = silences.entry(node).or_insert_with(fresh);
        silence.rounds += 1;
        if silence.rounds <= UNNOTICED {
            return None;
        }
        let told = silence.told;
        if told.is_some_and(|told| now.saturating_duration_since(told) < TELL_EVERY) {
            return None;
        }
        silence.told = Some(now);
        let seconds = now.saturating_duration_since(silence.since).as_secs();
        let rounds = silence.rounds;
        Some(if told.is_none() { Tell::Silent } else { Tell::StillSilent { seconds, rounds } })
    }

    /// A member answered.
    pub(super) fn answered(&self, node: NodeId, now: Instant) -> Option<Tell> {
        let silence = self.0.lock().remove(&node)?;
        silence.told?;
        Some(Tell::Back { seconds: now.saturating_duration_since(silence.since).as_secs() })
    }

    /// Whether a member missed the last round.
    pub(super) fn is_silent(&self, node: NodeId) -> bool {
        self.0.lock().contains_key(&node)
    }

    /// Former members are forgotten.
    pub(super) fn keep(&self, members: &BTreeMap<NodeId, String>) {
        self.0.lock().retain(|node, _| members.contains_key(node));
    }
}

/// Writes it into the log.
pub(super) fn tell(node: NodeId, address: &str, tell: Tell, why: &str) {
    match tell {
        Tell::Silent => tracing::warn!("node {node} at {address} does not answer: {why}"),
        Tell::StillSilent { seconds, rounds } => tracing::warn!(
            "node {node} at {address} has not answered for {seconds} s, {rounds} times: {why}"
        ),
        Tell::Back { seconds } => {
            tracing::info!("node {node} at {address} answers again, after {seconds} s");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_member_that_is_down_is_named_once_then_once_a_minute_and_when_it_is_back() {
        let silences = Silences::default();
        let node = NodeId(2);
        let mut said = Vec::new();
        for _ in 0..130 {
            said.extend(silences.missed(node, Instant::now()));
            assert!(silences.is_silent(node));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let still = |seconds, rounds| Tell::StillSilent { seconds, rounds };
        assert_eq!(said, [Tell::Silent, still(61, 62), still(121, 122)]);
        let back = silences.answered(node, Instant::now());
        assert_eq!(back, Some(Tell::Back { seconds: 130 }));
        assert!(!silences.is_silent(node));
        assert_eq!(silences.answered(node, Instant::now()), None);
        // A restart that takes less than two rounds is not worth a line.
        assert_eq!(silences.missed(node, Instant::now()), None);
        assert_eq!(silences.answered(node, Instant::now()), None);
    }
}
