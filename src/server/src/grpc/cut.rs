//! Messages cut by bytes, so that a client with the default limit of gRPC (4 MiB) reads any answer.

use prost::Message;

use keyviz_proto as proto;

/// Bytes of items in one message. Less than the default limit of clients, with a margin for an item
/// that is large by itself: two keys of 4 KiB.
pub(crate) const MESSAGE_BYTES: usize = 1 << 20;

/// What an item takes in a message beside its own bytes: a tag and its length.
const PER_ITEM: usize = 8;

/// Items in runs of at most [`MESSAGE_BYTES`] each, in order; one longer item is a run by itself.
pub(crate) fn by_bytes<T: Message>(items: Vec<T>) -> Vec<Vec<T>> {
    let (mut runs, mut run, mut bytes) = (Vec::new(), Vec::new(), 0);
    for item in items {
        let size = item.encoded_len() + PER_ITEM;
        if bytes + size > MESSAGE_BYTES && !run.is_empty() {
            runs.push(std::mem::take(&mut run));
            bytes = 0;
        }
        bytes += size;
        run.push(item);
    }
    if !run.is_empty() {
        runs.push(run);
    }
    runs
}

/// Keys in one message: half of [`MESSAGE_BYTES`] where all are of maximum length.
const KEYS: usize = 128;

/// A matrix as messages that, merged in order, are the matrix again.
pub(crate) fn matrix_parts(mut matrix: proto::Matrix) -> Vec<proto::Matrix> {
    let (rows, blocks) = (std::mem::take(&mut matrix.rows), std::mem::take(&mut matrix.blocks));
    let (events, shares) =
        (std::mem::take(&mut matrix.events), std::mem::take(&mut matrix.by_node));
    let boundaries = std::mem::take(&mut matrix.boundaries);
    let (sources, spans) =
        (std::mem::take(&mut matrix.sources), std::mem::take(&mut matrix.source_spans));
    let mut parts = vec![matrix];
    let mut add = |part| parts.push(part);
    by_bytes(rows).into_iter().for_each(|rows| add(proto::Matrix { rows, ..Default::default() }));
    by_bytes(blocks)
        .into_iter()
        .for_each(|blocks| add(proto::Matrix { blocks, ..Default::default() }));
    by_bytes(events)
        .into_iter()
        .for_each(|events| add(proto::Matrix { events, ..Default::default() }));
    by_bytes(shares)
        .into_iter()
        .for_each(|by_node| add(proto::Matrix { by_node, ..Default::default() }));
    by_bytes(sources)
        .into_iter()
        .for_each(|sources| add(proto::Matrix { sources, ..Default::default() }));
    by_bytes(spans)
        .into_iter()
        .for_each(|source_spans| add(proto::Matrix { source_spans, ..Default::default() }));
    for keys in boundaries.chunks(KEYS) {
        add(proto::Matrix { boundaries: keys.to_vec(), ..Default::default() });
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_matrix_merged_in_order_are_the_matrix() {
        let row = |n: u64| proto::Row {
            start: vec![b'k'; 4_096].into(),
            values: (0..2_048).map(|at| at * n).collect(),
            ..Default::default()
        };
        let matrix = proto::Matrix {
            catalog_version: 7,
            rows: (0..1_024).map(row).collect(),
            blocks: vec![proto::Block { value: 3, ..Default::default() }; 5],
            boundaries: vec![vec![b'k'; 4_096].into(); 1_024],
            sources: vec![proto::SourceCount { value: 4, ..Default::default() }; 200_000],
            source_spans: vec![proto::SourceSpan { row_count: 2, ..Default::default() }; 3],
            axis_gain: Some(1.5),
            total: 9,
            ..Default::default()
        };
        let parts = matrix_parts(matrix.clone());
        assert!(parts.len() > 8);
        let mut merged = proto::Matrix::default();
        for part in parts {
            assert!(part.encoded_len() <= MESSAGE_BYTES);
            merged.merge(&part.encode_to_vec()[..]).expect("it is a part of a matrix");
        }
        assert!(merged == matrix);
    }

    #[test]
    fn bounds_runs_have_all_items_in_order_and_at_most_so_many_bytes() {
        assert!(by_bytes(Vec::<proto::Route>::new()).is_empty());
        let route = |route_id: u64| proto::Route {
            route_id,
            start: vec![b'k'; (route_id as usize * 37) % 4_096].into(),
            ..Default::default()
        };
        let routes: Vec<proto::Route> = (0..3_000).map(route).collect();
        let runs = by_bytes(routes.clone());
        assert!(runs.len() > 2);
        for routes in &runs {
            let message =
                proto::ListRoutesResponse { routes: routes.clone(), ..Default::default() };
            assert!(message.encoded_len() <= MESSAGE_BYTES);
        }
        assert_eq!(runs.concat(), routes);
    }
}
