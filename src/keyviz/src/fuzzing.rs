//! What the archive reads back, as fuzz targets.

use crate::history::archive::{self, Archive};
use crate::history::codec::{self, CHUNK, COLUMN};
use crate::history::slots::{ChunkSlot, chunk_body};
use keyviz_testkit::fuzz::Target;
use keyviz_types::{GroupId, RouteId};

/// The decoders of this crate.
pub fn targets() -> Vec<Target> {
    vec![Target { name: "archive_record", run, corpus }]
}

/// Reads bytes as they are, as a chunk and as a column, alone and after a good chunk.
fn run(data: &[u8]) {
    let chunk = codec::record(CHUNK, data);
    let column = codec::record(COLUMN, data);
    let _ = codec::decode_forgotten(data);
    let _ = codec::decode_forgotten(&codec::record(codec::FORGOTTEN, data));
    let _ = codec::decode_hot_keys(&codec::record(codec::HOT_KEYS, data));
    for record in [data, &chunk, &column] {
        let key = archive::chunk_key(codec::decode_chunk(record).map_or(0, |chunk| chunk.digest()));
        let good = good_chunk();
        let good = (archive::chunk_key(digest(&good)), good);
        let opened = Archive::open([(key, record.to_vec()), good, (vec![COLUMN], record.to_vec())]);
        assert!(opened.damaged.len() <= 3);
    }
}

fn good_body() -> Vec<u8> {
    let slots = [0, 1, 2].map(|range| ChunkSlot {
        range,
        aggregate: range == 1,
        group: GroupId(1),
        route: RouteId::FIRST,
    });
    chunk_body(&[b"a", b"ab", b"b"], true, &slots)
}

fn good_chunk() -> Vec<u8> {
    codec::record(CHUNK, &good_body())
}

fn digest(record: &[u8]) -> u128 {
    codec::decode_chunk(record).map_or(0, |chunk| chunk.digest())
}

fn corpus() -> Vec<Vec<u8>> {
    // A closed column of one minute, with that chunk, one part and one run of it.
    let head = [&[0, 0xe0, 0xd4, 3, 1, 1][..], &digest(&good_chunk()).to_le_bytes()].concat();
    let part = [1, 1, 0, 1, 0, 0, 0, 0, 1];
    let run = [1, 0, 1, 1, 5, 0, 0, 0, 0];
    vec![good_body(), good_chunk(), [&head[..], &part, &run].concat(), [&head[..], &[0]].concat()]
}

#[cfg(test)]
#[test]
fn fuzz_no_decoder_panics_whatever_it_is_given() {
    keyviz_testkit::fuzz::check(targets());
}
