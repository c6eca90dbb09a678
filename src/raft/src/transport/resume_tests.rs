//! Snapshots that are cut and go on, at every place, while rows change in between.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;

use super::held::{HeldRange, Incoming, Partial};
use super::pace::Pace;
use super::receive::{self, Receiving};
use super::send;
use crate::machine::apply::Staged;
use crate::storage::{Batch, Keyspace, PageLimit, Storage, StorageOptions};
use crate::types::{LogPosition, SnapshotMeta, Vote};
use keyviz_proto as proto;
use keyviz_proto::raft_snapshot_chunk::Part;
use keyviz_types::GroupId;

const GROUP: GroupId = GroupId(4);

fn storage(dir: &tempfile::TempDir) -> Storage {
    Storage::open(dir.path(), StorageOptions::default()).unwrap()
}

fn write(keyspace: &Keyspace, index: u64, changes: &[(String, Option<Bytes>)]) {
    let mut batch = Batch::new(keyspace);
    batch.begin_command();
    for (key, value) in changes {
        let key = Bytes::from(key.clone());
        match value {
            Some(value) => batch.put(key, value.clone()).unwrap(),
            None => batch.delete(key).unwrap(),
        }
    }
    batch.set_applied(LogPosition { term: 1, index });
    keyspace.write(&batch.into_changes()).unwrap();
}

fn all(keyspace: &Keyspace) -> BTreeMap<Bytes, Bytes> {
    let limit = PageLimit { rows: usize::MAX, bytes: usize::MAX };
    let (from, to) = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    keyspace.scan(from, to, limit).unwrap().rows.into_iter().collect()
}

/// All parts after the header that a sender has for a receiver that holds `held`.
async fn parts(keyspace: &Keyspace, held: Vec<HeldRange>) -> Vec<Part> {
    let view = keyspace.view();
    let meta = SnapshotMeta {
        last_log_id: view.applied().map(Into::into),
        last_membership: view.membership().clone(),
    };
    let hello = proto::RaftHello::default();
    let header = receive::header(hello, GROUP, Vote::new_committed(1, 1), &meta, 0);
    let (chunks, _) = send::chunks(header, view, held, Arc::new(Pace::new(0)));
    chunks.skip(1).map(|chunk| chunk.part.unwrap()).collect().await
}

fn take(receiving: &mut Receiving, part: &Part) {
    match part {
        Part::Rows(rows) => receiving.rows(rows.clone()).unwrap(),
        Part::Keep(keep) => receiving.keep(keep.clone()).unwrap(),
        other => panic!("{other:?} is not in the middle"),
    }
}

fn rows_of(mut staged: Staged) -> BTreeMap<Bytes, Bytes> {
    let (from, to) = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    staged.rows().rows(from, to).map(|row| row.unwrap()).collect()
}

fn kept(parts: &[Part]) -> usize {
    parts.iter().filter(|part| matches!(part, Part::Keep(_))).count()
}

fn sent_bytes(parts: &[Part]) -> usize {
    let bytes = |part: &Part| if let Part::Rows(rows) = part { rows.rows.len() } else { 0 };
    parts.iter().map(bytes).sum()
}

