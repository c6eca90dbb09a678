//! A recorder under loom's model of memory: a writer, and a flusher that peeks and takes.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test --release -p keyviz-core --lib loom`.

use loom::sync::Arc;
use loom::thread;

use super::recorder::{Recorder, Taken};
use super::summary::Summary;
use crate::sampler::sync::{AtomicU64, Ordering};

/// A writer of several keys beside a reader has too many schedules for more.
const PREEMPTIONS: usize = 2;

fn model(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS);
    builder.check(test);
}

/// Keys of which each can be told from its bytes, so that a mix of two shows.
const KEYS: [&[u8]; 3] = [b"aaaaaaaabbbbbbbb", b"ccccccccdddddddd", b"eeeeeeeeffffffff"];

/// Operations of each. The third takes the way of another, since a table has two of them here, and
/// with two operations writes all of it.
const OPERATIONS: [u64; 3] = [1, 1, 2];

fn operations(key: &[u8]) -> u64 {
    let at = KEYS.iter().position(|known| *known == key).expect("no mixed key");
    OPERATIONS[at]
}

fn record(recorder: &Recorder, keys: std::ops::Range<usize>) {
    keys.for_each(|at| recorder.record(KEYS[at], OPERATIONS[at], 1));
}

fn check(summary: &Summary) {
    for named in summary.keys() {
        let (lower, _) = summary.bounds(named);
        assert!(lower <= operations(&named.key), "{lower}");
    }
}

#[test]
fn loom_bounds_of_a_recorder_that_is_taken_while_it_is_written() {
    model(|| {
        let recorder = Arc::new(Recorder::new(1));
        let writer = {
            let recorder = Arc::clone(&recorder);
            thread::spawn(move || record(&recorder, 0..3))
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
        assert_eq!(all.operations(), 4, "each once");
        for key in KEYS {
            let exact = operations(key);
            match all.keys().iter().find(|named| *named.key == *key) {
                Some(named) => {
                    let (lower, upper) = all.bounds(named);
                    assert!(lower <= exact && exact <= upper, "{lower} {upper}");
                }
                None => assert!(all.threshold() >= exact),
            }
        }
    });
}

#[test]
fn loom_bounds_of_a_peek_beside_a_writer() {
    model(|| {
        let recorder = Arc::new(Recorder::new(1));
        record(&recorder, 0..2);
        let writer = {
            let recorder = Arc::clone(&recorder);
            thread::spawn(move || record(&recorder, 2..3))
        };
        let peeked = recorder.peek(&Taken::default());
        check(&peeked);
        assert!(peeked.operations() >= 2);
        let first = peeked.keys().iter().any(|named| *named.key == *KEYS[0]);
        assert!(first || peeked.threshold() >= 1);
        writer.join().expect("it does not panic");
    });
}

/// A key that takes the way of another leaves its name there, and the rest with its second
/// operation.
#[test]
fn loom_bounds_of_a_peek_while_a_key_is_seen_again() {
    model(|| {
        let recorder = Arc::new(Recorder::new(1));
        record(&recorder, 0..2);
        recorder.record(KEYS[2], 1, 1);
        let writer = {
            let recorder = Arc::clone(&recorder);
            thread::spawn(move || recorder.record(KEYS[2], 1, 1))
        };
        check(&recorder.peek(&Taken::default()));
        writer.join().expect("it does not panic");
        let all = recorder.peek(&Taken::default());
        let (lower, upper) = all
            .keys()
            .iter()
            .find(|named| *named.key == *KEYS[2])
            .map_or((0, 2), |key| all.bounds(key));
        assert!(lower <= 2 && (2..=3).contains(&upper), "{lower} {upper}");
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
