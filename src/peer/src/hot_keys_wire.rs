//! Hot keys, between the types of [`keyviz_core`] and the wire.

use keyviz_core::copies::MAX_NODES;
use keyviz_core::hotkeys::{HotKey, HotKeysPart, HotKeysQuery, KeyBounds, MAX_POINTS, PART_KEYS};
use keyviz_core::{KeyRange, NodeId, Window};
use keyviz_fanout::{HotKeysAnswer, HotKeysRequest, NodeHotKeys, RoundError};
use keyviz_proto as proto;
use tonic::Status;

use super::copies_wire::{held_from_wire, held_to_wire};
use super::matrix_wire::{check_cluster, series_from_wire, series_to_wire, status_to_wire};

/// Version of a node's answer.
const VERSION: u32 = 1;
/// Keys in one message: at most 4 KiB and 240 numbers each.
const KEYS_A_CHUNK: usize = 512;
/// Nodes that one node may answer for.
pub(crate) const MAX_PARTS: usize = 64;

/// What a client asks.
///
/// # Errors
/// Where the series does not exist.
pub fn request_from_wire(request: proto::GetHotKeysRequest) -> Result<HotKeysRequest, Status> {
    Ok(HotKeysRequest {
        series: series_from_wire(request.series)?,
        from_ms: request.from_ms,
        to_ms: request.to_ms,
        start: request.start,
        end: request.end,
        limit: request.limit,
        points: request.points,
    })
}

/// The answer to a client, with what each node counted if it is to be `by_node`.
pub fn answer_to_wire(answer: HotKeysAnswer, by_node: bool) -> proto::HotKeys {
    let HotKeysAnswer { series, window, hot_keys, hashed, nodes } = answer;
    let responded = nodes.iter().filter(|status| status.ok).count();
    proto::HotKeys {
        series: series_to_wire(series).into(),
        from_ms: window.from_ms,
        to_ms: window.to_ms,
        keys: hot_keys.keys.into_iter().map(|key| key_to_wire(key, by_node)).collect(),
        threshold: hot_keys.threshold,
        max_error: hot_keys.max_error,
        operations: hot_keys.operations,
        partial: hot_keys.partial,
        hashed,
        responded: responded as u32,
        expected: nodes.len() as u32,
        nodes: nodes.into_iter().map(status_to_wire).collect(),
    }
}

fn key_to_wire(key: HotKey, by_node: bool) -> proto::HotKey {
    let HotKey { bounds, share, by_node: nodes } = key;
    let nodes = nodes.iter().filter(|_| by_node).map(|of| proto::HotKeyNode {
        id: of.node.0,
        lower: of.lower,
        upper: of.upper,
    });
    proto::HotKey {
        key: bounds.key,
        lower: bounds.lower,
        upper: bounds.upper,
        share,
        bytes: bounds.bytes,
        first_ms: bounds.first_ms,
        last_ms: bounds.last_ms,
        points: bounds.points,
        nodes: nodes.collect(),
    }
}

/// What a node asks another.
pub(crate) fn query_to_wire(query: &HotKeysQuery, cluster_id: String) -> proto::HotKeysRequest {
    let asked = proto::PeerQuery {
        cluster_id,
        series: series_to_wire(query.series).into(),
        from_ms: query.window.from_ms,
        to_ms: query.window.to_ms,
        start: query.range.start.clone(),
        end: query.range.end.clone(),
        ..proto::PeerQuery::default()
    };
    proto::HotKeysRequest { query: Some(asked), points: query.points as u32 }
}

/// What another node asks.
///
/// # Errors
/// Where the query makes no sense.
pub fn query_from_wire(query: proto::PeerQuery, points: u32) -> Result<HotKeysQuery, Status> {
    if points as usize > MAX_POINTS {
        return Err(Status::invalid_argument(format!("points: at most {MAX_POINTS}")));
    }
    Ok(HotKeysQuery {
        window: Window { from_ms: query.from_ms, to_ms: query.to_ms },
        range: KeyRange { start: query.start, end: query.end },
        series: series_from_wire(query.series)?,
        points: points as usize,
    })
}