fn value(seed: u64, length: usize) -> Option<Bytes> {
    Some(Bytes::from(vec![seed as u8; length]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_snapshot_goes_on_where_it_was_and_holds_the_rows_of_the_last() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (leader, follower) = (storage(&here), storage(&there));
    let keyspace = leader.open_space(GROUP).unwrap();
    let target = follower.open_space(GROUP).unwrap();
    let first: Vec<_> = (0..240).map(|n| (format!("k{n:03}"), value(n, 9_000))).collect();
    write(&keyspace, 1, &first);
    write(&keyspace, 2, &[("k100".to_owned(), value(1, 60_000))]);
    for cut in 0..=8 {
        let whole = parts(&keyspace, Vec::new()).await;
        let count = whole.len() - 1;
        assert!(count >= 8, "{count} chunks");
        let mut receiving = Receiving::new(Staged::new(follower.clone(), target.clone()).unwrap());
        whole[..cut].iter().for_each(|part| take(&mut receiving, part));
        let Some((staged, ranges)) = receiving.into_partial() else {
            assert_eq!(cut, 0, "something came, and nothing is held");
            continue;
        };
        assert_eq!(ranges.len(), cut);

        // Meanwhile rows change, come and go: at the beginning, around the cut and at the end.
        let index = 10 + 2 * cut as u64;
        let near = 240 * cut / count;
        let changes = [
            (format!("k{:03}", near.saturating_sub(3)), value(index, 5_000)),
            (format!("k{:03}x", near.saturating_sub(2)), value(index, 700)),
            (format!("k{:03}", near.saturating_sub(1)), None),
            (format!("k{near:03}y"), value(index, 9_000)),
            ("a".to_owned(), value(index, 10)),
            ("z".to_owned(), value(index, 30_000)),
        ];
        write(&keyspace, index, &changes);
        let held: Vec<HeldRange> = ranges.iter().cloned().collect();
        let second = parts(&keyspace, held).await;

        // It is cut once more, in the middle of what was held or after it.
        let again = second.len() / 3;
        let mut receiving = Receiving::resume(Partial { id: 1, staged, ranges });
        second[..again].iter().for_each(|part| take(&mut receiving, part));
        let (staged, ranges) = receiving.into_partial().expect("something is held");
        write(
            &keyspace,
            index + 1,
            &[("k000".to_owned(), value(index, 20)), ("z".to_owned(), None)],
        );
        let expected = all(&keyspace);
        let third = parts(&keyspace, ranges.iter().cloned().collect()).await;
        let mut receiving = Receiving::resume(Partial { id: 2, staged, ranges });
        let (last, middle) = third.split_last().unwrap();
        middle.iter().for_each(|part| take(&mut receiving, part));
        let Part::Trailer(trailer) = last else { panic!("{last:?} is no trailer") };
        assert_eq!(receiving.received(), expected.len() as u64);
        let staged = receiving.finish(*trailer).unwrap();
        assert!(rows_of(staged) == expected, "cut after {cut} of {count} chunks");
        if cut > 3 {
            // At most the ranges with the changes were sent again.
            assert!(kept(&third) + 4 >= cut.min(third.len()), "{} of {cut}", kept(&third));
        }
        if cut > 5 {
            assert!(sent_bytes(&third) < sent_bytes(&whole), "cut after {cut}");
        }
    }
}

#[tokio::test]
async fn a_keep_of_what_is_not_held_is_refused() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (leader, follower) = (storage(&here), storage(&there));
    let keyspace = leader.open_space(GROUP).unwrap();
    let target = follower.open_space(GROUP).unwrap();
    let rows: Vec<_> = (0..90).map(|n| (format!("k{n:03}"), value(n, 9_000))).collect();
    write(&keyspace, 1, &rows);
    let whole = parts(&keyspace, Vec::new()).await;
    let mut receiving = Receiving::new(Staged::new(follower.clone(), target.clone()).unwrap());
    let keep = |to: &Bytes| proto::RaftSnapshotKeep { to: to.clone() };
    assert!(receiving.keep(keep(&Bytes::from("k001"))).is_err(), "nothing is held");
    whole[..3].iter().for_each(|part| take(&mut receiving, part));
    let (staged, ranges) = receiving.into_partial().unwrap();
    let ends: Vec<Bytes> = ranges.iter().map(|range| range.to.clone()).collect();
    let mut receiving = Receiving::resume(Partial { id: 1, staged, ranges });
    assert!(receiving.keep(keep(&ends[1])).is_err(), "the first range comes first");
    // Rows that end inside the first range: what is left of it cannot be kept.
    let row = (Bytes::from("k000"), Bytes::from("new"));
    let bytes = receive::encode_rows(&[row]);
    let crc = crc32fast::hash(&bytes);
    receiving.rows(proto::RaftSnapshotRows { rows: bytes, crc, to: Bytes::new() }).unwrap();
    assert!(receiving.keep(keep(&ends[0])).is_err(), "its beginning was replaced");
    let (_, ranges) = receiving.into_partial().unwrap();
    assert_eq!(ranges[1].rows, u64::MAX, "no digest tells what the rest of it is");
}

#[tokio::test]
async fn what_is_held_is_given_out_once_under_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let follower = storage(&dir);
    let target = follower.open_space(GROUP).unwrap();
    let incoming = Arc::<Incoming>::default();
    assert!(incoming.held().await.is_none() && incoming.progress().is_none());
    let (reception, partial) = incoming.begin(0).expect("afresh");
    assert!(partial.is_none());
    reception.note(7, 100);
    assert_eq!(incoming.progress().map(|now| (now.rows, now.bytes)), Some((7, 100)));
    // Asking ends what is being received; that keeps what it has.
    let stop = reception.stop();
    let range = HeldRange { to: Bytes::from("k"), rows: 7, digest: 9 };
    let kept = VecDeque::from([range.clone()]);
    let ending = tokio::spawn(async move {
        stop.cancelled().await;
        reception.keep(Staged::new(follower, target).unwrap(), kept);
    });
    let (name, ranges) = incoming.held().await.expect("it was kept");
    ending.await.unwrap();
    assert_eq!(ranges, [range]);
    assert!(incoming.progress().is_none());
    assert!(incoming.begin(name + 1).is_none(), "another name");
    assert!(incoming.held().await.is_none(), "what nobody names is dropped");
}
