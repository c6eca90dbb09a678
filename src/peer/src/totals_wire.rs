//! Round one's answer, between [`NodeTotals`] and the wire.
//!
//! A node has thousands of ranges, most of which end where the next one begins. A coordinating node
//! that can read it gets the packed form: the concatenated keys, and lists of numbers. One of an
//! earlier version gets a message per range.

use bytes::{Buf as _, Bytes, BytesMut};

use keyviz_core::copies::MAX_NODES;
use keyviz_core::query::{NodeTotals, RangeTotal};
use keyviz_core::wire::CONTRIBUTION_VERSION;
use keyviz_core::{Incarnation, KeyRange, NodeId};
use keyviz_fanout::{PeerTotals, RoundError};
use keyviz_proto as proto;

use super::copies_wire::{held_from_wire, held_to_wire};
use super::matrix_wire::{check_cluster, check_version};

/// Ranges in one chunk: with keys of the longest kind a chunk has 8 MiB, half of what a message
/// may have.
const RANGES_A_CHUNK: usize = 1_024;

/// Encoding of the end of a packed range: the start of the next one, none, or its length plus
/// [`END_LENGTH`].
const END_IS_NEXT: u32 = 0;
const NO_END: u32 = 1;
const END_LENGTH: u32 = 2;

/// The answer of round one by the node `answers` in chunks, `packed` or not. There is at least one
/// chunk.
pub fn totals_chunks(
    answer: PeerTotals,
    answers: NodeId,
    cluster_id: &str,
    packed: bool,
) -> Vec<proto::TotalsChunk> {
    let PeerTotals { totals, now_ms, step_ms, copies } = answer;
    let empty = proto::TotalsChunk {
        version: CONTRIBUTION_VERSION,
        node_id: answers.0,
        counted_by: if totals.node == answers { 0 } else { totals.node.0 },
        copies: Vec::new(),
        incarnation: totals.incarnation.0,
        catalog_version: totals.catalog_version,
        columns: totals.columns,
        oldest_ms: totals.oldest_ms,
        forgotten_before_ms: totals.forgotten_before_ms,
        unattributed: totals.unattributed,
        now_ms,
        step_ms,
        ranges: Vec::new(),
        cluster_id: cluster_id.to_owned(),
        open_ms: totals.open_ms,
        newest_ms: totals.newest_ms,
        packed: None,
    };
    let copies: Vec<proto::HeldCopy> = copies.iter().map(held_to_wire).collect();
    if totals.ranges.is_empty() {
        return vec![proto::TotalsChunk { copies, ..empty }];
    }
    let chunk = |ranges: &[RangeTotal]| match packed {
        true => proto::TotalsChunk { packed: Some(pack(ranges)), ..empty.clone() },
        false => proto::TotalsChunk {
            ranges: ranges.iter().map(range_to_wire).collect(),
            ..empty.clone()
        },
    };
    let mut chunks: Vec<_> = totals.ranges.chunks(RANGES_A_CHUNK).map(chunk).collect();
    chunks[0].copies = copies;
    chunks
}

/// Puts round one's chunks together, for a node of cluster `ours`.
pub(crate) fn totals_from_chunks(
    chunks: Vec<proto::TotalsChunk>,
    ours: &str,
) -> Result<PeerTotals, RoundError> {
    let first = chunks.first().ok_or(RoundError::Empty)?;
    check_version(first.version)?;
    check_cluster(&first.cluster_id, ours)?;
    let (now_ms, step_ms) = (first.now_ms, first.step_ms);
    if first.copies.len() > MAX_NODES {
        return Err(RoundError::TooManyParts(MAX_NODES));
    }
    let copies = first.copies.iter().map(held_from_wire).collect();
    let (answers, counted_by) = (first.node_id, first.counted_by);
    let mut totals = NodeTotals {
        node: NodeId(if counted_by == 0 { answers } else { counted_by }),
        incarnation: Incarnation(first.incarnation),
        catalog_version: first.catalog_version,
        columns: first.columns,
        oldest_ms: first.oldest_ms,
        open_ms: first.open_ms,
        newest_ms: first.newest_ms,
        forgotten_before_ms: first.forgotten_before_ms,
        unattributed: first.unattributed,
        ranges: Vec::with_capacity(chunks.iter().map(ranges_in).sum()),
    };
    for chunk in chunks {
        let sender = (chunk.node_id, chunk.counted_by);
        if sender != (answers, counted_by) || chunk.incarnation != totals.incarnation.0 {
            return Err(RoundError::Malformed("its answer changes sender half way"));
        }
        totals.ranges.extend(chunk.ranges.into_iter().map(range_from_wire));
        if let Some(packed) = chunk.packed {
            unpack(packed, &mut totals.ranges).ok_or(RoundError::Malformed(
                "its packed ranges do not fit together; bring both to the same version",
            ))?;
        }
    }
    Ok(PeerTotals { totals, now_ms, step_ms, copies })
}

