//! Messages of peers, from bytes to what the layers below are given, as a fuzz target.

use prost::Message as _;

use super::{hot_keys_wire, matrix_wire, totals_wire};
use keyviz_core::query::{ColumnPlan, RowAxis};
use keyviz_proto as proto;
use keyviz_testkit::fuzz::Target;

/// The decoders of this crate.
pub fn targets() -> Vec<Target> {
    vec![Target { name: "matrix_messages", run, corpus }]
}

fn run(data: &[u8]) {
    if let Ok(chunk) = proto::TotalsChunk::decode(data) {
        let _ = totals_wire::totals_from_chunks(vec![chunk.clone(), chunk], "");
    }
    if let Ok(chunk) = proto::ColumnsChunk::decode(data) {
        let columns = matrix_wire::columns_from_chunk(chunk, "");
        let (rows, plan) = axes();
        let _ = columns.map(|columns| columns.checked(&rows, &plan));
    }
    if let Ok(chunk) = proto::HotKeysChunk::decode(data) {
        let answer = hot_keys_wire::answer_from_chunks(vec![chunk.clone(), chunk], "");
        let parts = answer.map(|answer| answer.parts).unwrap_or_default();
        if parts.iter().all(|part| part.check(0).is_ok()) {
            let _ = keyviz_core::hotkeys::merge(parts, 3);
        }
    }
    if let Ok(request) = proto::ColumnsRequest::decode(data) {
        let _ = matrix_wire::row_axis_from_wire(&request);
        let _ = matrix_wire::column_plan_from_wire(&request);
        let _ = request.query.map(matrix_wire::query_from_wire);
    }
}

/// Two rows and three columns.
fn axes() -> (RowAxis, ColumnPlan) {
    let rows = RowAxis::new(vec!["".into(), "m".into()], None, vec![1, 2]);
    let plan = ColumnPlan::new(1_000, &[0, 1_000, 2_000, 3_000], false);
    (rows.expect("in order"), plan.expect("in order"))
}

fn corpus() -> Vec<Vec<u8>> {
    let request = proto::ColumnsRequest {
        query: Some(proto::PeerQuery { to_ms: 9_000, ..Default::default() }),
        row_starts: vec!["".into(), "m".into()],
        row_weights: vec![1, 2],
        step_ms: 1_000,
        column_bounds: vec![1_000, 2_000, 4_000],
        ..Default::default()
    };
    let part = |column, keys: &'static [u8], values: &'static [u8]| proto::ColumnPart {
        column,
        incarnation: 1,
        cells: 2,
        keys: keys.into(),
        values: values.into(),
        ..Default::default()
    };
    let chunk = proto::ColumnsChunk {
        version: keyviz_core::wire::CONTRIBUTION_VERSION,
        node_id: 1,
        key_rows: vec![0, 1],
        key_sources: vec![1, 2],
        key_groups: vec![1, 0],
        key_terms: vec![0, 0],
        spans: vec![proto::BlockSpan { rows: 2, columns: 1, ..Default::default() }],
        held: vec![0, 2],
        covers_to: 3,
        parts: vec![part(0, &[0, 0], &[3, 0, 0b10_1011]), part(1, &[], &[1, 1, 0b11, 1, 7])],
        ..Default::default()
    };
    let totals = proto::TotalsChunk {
        version: keyviz_core::wire::CONTRIBUTION_VERSION,
        ranges: vec![proto::TotalsRange::default()],
        packed: Some(proto::PackedRanges {
            keys: "ab".into(),
            start_lengths: vec![0, 1],
            ends: vec![0, 3],
            totals: vec![1, 2],
            aggregates: vec![1],
            cuts: vec![0, 5],
        }),
        ..Default::default()
    };
    let hot_key = |key: &'static str| proto::PeerHotKey {
        key: key.into(),
        lower: 5,
        error: 1,
        ..Default::default()
    };
    let hot_keys = proto::HotKeysChunk {
        version: 1,
        node_id: 1,
        threshold: 2,
        operations: 30,
        keys: vec![hot_key("a"), hot_key("b")],
        ..Default::default()
    };
    let hot_keys = hot_keys.encode_to_vec();
    vec![hot_keys, request.encode_to_vec(), chunk.encode_to_vec(), totals.encode_to_vec()]
}

#[cfg(test)]
#[test]
fn fuzz_no_decoder_panics_whatever_it_is_given() {
    keyviz_testkit::fuzz::check(targets());
}
