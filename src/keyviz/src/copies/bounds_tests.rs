//! Bounds of copies, and what is refused.

use super::tests::*;
use super::*;
use crate::history::*;
use crate::*;

#[test]
fn no_harm_a_store_that_fails_holds_nothing_until_it_is_opened_again() {
    let (mut origin, holder) = copied();
    *holder.store.fails.lock() = true;
    origin.count(1);
    origin.flush();
    let outbox = Outbox::new(&holder.copies.inventory(ORIGIN).expect("open"), &[]);
    let push = origin.push(&outbox.open(&origin.history.checkpoint()), None);
    assert!(matches!(holder.copies.take(push.clone(), origin.now_ms), Err(CopyError::Store(_))));
    assert!(!holder.copies.is_open() && holder.copies.held().is_empty());
    assert!(matches!(
        holder.copies.take(push.clone(), origin.now_ms),
        Err(CopyError::Closed { .. })
    ));
    *holder.store.fails.lock() = false;
    holder.copies.open(Arc::clone(&holder.store) as _).expect("memory works");
    holder.copies.take(push, origin.now_ms).expect("it works again");
}

#[test]
fn bounds_copies_have_a_budget_and_the_oldest_columns_go_first() {
    let mut origin = Origin::new();
    let mut holder = Holder::new(1, 20_000);
    for _ in 0..150 {
        origin.count(5);
        origin.pass(STEP * 60);
        origin.send(&mut holder, 1_000);
        assert!(holder.copies.bytes_held() <= 20_000, "{}", holder.copies.bytes_held());
    }
    let held = holder.copies.held()[0];
    assert!(held.forgotten_before_ms > NOW);
    assert_eq!(held.complete_to_ms, origin.flushed_ms);
    let old = ask(None, &[&holder], Window { from_ms: NOW, to_ms: NOW + 60 * STEP });
    assert!(old.rows.iter().all(|row| !row.partial.is_empty()), "what is gone is told");
    // What was dropped is not sent again.
    holder.outbox = None;
    origin.send(&mut holder, 1_000);
    assert!(holder.copies.bytes_held() <= 20_000);
}

#[test]
fn bounds_bad_copies_are_refused_in_words_and_change_nothing() {
    let (origin, holder) = copied();
    let closed = origin.history.inspect(ALL);
    let open = origin.history.checkpoint();
    let fresh = Outbox::new(&Inventory::default(), &closed);
    let parcel = fresh.next(&closed, open.id(), 0, usize::MAX).expect("all of it");
    let sound = origin.push(&parcel, Some(origin.flushed_ms));
    let before = holder.store.records.lock().clone();
    let refused = |push: CopyPush| holder.copies.take(push, origin.now_ms).expect_err("refused");

    let own = CopyPush { node: NodeId(1), ..sound.clone() };
    assert!(matches!(refused(own), CopyError::Own(NodeId(1))));
    let step = CopyPush { step_ms: 1_000, ..sound.clone() };
    assert!(matches!(refused(step), CopyError::Step { theirs_ms: 1_000, ours_ms: STEP }));
    let stale = CopyPush { incarnation: Incarnation(0), ..sound.clone() };
    assert!(matches!(refused(stale), CopyError::Stale { theirs: 0, known: 1, .. }));
    let early = holder.copies.take(sound.clone(), NOW - 3 * 24 * 3_600_000);
    assert!(matches!(early, Err(CopyError::Future { .. })), "{early:?}");

    // A column of a life that has not begun.
    let mut later = Origin::new();
    later.restart(false);
    later.count(1);
    later.pass(STEP);
    let columns = later.history.inspect(ALL);
    let parcel = fresh.next(&columns, open.id(), 0, usize::MAX).expect("all of it");
    let unborn = CopyPush { incarnation: Incarnation(1), ..later.push(&parcel, None) };
    assert!(matches!(refused(unborn), CopyError::Unborn { found: 2, latest: 1 }));

    for at in 0..sound.records.len() {
        let mut damaged = sound.clone();
        *damaged.records[at].1.last_mut().expect("a record has bytes") ^= 1;
        assert!(matches!(refused(damaged), CopyError::Damaged { .. }), "record {at}");
        let mut misplaced = sound.clone();
        misplaced.records[at].0 = b"x".to_vec();
        assert!(matches!(refused(misplaced), CopyError::Damaged { .. }), "record {at}");
    }
    let long = vec![(b"x".to_vec(), vec![0; MAX_PUSH_BYTES])];
    let large = CopyPush { records: long, ..sound.clone() };
    assert!(matches!(refused(large), CopyError::TooLarge { .. }));

    // Columns without their chunks are asked for again.
    let chunkless = |(key, _): &CopyRecord| key[0] != b'a';
    let records = sound.records.iter().filter(|record| chunkless(record)).cloned().collect();
    let empty = Holder::new(2, 1 << 30);
    let lacking = CopyPush { records, ..sound.clone() };
    assert_eq!(empty.copies.take(lacking, origin.now_ms).expect("no fault"), Taken::MissingChunks);
    assert!(empty.store.records.lock().is_empty());
    assert_eq!(*holder.store.records.lock(), before, "nothing of it was stored");
    assert!(holder.copies.is_open());
    // A column of another step in the records of a sound push.
    let odd = History::new(
        HistoryConfig { step_ms: 1_000, ..config() },
        ORIGIN,
        Incarnation(1),
        NOW + 1_000,
    );
    let odd = fresh.open(&odd.expect("valid").checkpoint());
    assert!(matches!(refused(origin.push(&odd, None)), CopyError::Interval { .. }));
    holder.copies.take(sound, origin.now_ms).expect("it is sound");
}