/// A node's answer to another.
pub fn chunks(answer: NodeHotKeys, cluster_id: &str) -> Vec<proto::HotKeysChunk> {
    let NodeHotKeys { parts, hashed, now_ms, forgotten_before_ms, copies } = answer;
    let mut chunks: Vec<proto::HotKeysChunk> = Vec::new();
    for part in parts {
        let counted_by = if part.node == part.held_by { 0 } else { part.node.0 };
        let head = proto::HotKeysChunk {
            version: VERSION,
            node_id: part.held_by.0,
            counted_by,
            cluster_id: cluster_id.to_owned(),
            threshold: part.threshold,
            operations: part.operations,
            partial: part.partial,
            columns: part.columns,
            hashed,
            keys: Vec::new(),
            now_ms,
            forgotten_before_ms,
            copies: Vec::new(),
        };
        let mut keys = part.keys.into_iter().map(|key| proto::PeerHotKey {
            error: key.upper - key.lower,
            key: key.key,
            lower: key.lower,
            bytes: key.bytes,
            first_ms: key.first_ms,
            last_ms: key.last_ms,
            points: key.points,
        });
        loop {
            let chunk: Vec<_> = keys.by_ref().take(KEYS_A_CHUNK).collect();
            let last = chunk.len() < KEYS_A_CHUNK;
            chunks.push(proto::HotKeysChunk { keys: chunk, ..head.clone() });
            if last {
                break;
            }
        }
    }
    if let Some(first) = chunks.first_mut() {
        first.copies = copies.iter().map(held_to_wire).collect();
    }
    chunks
}

/// The memory that a message takes, about.
pub(crate) fn bytes_of(chunk: &proto::HotKeysChunk) -> usize {
    let of_key = |key: &proto::PeerHotKey| {
        size_of::<proto::PeerHotKey>() + key.key.len() + key.points.len() * size_of::<u64>()
    };
    chunk.keys.iter().map(of_key).sum()
}

/// The answer of another node, for a node of cluster `ours`. What it says of keys is checked by
/// [`HotKeysPart::check`].
pub(crate) fn answer_from_chunks(
    chunks: Vec<proto::HotKeysChunk>,
    ours: &str,
) -> Result<NodeHotKeys, RoundError> {
    let mut answer = NodeHotKeys {
        parts: Vec::new(),
        hashed: false,
        now_ms: 0,
        forgotten_before_ms: 0,
        copies: Vec::new(),
    };
    for chunk in chunks {
        answer.copies.extend(chunk.copies.iter().map(held_from_wire));
        if answer.copies.len() > MAX_NODES {
            return Err(RoundError::TooManyParts(MAX_NODES));
        }
        if chunk.version != VERSION {
            return Err(RoundError::Form { theirs: chunk.version, ours: VERSION });
        }
        check_cluster(&chunk.cluster_id, ours)?;
        let held_by = NodeId(chunk.node_id);
        let node = if chunk.counted_by == 0 { held_by } else { NodeId(chunk.counted_by) };
        answer.hashed |= chunk.hashed;
        answer.now_ms = chunk.now_ms;
        answer.forgotten_before_ms = chunk.forgotten_before_ms;
        let keys = chunk.keys.into_iter().map(|key| KeyBounds {
            key: key.key,
            lower: key.lower,
            upper: key.lower.saturating_add(key.error),
            bytes: key.bytes,
            first_ms: key.first_ms,
            last_ms: key.last_ms,
            points: key.points,
        });
        match answer.parts.last_mut() {
            Some(part) if part.node == node => {
                part.keys.extend(keys);
                if part.keys.len() > PART_KEYS {
                    return Err(RoundError::TooManyHotKeys(PART_KEYS));
                }
            }
            _ => answer.parts.push(HotKeysPart {
                node,
                held_by,
                keys: keys.collect(),
                threshold: chunk.threshold,
                operations: chunk.operations,
                partial: chunk.partial,
                columns: chunk.columns,
            }),
        }
        if answer.parts.len() > MAX_PARTS {
            return Err(RoundError::TooManyParts(MAX_PARTS));
        }
    }
    if answer.parts.is_empty() { Err(RoundError::Empty) } else { Ok(answer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_reads_back_as_it_was_sent() {
        let key = |n: usize| KeyBounds {
            key: format!("k{n:05}").into(),
            lower: n as u64,
            upper: n as u64 + 3,
            bytes: 7,
            first_ms: 1,
            last_ms: 2,
            points: vec![1, 2],
        };
        let part = |node, count| HotKeysPart {
            node: NodeId(node),
            held_by: NodeId(1),
            keys: (0..count).map(key).collect(),
            threshold: 3,
            operations: 900,
            partial: node == 4,
            columns: 2,
        };
        // None, just as many as fit, and more than fit into a message.
        for counts in [[0, 0], [KEYS_A_CHUNK, 1], [KEYS_A_CHUNK + 1, PART_KEYS]] {
            let parts = vec![part(1, counts[0]), part(4, counts[1])];
            let copies = Vec::new();
            let sent =
                NodeHotKeys { parts, hashed: true, now_ms: 5, forgotten_before_ms: 6, copies };
            let read = answer_from_chunks(chunks(sent.clone(), "c"), "c");
            assert_eq!(read, Ok(sent));
        }
        assert!(answer_from_chunks(Vec::new(), "c").is_err());
        let other = proto::HotKeysChunk { version: 2, ..Default::default() };
        assert!(answer_from_chunks(vec![other], "c").is_err());
    }
}