/// The ranges that a chunk claims to have.
pub(crate) fn ranges_in(chunk: &proto::TotalsChunk) -> usize {
    chunk.ranges.len() + chunk.packed.as_ref().map_or(0, |packed| packed.totals.len())
}

fn range_to_wire(range: &RangeTotal) -> proto::TotalsRange {
    proto::TotalsRange {
        start: range.range.start.clone(),
        end: range.range.end.clone(),
        total: range.total,
        aggregate: range.aggregate,
    }
}

fn range_from_wire(range: proto::TotalsRange) -> RangeTotal {
    RangeTotal {
        range: KeyRange { start: range.start, end: range.end },
        total: range.total,
        aggregate: range.aggregate,
        cut: 0,
    }
}

fn pack(ranges: &[RangeTotal]) -> proto::PackedRanges {
    let length = |key: &Bytes| u32::try_from(key.len()).expect("a key fits a message");
    let mut packed = proto::PackedRanges::default();
    let mut keys = BytesMut::new();
    for (index, RangeTotal { range, total, aggregate, cut }) in ranges.iter().enumerate() {
        keys.extend_from_slice(&range.start);
        packed.start_lengths.push(length(&range.start));
        let next = ranges.get(index + 1).map(|next| &next.range.start);
        packed.ends.push(match &range.end {
            None => NO_END,
            Some(end) if Some(end) == next => END_IS_NEXT,
            Some(end) => {
                keys.extend_from_slice(end);
                length(end) + END_LENGTH
            }
        });
        packed.totals.push(*total);
        packed.cuts.push(*cut);
        if *aggregate {
            packed.aggregates.push(u32::try_from(index).expect("a chunk has few ranges"));
        }
    }
    if packed.cuts.iter().all(|cut| *cut == 0) {
        packed.cuts.clear();
    }
    packed.keys = keys.freeze();
    packed
}

