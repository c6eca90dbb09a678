//! Records of the log and of state machines, and messages of peers, as fuzz targets.

use bytes::Bytes;
use prost::Message as _;

use super::log::record::{self, BlockBuilder, Key};
use super::storage::keyspace::{current, redo};
use super::transport::receive;
use super::types::{Command, Entry, LogId, LogPosition, Payload, Vote};
use super::wire;
use keyviz_proto as proto;
use keyviz_testkit::fuzz::Target;
use keyviz_types::GroupId;

const GROUP: GroupId = GroupId(1);

/// The decoders of this crate.
pub fn targets() -> Vec<Target> {
    vec![
        Target { name: "log_record", run: log_record, corpus: log_records },
        Target { name: "redo_record", run: redo_record, corpus: redo_records },
        Target { name: "snapshot_rows", run: snapshot_rows, corpus: row_chunks },
        Target { name: "raft_messages", run: messages, corpus: encoded_messages },
    ]
}

/// Bytes as they are, and with the checksum and the first index that they ask for.
fn log_record(data: &[u8]) {
    let mut good = data.to_vec();
    let mut first = 0;
    if let Some(crc) = data.get(5..).map(crc32fast::hash) {
        good[1..5].copy_from_slice(&crc.to_le_bytes());
    }
    if let Some(bytes) = data.get(15..23) {
        first = u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
    }
    for bytes in [data, &good] {
        let _ = record::parts(GROUP, first, bytes);
        if let Ok(block) = record::decode_block(GROUP, first, Bytes::copy_from_slice(bytes)) {
            assert!(!block.entries.is_empty());
        }
        let _ = record::decode_vote(GROUP, bytes);
        let _ = record::decode_purged(GROUP, bytes);
    }
    if let Some(key) = Key::decode(GROUP, data) {
        assert_eq!(Key::decode(GROUP, &key.encode(GROUP)), Some(key));
    }
}

fn log_records() -> Vec<Vec<u8>> {
    let at = LogId::from(LogPosition { term: 3, index: 7 });
    let mut block = BlockBuilder::new(7);
    block.push(&Entry { log_id: at, payload: Payload::Normal(Command("command".into())) });
    let next = LogId::from(LogPosition { term: 3, index: 8 });
    block.push(&Entry { log_id: next, payload: Payload::Blank });
    block.set_committed(Some(at));
    let vote = record::encode_vote(&Vote::new(3, 1));
    let key = Key::Block { first: 7, part: 0 }.encode(GROUP).to_vec();
    vec![block.finish(), vote, record::encode_purged(at), key]
}

fn redo_record(data: &[u8]) {
    let _ = redo::read_changes(Bytes::copy_from_slice(data));
    let _ = current::decode_membership(Bytes::copy_from_slice(data));
}

fn redo_records() -> Vec<Vec<u8>> {
    vec![b"\x01\x01\0\0\0k\x01\0\0\0v\x00\x01\0\0\0k".to_vec()]
}

/// Decoded rows encode to the same bytes.
fn snapshot_rows(data: &[u8]) {
    if let Ok(rows) = receive::decode_rows(Bytes::copy_from_slice(data)) {
        assert_eq!(receive::encode_rows(&rows), data);
    }
    if let Ok(header) = proto::RaftSnapshotHeader::decode(data) {
        let _ = receive::meta(&header);
    }
}

fn row_chunks() -> Vec<Vec<u8>> {
    let rows = [("a".into(), "1".into()), ("b".into(), Bytes::new())];
    let header = proto::RaftSnapshotHeader {
        last: Some(proto::RaftLogId { term: 1, index: 1 }),
        version: 1,
        ..Default::default()
    };
    vec![receive::encode_rows(&rows).to_vec(), header.encode_to_vec()]
}

fn messages(data: &[u8]) {
    if let Ok(frame) = proto::RaftAppendFrame::decode(data) {
        for append in frame.requests {
            let _ = wire::append_from_proto(append);
        }
    }
    if let Ok(append) = proto::RaftAppend::decode(data) {
        let _ = wire::append_from_proto(append);
    }
    if let Ok(request) = proto::RaftVoteRequest::decode(data) {
        let _ = wire::vote_request_from_proto(request);
    }
    if let Ok(response) = proto::RaftVoteResponse::decode(data) {
        let _ = wire::vote_response_from_proto(response);
    }
}

fn encoded_messages() -> Vec<Vec<u8>> {
    let vote = Some(proto::RaftVote { term: 2, node: 1, committed: true });
    let at = Some(proto::RaftLogId { term: 1, index: 4 });
    let member = proto::RaftMember { node: 1, addr: "a:1".to_owned(), ..Default::default() };
    let voters = proto::RaftVoters { nodes: vec![1] };
    let membership = proto::RaftMembership { configs: vec![voters], members: vec![member] };
    let payload = |index, payload| proto::RaftEntry { term: 2, index, payload };
    let entries = vec![
        payload(5, Some(proto::raft_entry::Payload::Membership(membership))),
        payload(6, Some(proto::raft_entry::Payload::Command("c".into()))),
        payload(7, None),
    ];
    let append = proto::RaftAppend { group: 1, vote, previous: at, entries, ..Default::default() };
    let frame = proto::RaftAppendFrame { requests: vec![append.clone()], ..Default::default() };
    let request = proto::RaftVoteRequest { vote, last: at, ..Default::default() };
    vec![append.encode_to_vec(), frame.encode_to_vec(), request.encode_to_vec()]
}

#[cfg(test)]
#[test]
fn fuzz_no_decoder_panics_whatever_it_is_given() {
    keyviz_testkit::fuzz::check(targets());
}
