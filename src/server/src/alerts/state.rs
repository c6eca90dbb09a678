//! Which alerts fire: pure, from the columns of the history.
//!
//! An alert fires once its rule holds in `for_columns` columns in a row, and is resolved once it
//! does not in as many. It bears the start of the first column of its run, which every node reads
//! from the same history, so that a new leader goes on where the one before was: it knows which
//! alerts fire and up to which column they were judged, and judges the columns after that.

use std::collections::BTreeMap;

use keyviz_types::RouteId;

/// What an alert is about: a rule, and the route if it is about each.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct AlertKey {
    pub(crate) rule: String,
    pub(crate) route: Option<RouteId>,
}

/// An alert that fires, or that has ended and is still to be told.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Alert {
    /// End of the last column in which the rule held; `None`: it fires.
    pub(crate) ends_ms: Option<u64>,
    /// The rate in the last column that was judged.
    pub(crate) rate: f64,
    /// The firing was told.
    pub(crate) firing_told: bool,
}

/// All alerts, as every member is told them.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Alerts {
    /// End of the last column that was judged; 0: none.
    pub(crate) judged_ms: u64,
    /// With the start of the first column in which the rule holds.
    pub(crate) alerts: BTreeMap<(AlertKey, u64), Alert>,
}

/// A rule in one column.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Judged {
    pub(crate) start_ms: u64,
    pub(crate) end_ms: u64,
    /// A second.
    pub(crate) rate: f64,
    /// The rule holds.
    pub(crate) holds: bool,
    /// Counts may be missing, so that not to hold means nothing.
    pub(crate) partial: bool,
}

impl Alerts {
    /// Judges the columns after the last that was judged. `columns` are contiguous, oldest first,
    /// and begin `for_columns` before that, if the history does.
    pub(crate) fn judge(&mut self, key: &AlertKey, for_columns: u32, columns: &[Judged]) {
        let most = for_columns as usize;
        let first = columns.partition_point(|column| column.end_ms <= self.judged_ms);
        for at in first..columns.len() {
            let seen = &columns[..=at];
            let run = seen.iter().rev().take_while(|column| column.holds).count();
            let calm = |column: &&Judged| !column.holds && !column.partial;
            let without = seen.iter().rev().take_while(calm).count();
            let own = (key.clone(), 0)..=(key.clone(), u64::MAX);
            let last = self.alerts.range_mut(own).next_back().map(|(_, alert)| alert);
            match last.filter(|alert| alert.ends_ms.is_none()) {
                None if run >= most => {
                    let (ends_ms, rate) = (None, seen[at].rate);
                    let alert = Alert { ends_ms, rate, firing_told: false };
                    self.alerts.insert((key.clone(), seen[seen.len() - run].start_ms), alert);
                }
                Some(alert) if without >= most => {
                    alert.ends_ms = Some(seen[seen.len() - without].start_ms);
                    alert.rate = seen[at].rate;
                }
                Some(alert) => alert.rate = seen[at].rate,
                None => {}
            }
        }
    }

    /// What fires and what has ended, without rates.
    pub(crate) fn shape(&self) -> Vec<((AlertKey, u64), Option<u64>)> {
        self.alerts.iter().map(|(key, alert)| (key.clone(), alert.ends_ms)).collect()
    }

    /// Ends the alerts of what is no longer there: a route that was retired, a rule that is gone.
    pub(crate) fn end_unless(&mut self, now_ms: u64, exists: impl Fn(&AlertKey) -> bool) {
        for ((key, _), alert) in &mut self.alerts {
            if alert.ends_ms.is_none() && !exists(key) {
                alert.ends_ms = Some(now_ms);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> AlertKey {
        AlertKey { rule: "hot".to_owned(), route: None }
    }

    /// `#` holds, `.` does not, `?` does not and counts may be missing.
    fn columns(pattern: &str) -> Vec<Judged> {
        let column = |(at, held): (u64, char)| Judged {
            start_ms: at * 1_000,
            end_ms: (at + 1) * 1_000,
            rate: at as f64,
            holds: held == '#',
            partial: held == '?',
        };
        (0..).zip(pattern.chars()).map(column).collect()
    }

    /// The alert after each column, judged one by one by the same node.
    fn course(for_columns: u32, pattern: &str) -> Vec<Option<(u64, Option<u64>)>> {
        let (all, mut alerts) = (columns(pattern), Alerts::default());
        (1..=all.len())
            .map(|to| {
                alerts.judge(&key(), for_columns, &all[..to]);
                alerts.judged_ms = all[to - 1].end_ms;
                last(&alerts)
            })
            .collect()
    }

    /// Start and end of the newest alert.
    fn last(alerts: &Alerts) -> Option<(u64, Option<u64>)> {
        alerts.alerts.iter().next_back().map(|((_, starts_ms), alert)| (*starts_ms, alert.ends_ms))
    }

    #[test]
    fn an_alert_fires_after_so_many_columns_and_is_resolved_after_as_many() {
        let fired = |from| Some((from, None));
        let over = |from, to| Some((from, Some(to)));
        assert_eq!(course(1, ".#."), [None, fired(1_000), over(1_000, 2_000)]);
        assert_eq!(
            course(2, ".#.##.#.."),
            [
                None,
                None,
                None,
                None,
                fired(3_000),
                fired(3_000),
                fired(3_000),
                fired(3_000),
                over(3_000, 7_000)
            ]
        );
        assert_eq!(course(1, "#???"), [fired(0); 4], "missing counts resolve nothing");
    }

    /// However judging is divided among leaders, who each know what the one before has judged.
    #[test]
    fn a_leader_goes_on_where_the_one_before_was() {
        let pattern = "..###.##..####...#.#..##....";
        let all = columns(pattern);
        for for_columns in 1..4 {
            let whole = course(for_columns, pattern);
            for cut in 1..all.len() {
                let mut alerts = Alerts::default();
                alerts.judge(&key(), for_columns, &all[..cut]);
                alerts.judged_ms = all[cut - 1].end_ms;
                // The next leader reads the same history, and judges several columns at once.
                for to in [(cut + 3).min(all.len()), all.len()] {
                    alerts.judge(&key(), for_columns, &all[..to]);
                    alerts.judged_ms = all[to - 1].end_ms;
                    assert_eq!(last(&alerts), whole[to - 1], "{for_columns} cut at {cut} to {to}");
                }
            }
        }
    }

    #[test]
    fn the_alert_of_what_is_gone_ends() {
        let mut alerts = Alerts::default();
        alerts.judge(&key(), 1, &columns("#"));
        alerts.end_unless(5_000, |_| true);
        assert_eq!(last(&alerts), Some((0, None)));
        alerts.end_unless(5_000, |_| false);
        assert_eq!(last(&alerts), Some((0, Some(5_000))));
    }
}
