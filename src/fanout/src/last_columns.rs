//! The newest columns, for whoever decides on them.
//!
//! A block is what was counted for several rows together, as a range was that has just become hot.
//! Spread over its rows it would look even, and a decision on it would move the wrong keys, so
//! columns that are blocks for a good part are left out.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use keyviz_core::insight::Load;
use keyviz_core::{NodeId, Series};

use super::findings::{Findings, FindingsError, FindingsRequest, load};
use super::request::MatrixAnswer;

/// Part of a column's operations that may be in blocks of several rows.
const BLURRED: f64 = 0.1;

/// The counts of some columns.
#[derive(Clone, Debug)]
pub struct LastColumns {
    /// By range and column.
    pub load: Load,
    /// What each member served.
    pub nodes: BTreeMap<NodeId, ServedCounts>,
    /// A member did not answer.
    pub partial: bool,
    /// When it was asked, as Unix milliseconds.
    pub now_ms: u64,
}

/// Operations and bytes that a member served.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ServedCounts {
    /// Reads and writes.
    pub operations: u64,
    /// Of both.
    pub bytes: u64,
}

impl Findings {
    /// The counts of the last columns on one axis, without those up to the last one of which much
    /// was not told apart. Hot keys are not asked for.
    ///
    /// # Errors
    /// As [`Fanout::cluster`](super::Fanout::cluster).
    pub fn last_columns(&self, count: u64) -> BoxFuture<'_, Result<LastColumns, FindingsError>> {
        async move {
            let (now_ms, step_ms) = (self.now_ms(), self.step_ms());
            let from_ms = (now_ms - now_ms % step_ms).saturating_sub(count * step_ms);
            let (mut counted, matrices) = self.count(Some(from_ms), None).await?;
            let sharp = first_sharp(&matrices);
            counted.load.drop_first(sharp);
            Ok(counted)
        }
        .boxed()
    }

    /// The counts of a window; what each member served is that of the whole window.
    ///
    /// # Errors
    /// As [`Fanout::cluster`](super::Fanout::cluster).
    pub fn counted(
        &self,
        from_ms: Option<u64>,
        to_ms: Option<u64>,
    ) -> BoxFuture<'_, Result<LastColumns, FindingsError>> {
        async move { Ok(self.count(from_ms, to_ms).await?.0) }.boxed()
    }

    async fn count(
        &self,
        from_ms: Option<u64>,
        to_ms: Option<u64>,
    ) -> Result<(LastColumns, Vec<Arc<MatrixAnswer>>), FindingsError> {
        let (start, end) = (Bytes::new(), None);
        let request = FindingsRequest { from_ms, to_ms, start, end, max_findings: 0 };
        let (matrices, _) = self.matrices(&request).await?;
        let whole = matrices.iter().min_by_key(|answer| answer.matrix.responded);
        let mut nodes: BTreeMap<NodeId, ServedCounts> = BTreeMap::new();
        for answer in &matrices {
            let matrix = &answer.matrix;
            for share in matrix.by_node.iter().filter(|_| matrix.role.is_none()) {
                let of = nodes.entry(share.node).or_default();
                match matrix.series {
                    Series::Reads | Series::Writes => of.operations += share.total,
                    Series::ReadBytes | Series::WriteBytes => of.bytes += share.total,
                }
            }
        }
        let counted = LastColumns {
            partial: whole.is_none_or(|answer| answer.matrix.responded < answer.matrix.expected),
            load: load(&matrices).map_err(FindingsError::Changed)?,
            nodes,
            now_ms: self.now_ms(),
        };
        Ok((counted, matrices))
    }
}

/// The column after the last of which much was counted for several rows together.
fn first_sharp(matrices: &[Arc<MatrixAnswer>]) -> usize {
    let Some(columns) = matrices.first().map(|answer| answer.matrix.columns.len()) else {
        return 0;
    };
    let (mut all, mut blurred) = (vec![0.0; columns], vec![0.0; columns]);
    let operations = |answer: &&Arc<MatrixAnswer>| {
        let matrix = &answer.matrix;
        matches!(matrix.series, Series::Reads | Series::Writes) && matrix.role.is_none()
    };
    for answer in matrices.iter().filter(operations) {
        for row in &answer.matrix.rows {
            all.iter_mut().zip(&row.values).for_each(|(sum, value)| *sum += *value as f64);
        }
        for block in &answer.matrix.blocks {
            let first = block.column as usize;
            let each = block.value as f64 / f64::from(block.column_count.max(1));
            for at in first..columns.min(first + block.column_count as usize) {
                all[at] += each;
                blurred[at] += if block.row_count > 1 { each } else { 0.0 };
            }
        }
    }
    let much = |at: &usize| blurred[*at] > BLURRED * all[*at];
    (0..columns).rev().find(much).map_or(0, |at| at + 1)
}
