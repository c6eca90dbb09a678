//! Verifies the groups one after the other, on the node that leads the catalog group.
//!
//! A period has as many turns as there are groups. Turns follow the time of day, so that whoever
//! leads goes on where its predecessor was, and a node that starts again and again verifies no more
//! often.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use keyviz_catalog_group::CatalogGroup;
use keyviz_fanout::Clock;
use keyviz_server::Verification;
use keyviz_types::GroupId;

/// Turns are not closer together than this.
const SHORTEST_TURN_MS: u64 = 200;

/// Time is looked at this often, since the clock may be set.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What verifying needs.
pub(crate) struct Verifier {
    /// All groups are verified in this time; zero: never.
    pub(crate) every: Duration,
    /// Bytes of rows a second that each replica reads.
    pub(crate) bytes_per_s: u64,
    pub(crate) verification: Arc<Verification>,
    pub(crate) catalog: Arc<CatalogGroup>,
    pub(crate) clock: Clock,
    pub(crate) stop: CancellationToken,
}

impl Verifier {
    /// Runs until stopped; not with a period of zero. On a node that does not lead the catalog
    /// group it only waits.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut turns = Turns::default();
        let mut led = false;
        loop {
            let groups = self.verification.group_ids();
            let turn_ms = turn_ms(self.every, groups.len());
            let turn = self.clock.now_ms() / turn_ms + 1;
            if !self.until(turn * turn_ms).await {
                return;
            }
            let leads = self.catalog.group().is_some_and(|group| group.is_leader());
            if led && !leads {
                // What was found is told by the one who finds it next.
                self.verification.forget();
                turns = Turns::default();
            }
            led = leads;
            if !leads || self.catalog.applied().cluster().is_none() {
                continue;
            }
            let Some(group) = turns.next(&groups, turn) else { continue };
            tokio::select! {
                report = self.verification.verify(group, self.bytes_per_s) => drop(report),
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Waits until it is that time; `false`: it was stopped.
    async fn until(&self, time_ms: u64) -> bool {
        loop {
            let left = Duration::from_millis(time_ms.saturating_sub(self.clock.now_ms()));
            if left.is_zero() {
                return !self.stop.is_cancelled();
            }
            tokio::select! {
                () = tokio::time::sleep(left.min(LOOK_EVERY)) => {}
                () = self.stop.cancelled() => return false,
            }
        }
    }
}

fn turn_ms(every: Duration, groups: usize) -> u64 {
    let every = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
    (every / groups.max(1) as u64).max(SHORTEST_TURN_MS)
}

/// Whose turn it is.
#[derive(Default)]
struct Turns {
    /// The last turn of each group.
    last: BTreeMap<GroupId, u64>,
}

impl Turns {
    /// The group whose turn was the longest ago. Of those that had none here, the one that the time
    /// is for: then none is left out where verifying takes longer than a turn.
    fn next(&mut self, groups: &[GroupId], turn: u64) -> Option<GroupId> {
        self.last.retain(|group, _| groups.contains(group));
        let count = groups.len().max(1) as u64;
        let first = (turn % count) as usize;
        let in_order = groups.iter().cycle().skip(first).take(groups.len());
        let next = in_order.min_by_key(|group| self.last.get(group).copied().unwrap_or(0)).copied();
        self.last.extend(next.map(|group| (group, turn)));
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_has_a_turn_for_each_group_whoever_leads() {
        let groups: Vec<GroupId> = (0..5).map(GroupId).collect();
        let mut turns = Turns::default();
        let mut seen: Vec<_> = (7..12).filter_map(|turn| turns.next(&groups, turn)).collect();
        assert_eq!(seen[0], GroupId(2), "the time says where to go on");
        // A leader that comes anew goes on where its predecessor was.
        let mut anew = Turns::default();
        assert_eq!(anew.next(&groups, 9), Some(seen[2]));
        seen.sort();
        assert_eq!(seen, groups);
        assert_eq!(Turns::default().next(&[], 3), None);
    }

    #[test]
    fn no_group_is_left_out_where_verifying_takes_longer_than_a_turn() {
        let groups: Vec<GroupId> = (0..4).map(GroupId).collect();
        let mut turns = Turns::default();
        // Every other turn only.
        let mut seen: Vec<_> = (0..4).filter_map(|n| turns.next(&groups, n * 2 + 1)).collect();
        seen.sort();
        assert_eq!(seen, groups);
    }

    #[test]
    fn turns_share_the_period_and_are_not_too_close_together() {
        assert_eq!(turn_ms(Duration::from_secs(86_400), 5), 86_400_000 / 5);
        assert_eq!(turn_ms(Duration::from_secs(1), 1_024), SHORTEST_TURN_MS);
        assert_eq!(turn_ms(Duration::from_secs(1), 0), 1_000);
    }
}
