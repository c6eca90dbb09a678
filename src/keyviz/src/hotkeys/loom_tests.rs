//! A recorder under loom's model of memory: a writer, and a flusher that peeks and takes.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test --release -p keyviz-core --lib loom`.

use loom::sync::Arc;
use loom::thread;

use super::recorder::{Recorder, Taken};
use super::summary::Summary;
use crate::sampler::sync::{AtomicU64, Ordering};

const PREEMPTIONS: usize = 3;

fn model(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS);
    builder.check(test);
}

/// Keys of which each can be told from its bytes, so that a mix of two shows.
const KEYS: [&[u8]; 3] = [b"aaaaaaaabbbbbbbb", b"ccccccccdddddddd", b"eeeeeeeeffffffff"];

/// What was recorded: each key once.
fn check(summary: &Summary) {
    for named in summary.keys() {
        assert!(KEYS.contains(&&*named.key), "a mixed key");
        let (lower, _) = summary.bounds(named);
        assert!(lower <= 1, "{lower}");
    }
}

#[test]
fn loom_bounds_of_a_recorder_that_is_taken_while_it_is_written() {
    model(|| {
        let recorder = Arc::new(Recorder::new(1));
        let writer = {
            let recorder = Arc::clone(&recorder);
            // The third takes the counter of another: a table has two of them here.
            thread::spawn(move || KEYS.iter().for_each(|key| recorder.record(key, 1, 1)))
        };
        let mut taken = Taken::default();
        let mut all = recorder.take(&mut taken);
        check(&all);
        writer.join().expect("it does not panic");
        for _ in 0..2 {
            let next = recorder.take(&mut taken);
            check(&next);
            all.add(&next);
        }
        assert_eq!(all.operations(), 3, "each once");
        for key in KEYS {
            match all.keys().iter().find(|named| *named.key == *key) {
                Some(named) => {
                    let (lower, upper) = all.bounds(named);
                    assert!(lower <= 1 && 1 <= upper, "{lower} {upper}");
                }
                None => assert!(all.threshold() >= 1),
            }
        }
    });
}

#[test]
fn loom_bounds_of_a_peek_beside_a_writer() {
    model(|| {
        let recorder = Arc::new(Recorder::new(1));
        recorder.record(KEYS[0], 1, 1);
        let writer = {
            let recorder = Arc::clone(&recorder);
            thread::spawn(move || KEYS[1..].iter().for_each(|key| recorder.record(key, 1, 1)))
        };
        let peeked = recorder.peek(&Taken::default());
        check(&peeked);
        assert!(peeked.operations() >= 1);
        let first = peeked.keys().iter().any(|named| *named.key == *KEYS[0]);
        assert!(first || peeked.threshold() >= 1);
        writer.join().expect("it does not panic");
    });
}

#[test]
fn loom_conservation_a_reader_never_counts_what_is_in_no_cell() {
    model(|| {
        let recorder = Arc::new(Recorder::new(1));
        let cell = Arc::new(AtomicU64::new(0));
        let writer = {
            let (recorder, cell) = (Arc::clone(&recorder), Arc::clone(&cell));
            thread::spawn(move || {
                for count in 1..=2 {
                    cell.store(count, Ordering::Relaxed);
                    recorder.record(KEYS[0], 1, 1);
                }
            })
        };
        let peeked = recorder.peek(&Taken::default());
        let counted: u64 = peeked.keys().iter().map(|named| named.counted).sum();
        let cells = cell.load(Ordering::Relaxed);
        assert!(counted <= cells, "{counted} of {cells}");
        assert!(peeked.operations() <= cells);
        writer.join().expect("it does not panic");
    });
}