/// Adds the ranges of one chunk; `None` where its lists do not fit together.
fn unpack(packed: proto::PackedRanges, into: &mut Vec<RangeTotal>) -> Option<()> {
    let proto::PackedRanges { mut keys, start_lengths, ends, totals, aggregates, cuts } = packed;
    // A node of an earlier version names no cuts.
    let named = cuts.is_empty() || cuts.len() == totals.len();
    if start_lengths.len() != totals.len() || ends.len() != totals.len() || !named {
        return None;
    }
    let mut take = |length: u32| {
        let length = usize::try_from(length).ok()?;
        (length <= keys.remaining()).then(|| keys.split_to(length))
    };
    let before = into.len();
    let mut open = false;
    for ((start, end), total) in start_lengths.into_iter().zip(ends).zip(totals) {
        let start = take(start)?;
        if open {
            into.last_mut()?.range.end = Some(start.clone());
        }
        open = end == END_IS_NEXT;
        let end = match end.checked_sub(END_LENGTH) {
            Some(length) => Some(take(length)?),
            None => None,
        };
        let range = KeyRange { start, end };
        into.push(RangeTotal { range, total, aggregate: false, cut: 0 });
    }
    for (range, cut) in into[before..].iter_mut().zip(cuts) {
        range.cut = cut;
    }
    for index in aggregates {
        into.get_mut(before + usize::try_from(index).ok()?)?.aggregate = true;
    }
    (!open && keys.is_empty()).then_some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use keyviz_core::copies::HeldCopy;

    fn any_totals(packed: bool) -> impl Strategy<Value = NodeTotals> {
        let keys = proptest::collection::btree_set(proptest::collection::vec(0u8..3, 0..4), 0..40);
        let each = proptest::collection::vec((1u64..u64::MAX, any::<bool>(), 0u8..4), 40);
        (keys, each, any::<bool>()).prop_map(move |(keys, each, bounded)| {
            let keys: Vec<Bytes> = keys.into_iter().map(Bytes::from).collect();
            let ranges = keys.iter().zip(&each).enumerate().filter_map(|(at, (start, each))| {
                let &(total, aggregate, kind) = each;
                let end = keys.get(at + 1).cloned();
                let short = || Bytes::from([start, &[0][..]].concat());
                let end = match end {
                    // A gap, an end of its own, or none.
                    _ if kind == 0 => return None,
                    Some(end) if kind == 1 => Some(end.min(short())),
                    Some(end) => Some(end),
                    None => bounded.then(short),
                };
                let range = KeyRange { start: start.clone(), end };
                let cut = if packed && total % 3 > 0 { total / 3 } else { 0 };
                Some(RangeTotal { range, total, aggregate, cut })
            });
            NodeTotals {
                node: NodeId(3),
                incarnation: Incarnation(4),
                catalog_version: 5,
                columns: 6,
                oldest_ms: 7,
                open_ms: 8,
                newest_ms: 9,
                forgotten_before_ms: 9,
                unattributed: 10,
                ranges: ranges.collect(),
            }
        })
    }

    proptest! {
        #[test]
        fn totals_read_as_they_were_written(
            (totals, packed) in
                any::<bool>().prop_flat_map(|packed| (any_totals(packed), Just(packed))),
        ) {
            let copies = vec![HeldCopy {
                node: NodeId(9),
                incarnation: Incarnation(3),
                oldest_ms: 1,
                newest_ms: 2,
                complete_to_ms: 3,
                left_ms: Some(4),
                forgotten_before_ms: 5,
                columns: 6,
                lost: 7,
            }];
            let sent =
                {
                    let (totals, copies) = (totals.clone(), copies.clone());
                    PeerTotals { totals, now_ms: 11, step_ms: 12, copies }
                };
            let chunks = totals_chunks(sent, totals.node, "c", packed);
            let sent: usize = chunks.iter().map(ranges_in).sum();
            prop_assert_eq!(sent, totals.ranges.len());
            let read = totals_from_chunks(chunks, "c");
            let read = read.map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!((read.totals, read.now_ms, read.step_ms), (totals, 11, 12));
            prop_assert_eq!(read.copies, copies);
        }
    }

    #[test]
    fn packed_ranges_that_do_not_fit_together_are_refused() {
        let range = |start, end| RangeTotal {
            range: KeyRange {
                start: Bytes::from_static(start),
                end: Some(Bytes::from_static(end)),
            },
            total: 1,
            aggregate: true,
            cut: 3,
        };
        let sound = pack(&[range(b"a", b"b"), range(b"b", b"c")]);
        assert_eq!(sound.keys.as_ref(), b"abc", "a shared bound is told once");
        let refused = |change: fn(&mut proto::PackedRanges)| {
            let mut packed = sound.clone();
            change(&mut packed);
            unpack(packed, &mut Vec::new()).is_none()
        };
        assert!(!refused(|_| {}));
        assert!(refused(|packed| packed.keys = Bytes::from_static(b"ab")));
        assert!(refused(|packed| packed.keys = Bytes::from_static(b"abcd")));
        assert!(refused(|packed| packed.start_lengths[0] = u32::MAX));
        assert!(refused(|packed| packed.ends[1] = END_IS_NEXT));
        assert!(refused(|packed| packed.ends.truncate(1)));
        assert!(refused(|packed| packed.totals.push(1)));
        assert!(refused(|packed| packed.cuts.truncate(1)));
        assert!(!refused(|packed| packed.cuts.clear()));
        assert!(refused(|packed| packed.aggregates.push(2)));
    }
}
