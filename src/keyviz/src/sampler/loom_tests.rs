//! The sampler itself, under loom's model of memory: every interleaving up to the stated number of
//! preemptions, and every value that a relaxed load may see.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test --release -p keyviz-core --lib loom`.

use bytes::Bytes;
use loom::thread;

use super::*;
use keyviz_types::{KeyRange, RouteId};

/// Every fault that was put in by hand shows with two; three still take only seconds.
const PREEMPTIONS: usize = 3;

fn model(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS);
    builder.check(test);
}

fn sampler(shards: usize) -> Arc<Sampler> {
    // Summaries of keys have a model of their own.
    let config = SamplerConfig { shards, hot_keys: false, ..SamplerConfig::default() };
    let sampler = Sampler::new(config).expect("the settings are inside their bounds");
    let range = KeyRange { start: Bytes::new(), end: None };
    let id = RouteId::FIRST;
    let routes = [RouteSpec { id, range, group: GroupId(1) }];
    sampler.publish_routes(1, routes).expect("one route is a table");
    Arc::new(sampler)
}

fn write(sampler: &Sampler) {
    let epoch = sampler.epoch();
    let located = epoch.locate(b"k").expect("routes were published");
    epoch.record_write(located, b"k", 1, 10);
}

fn lead(sampler: &Sampler, term: u64) {
    sampler.set_leader_terms(&[(GroupId(1), Some(Term(term)))]);
}

/// Writes in a harvest; each of them has its bytes in the end, though not in each harvest.
fn writes(harvest: &Harvest) -> Counts {
    let mut sum = Counts::ZERO;
    for (_, counts) in harvest.segments.iter().flat_map(|segment| &segment.cells) {
        assert!(!counts.is_zero());
        sum.add(counts);
    }
    sum
}

fn assert_handed_over(sum: &Counts, writes: u64) {
    assert_eq!((sum.writes, sum.write_bytes), (writes, 10 * writes));
}

#[test]
fn loom_conservation_of_records_against_publish_and_harvest() {
    model(|| {
        let sampler = sampler(1);
        let recorder = {
            let sampler = Arc::clone(&sampler);
            thread::spawn(move || {
                write(&sampler);
                write(&sampler);
                sampler.rest();
            })
        };
        lead(&sampler, 1);
        let mut sum = writes(&sampler.harvest());
        recorder.join().expect("recorders do not panic");
        sum.add(&writes(&sampler.harvest()));
        assert_handed_over(&sum, 2);
        assert_eq!(sampler.ledger.lock().draining(), 0, "nobody holds the replaced epoch");
    });
}

#[test]
fn loom_conservation_of_an_epoch_that_is_held_while_it_is_replaced_and_drained() {
    model(|| {
        let sampler = sampler(1);
        let held = sampler.current.load_full();
        let recorder = {
            let sampler = Arc::clone(&sampler);
            thread::spawn(move || {
                let located = held.locate(b"k").expect("routes were published");
                sampler.record_write(&held, located, b"k", 1, 10);
                drop(held);
            })
        };
        lead(&sampler, 1);
        let mut sum = writes(&sampler.harvest());
        sum.add(&writes(&sampler.harvest()));
        let closed = sampler.ledger.lock().draining() == 0;
        if closed {
            assert_handed_over(&sum, 1);
        }
        recorder.join().expect("recorders do not panic");
        sum.add(&writes(&sampler.harvest()));
        assert_handed_over(&sum, 1);
    });
}

#[test]
fn loom_conservation_of_a_shard_that_is_handed_on() {
    model(|| {
        let sampler = sampler(1);
        let spawn = || {
            let sampler = Arc::clone(&sampler);
            thread::spawn(move || write(&sampler))
        };
        // The lease returns when the thread's locals go, which is after the join: the second may
        // get the shard or the overflow shard.
        let first = spawn();
        let second = spawn();
        first.join().expect("recorders do not panic");
        second.join().expect("recorders do not panic");
        assert_handed_over(&writes(&sampler.harvest()), 2);
    });
}

#[test]
fn loom_conservation_of_a_peek_beside_a_harvest() {
    model(|| {
        let sampler = sampler(1);
        let recorder = {
            let sampler = Arc::clone(&sampler);
            thread::spawn(move || write(&sampler))
        };
        let peeker = {
            let sampler = Arc::clone(&sampler);
            thread::spawn(move || assert!(writes(&sampler.peek()).writes <= 1))
        };
        let mut sum = writes(&sampler.harvest());
        recorder.join().expect("recorders do not panic");
        peeker.join().expect("peekers do not panic");
        sum.add(&writes(&sampler.harvest()));
        assert_handed_over(&sum, 1);
    });
}

#[test]
fn loom_conservation_of_records_against_a_replan_that_takes_their_keys() {
    model(|| {
        let sampler = sampler(1);
        let recorder = {
            let sampler = Arc::clone(&sampler);
            thread::spawn(move || {
                write(&sampler);
                write(&sampler);
            })
        };
        sampler.replan();
        recorder.join().expect("recorders do not panic");
        assert_handed_over(&writes(&sampler.harvest()), 2);
        assert!(sampler.shards.take_samples().len() <= 2);
    });
}

/// The canary: the lease is what makes a plain load and store enough. Two threads that write one
/// shard lose counts, and the model must see it.
#[test]
#[should_panic(expected = "left")]
fn loom_sees_the_loss_when_two_threads_write_one_shard() {
    model(|| {
        let sampler = sampler(1);
        let recorders: Vec<_> = (0..2)
            .map(|_| {
                let sampler = Arc::clone(&sampler);
                thread::spawn(move || {
                    let lease = crate::sampler::shard::Lease::forged(&sampler.shards, 0);
                    let epoch = sampler.current.load_full();
                    epoch.prepare(&lease);
                    let located = epoch.locate(b"k").expect("routes were published");
                    epoch.record(Some(&lease), located, b"k", Op::Write, 1, 10);
                    std::mem::forget(lease);
                })
            })
            .collect();
        for recorder in recorders {
            recorder.join().expect("recorders do not panic");
        }
        assert_handed_over(&writes(&sampler.harvest()), 2);
    });
}
