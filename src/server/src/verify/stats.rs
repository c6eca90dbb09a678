//! Results of verifications, for the metrics.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use keyviz_types::GroupId;

use super::verdict::{GroupReport, Verdict};

/// The results of this node's verifications.
#[derive(Clone, Default, Debug)]
pub(crate) struct Totals {
    /// Verifications of a group, by result.
    pub(crate) runs: [(&'static str, u64); 3],
    /// Groups whose replicas were compared.
    pub(crate) compared: BTreeMap<GroupId, Compared>,
}

/// The last comparison of a group's replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Compared {
    /// Replicas with other rows than the majority, or than other replicas if there is no majority.
    pub(crate) differing: u64,
    /// When, in milliseconds since 1970.
    pub(crate) at_ms: u64,
}

#[derive(Default)]
pub(crate) struct Stats {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    agree: u64,
    differ: u64,
    incomplete: u64,
    compared: BTreeMap<GroupId, Compared>,
}

impl Stats {
    /// Records a verification. An incomplete one does not change the number of differing replicas.
    pub(crate) fn note(&self, report: &GroupReport, at_ms: u64) {
        let mut inner = self.inner.lock();
        match report.verdict {
            Verdict::Agree => inner.agree += 1,
            Verdict::Differ { .. } => inner.differ += 1,
            Verdict::Incomplete => {
                inner.incomplete += 1;
                return;
            }
        }
        let differing = report.differing().len() as u64;
        inner.compared.insert(report.group, Compared { differing, at_ms });
    }

    pub(crate) fn forget(&self) {
        self.inner.lock().compared.clear();
    }

    pub(crate) fn totals(&self) -> Totals {
        let inner = self.inner.lock();
        Totals {
            runs: [
                ("agree", inner.agree),
                ("differ", inner.differ),
                ("incomplete", inner.incomplete),
            ],
            compared: inner.compared.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::verdict::NoDigest;
    use super::*;
    use keyviz_raft::RowsDigest;
    use keyviz_types::NodeId;

    fn report(digests: &[Option<u128>]) -> GroupReport {
        let given = digests.iter().map(|digest| {
            let digest = digest.ok_or_else(|| NoDigest::Failed("no answer".to_owned()))?;
            Ok(RowsDigest { index: 1, digest, rows: 1, bytes: 1 })
        });
        GroupReport::new(GroupId(3), 1, (1..).map(NodeId).zip(given).collect())
    }

    #[test]
    fn an_incomplete_verification_does_not_clear_what_was_found() {
        let stats = Stats::default();
        stats.note(&report(&[Some(1), Some(2), Some(1)]), 10);
        stats.note(&report(&[Some(1), None, Some(1)]), 20);
        let totals = stats.totals();
        assert_eq!(totals.runs, [("agree", 0), ("differ", 1), ("incomplete", 1)]);
        assert_eq!(totals.compared[&GroupId(3)], Compared { differing: 1, at_ms: 10 });
        stats.note(&report(&[Some(1), Some(1), Some(1)]), 30);
        assert_eq!(stats.totals().compared[&GroupId(3)], Compared { differing: 0, at_ms: 30 });
        stats.forget();
        assert!(stats.totals().compared.is_empty());
        assert_eq!(stats.totals().runs[0], ("agree", 1), "counters only grow");
    }
}
