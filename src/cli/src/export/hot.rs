//! The hot keys of an export: those of each column, or of the columns that were counted together.

use std::collections::BTreeSet;

use super::asking::Questions;
use super::record::{Counter, HotBounds, Kind, Record};
use super::scope::Scope;
use crate::CliError;
use keyviz_json::series_name;
use keyviz_proto as proto;

/// The times in which a series was counted.
#[derive(Default)]
pub(super) struct Times {
    reads: BTreeSet<(u64, u64)>,
    writes: BTreeSet<(u64, u64)>,
}

impl Times {
    /// Notes when operations of a row were counted.
    pub(super) fn note(&mut self, record: &Record) {
        let Some([reads, writes, ..]) = record.counts else { return };
        let time = (record.from_ms, record.to_ms);
        if reads > 0 {
            self.reads.insert(time);
        }
        if writes > 0 {
            self.writes.insert(time);
        }
    }

    /// The times by series, in order; times that overlap are one.
    fn asked(&self) -> Vec<(proto::Series, u64, u64)> {
        let mut asked: Vec<(proto::Series, u64, u64)> = Vec::new();
        let each = [(proto::Series::Reads, &self.reads), (proto::Series::Writes, &self.writes)];
        for (series, times) in each {
            let first = asked.len();
            for &(from_ms, to_ms) in times {
                match asked[first..].last_mut() {
                    Some((_, _, end_ms)) if *end_ms > from_ms => *end_ms = to_ms.max(*end_ms),
                    _ => asked.push((series, from_ms, to_ms)),
                }
            }
        }
        asked.sort_by_key(|(series, from_ms, _)| (*from_ms, *series as i32));
        asked
    }
}

/// The hot keys of these times; `None`: they are off.
///
/// # Errors
/// No node answers, or one refuses.
pub(super) async fn hot_keys(
    questions: &Questions<'_>,
    scope: &Scope,
    times: &Times,
    limit: u32,
) -> Result<Option<Vec<Record>>, CliError> {
    let mut records = Vec::new();
    for (series, from_ms, to_ms) in times.asked() {
        let request = proto::GetHotKeysRequest {
            series: series.into(),
            from_ms: Some(from_ms),
            to_ms: Some(to_ms),
            start: scope.start.clone(),
            end: scope.end.clone(),
            limit,
            by_node: !scope.dedup,
            points: 0,
        };
        let Some(answer) = questions.hot_keys(&request).await? else { return Ok(None) };
        let time =
            Record { partial: answer.partial, ..Record::of_time(Kind::HotKey, from_ms, to_ms) };
        for key in answer.keys {
            let bounds = HotBounds {
                series: series_name(series),
                key: key.key,
                lower: key.lower,
                upper: key.upper,
                bytes: Some(key.bytes),
            };
            if scope.dedup {
                records.push(Record { hot: Some(bounds), ..time.clone() });
                continue;
            }
            for node in key.nodes {
                let by = Counter { node: Some(node.id), ..Counter::default() };
                let (lower, upper) = (node.lower, node.upper);
                let bounds = HotBounds { lower, upper, bytes: None, ..bounds.clone() };
                records.push(Record { by, hot: Some(bounds), ..time.clone() });
            }
        }
    }
    Ok(Some(records))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_a_block_covers_are_asked_together() {
        let mut times = Times::default();
        let row = |from_ms, to_ms, counts| {
            let time = Record::of_time(Kind::Cell, from_ms, to_ms);
            Record { counts: Some(counts), ..time }
        };
        times.note(&row(0, 10, [1, 0, 9, 9]));
        times.note(&row(10, 20, [1, 2, 0, 0]));
        times.note(&row(10, 40, [3, 0, 0, 0]));
        times.note(&row(30, 40, [3, 0, 0, 0]));
        times.note(&row(40, 50, [0, 0, 1, 1]));
        let (reads, writes) = (proto::Series::Reads, proto::Series::Writes);
        let asked = [(reads, 0, 10), (reads, 10, 40), (writes, 10, 20)];
        assert_eq!(times.asked(), asked);
    }
}
