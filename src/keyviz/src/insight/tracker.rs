//! Findings over time. A finding that goes on keeps its id and its beginning, however its range
//! drifts from column to column; one that is not found any more is resolved, with the time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::finding::{Finding, FindingId, Kind, MAX_FINDINGS, rank};
use super::load::overlap;

/// Most resolved findings that are kept: the newest.
pub const MAX_RESOLVED: usize = 1_024;

/// Keeps findings from one analysis to the next.
#[derive(Clone, Default, Debug)]
pub struct Tracker {
    /// With the time at which each was found last.
    open: BTreeMap<FindingId, (Finding, u64)>,
    resolved: VecDeque<Finding>,
    /// Ids that were given before get a number.
    given: u64,
    /// The time of the last look.
    seen_ms: u64,
}

impl Tracker {
    /// Nothing was found yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The time of the last look; 0: there was none.
    pub fn seen_ms(&self) -> u64 {
        self.seen_ms
    }

    /// What goes on, the largest first.
    pub fn open(&self) -> Vec<Finding> {
        let mut open: Vec<Finding> =
            self.open.values().map(|(finding, _)| finding.clone()).collect();
        rank(&mut open, MAX_FINDINGS);
        open
    }

    /// What was found at the last look, the largest first: of what is open, nothing that lingers.
    pub fn current(&self) -> Vec<Finding> {
        let seen = self.open.values().filter(|(_, last_ms)| *last_ms == self.seen_ms);
        let mut current: Vec<Finding> = seen.map(|(finding, _)| finding.clone()).collect();
        rank(&mut current, MAX_FINDINGS);
        current
    }

    /// What has ended, the oldest first.
    pub fn resolved(&self) -> impl Iterator<Item = &Finding> {
        self.resolved.iter()
    }

    /// Takes what an analysis at `now_ms` found. What was open and has not been found for
    /// `linger_ms` is resolved as of the time at which it was found last. A clock that goes back
    /// resolves nothing.
    pub fn observe(&mut self, mut found: Vec<Finding>, now_ms: u64, linger_ms: u64) {
        rank(&mut found, MAX_FINDINGS);
        self.seen_ms = self.seen_ms.max(now_ms);
        let mut taken: BTreeSet<FindingId> = BTreeSet::new();
        for mut finding in found {
            match self.same(&finding, &taken) {
                Some(id) => {
                    let known = &self.open[&id].0;
                    // The beginning may scroll out of the load that is looked at.
                    if known.since.at_ms < finding.since.at_ms {
                        finding.since = known.since;
                    }
                    finding.id = id;
                }
                None => finding.id = self.new_id(finding.id),
            }
            taken.insert(finding.id);
            self.open.insert(finding.id, (finding, now_ms));
        }
        // Parts of what is found as one again have not ended.
        let part = |known: &Finding| {
            let whole = |id| self.open.get(id).is_some_and(|(found, _)| goes_on(known, found));
            !taken.contains(&known.id) && taken.iter().any(whole)
        };
        let parts = self.open.values().map(|(known, _)| known).filter(|known| part(known));
        for id in parts.map(|known| known.id).collect::<Vec<FindingId>>() {
            self.open.remove(&id);
        }
        let ended = |(finding, last_ms): &(Finding, u64)| {
            !taken.contains(&finding.id) && now_ms.saturating_sub(*last_ms) >= linger_ms
        };
        let ended: Vec<FindingId> =
            self.open.values().filter(|known| ended(known)).map(|known| known.0.id).collect();
        for id in ended {
            let Some((mut finding, last_ms)) = self.open.remove(&id) else { continue };
            finding.resolved_ms = Some(last_ms);
            self.resolved.push_back(finding);
        }
        self.bound();
    }

    /// Lingering ones that rank lowest make room.
    fn bound(&mut self) {
        while self.resolved.len() > MAX_RESOLVED {
            self.resolved.pop_front();
        }
        if self.open.len() <= MAX_FINDINGS {
            return;
        }
        let kept: BTreeSet<FindingId> = self.open().into_iter().map(|kept| kept.id).collect();
        self.open.retain(|id, _| kept.contains(id));
    }

    /// The oldest open finding that goes on in `finding`.
    fn same(&self, finding: &Finding, taken: &BTreeSet<FindingId>) -> Option<FindingId> {
        let candidates = self.open.values().map(|(known, _)| known);
        candidates
            .filter(|known| !taken.contains(&known.id) && goes_on(known, finding))
            .min_by_key(|known| (known.since.at_ms, known.id))
            .map(|known| known.id)
    }

    fn new_id(&mut self, wanted: FindingId) -> FindingId {
        let mut id = wanted;
        while self.open.contains_key(&id) || self.resolved.iter().any(|known| known.id == id) {
            self.given = self.given.wrapping_add(1);
            id = FindingId(wanted.0.wrapping_add(self.given.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        }
        id
    }
}

fn goes_on(known: &Finding, finding: &Finding) -> bool {
    known.kind == finding.kind
        && match finding.kind {
            Kind::OneKey => known.key == finding.key,
            Kind::UnevenLeaders => known.nodes == finding.nodes,
            Kind::UnevenGroups | Kind::ReadHeavy => known.groups == finding.groups,
            Kind::ColdSplits => {
                known.groups == finding.groups && overlap(&known.range, &finding.range)
            }
            _ => overlap(&known.range, &finding.range),
        }
}
