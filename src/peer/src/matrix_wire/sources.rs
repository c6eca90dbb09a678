//! The sources of a matrix on the wire.

use keyviz_core::matrix::SourceCount;
use keyviz_core::query::BlockSpan;
use keyviz_core::wire::{Place, Source};
use keyviz_proto as proto;

/// A count of one node.
pub(super) fn count_to_wire(count: &SourceCount) -> proto::SourceCount {
    let (row, span) = match count.key.place {
        Place::Row(row) => (Some(row), None),
        Place::Block(span) => (None, Some(span)),
    };
    let (role, group_id, term) = match count.key.source {
        Source::LeaderWrite { group, term } => {
            (proto::Role::LeaderWrite, Some(group.0), term.map(|term| term.0))
        }
        Source::LeaderRead => (proto::Role::LeaderRead, None, None),
        Source::FollowerRead => (proto::Role::FollowerRead, None, None),
    };
    proto::SourceCount {
        node_id: count.node.0,
        column: count.column,
        row,
        span,
        role: role.into(),
        group_id,
        term,
        value: count.value,
    }
}

/// The place of a block of such counts, and whether it straddles.
pub(super) fn count_span_to_wire((span, straddling): (BlockSpan, bool)) -> proto::SourceSpan {
    proto::SourceSpan {
        first_row: span.first_row,
        row_count: span.rows,
        column_count: span.columns,
        start: span.range.start,
        end: span.range.end,
        straddling,
        start_ms: span.reach.map(|reach| reach.from_ms),
        end_ms: span.reach.map(|reach| reach.to_ms),
    }
}
